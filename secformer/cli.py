"""The command line: joins the groups of `commands`, runs one command, and reports how it ended.

Exit codes: 0 fine, 1 an error (one line on stderr; --debug shows the traceback), 2 wrong usage, 130 Ctrl-C.
Heavy modules are imported inside the command that needs them, after its input was read. So --help and usage errors are
fast. `views` decides what the output looks like.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import traceback
from collections.abc import Sequence

from secformer import __version__
from secformer.commands import (
    auditing,
    batch,
    cells,
    certify,
    epochs,
    gateway,
    generation,
    inference,
    page,
    query,
    serving,
    tasks,
    tokens,
    training,
    workers,
)
from secformer.commands.common import Commands
from secformer.memory import keep_memory
from secformer.mpc.errors import SecformerError

FINE, ERROR, USAGE, INTERRUPTED = 0, 1, 2, 130
ERRNO = re.compile(r"\[Errno -?\d+\] ")  # the system's number of an error, which helps nobody


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code. Usage errors leave through SystemExit(2), as argparse does."""
    args = _parser().parse_args(argv)
    keep_memory()
    try:
        args.command(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        _complain("interrupted", args.debug)
        exec("")  # after an interrupt inside exec(), `python -m` ignores the exit code until the next exec()
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has left, so nobody would see a message
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ERROR
    except (SecformerError, OSError) as error:
        _complain(f"error: {error}", args.debug)
        return ERROR
    except Exception as error:  # a defect of ours, still reported in one line
        _complain(f"unexpected {type(error).__name__}: {error} (run again with --debug for the traceback)", args.debug)
        return ERROR
    return FINE


def _complain(message: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(f"secformer: {ERRNO.sub('', ' '.join(message.split()))}", file=sys.stderr)


# ---- the parser ------------------------------------------------------------------------------------------------------

_ABOUT = """\
Runs Transformer models on secret texts with secret weights. Two servers compute on additive shares; a dealer, which
sees no data, supplies randomness. With the recipe `faithful`, the answers match the plaintext model's up to a small
error of approximation and rounding. The commands `init` to `gateway` are for separate servers, and `embed` to `score`
can ask such servers. Wherever another command computes securely, it runs the three roles in this process, each with its
own data, and prints the cost of the protocol.
"""
_EXAMPLES = """\
start here:
  secformer demo                                  the shipped sentiment model on three sentences
  secformer infer ./my-bert "A sentence."         any local Hugging Face folder of an encoder
  secformer embed ./my-model "A sentence."        a task; so are rerank, classify, entities, fill-mask and answer
  secformer chat ./my-chat-model                  a conversation; `generate` answers one prompt, `score` rates texts
  secformer check ./my-bert "A sentence."         does this text stay within the model's measured ranges?
  secformer compare ./my-bert "A sentence."       what does each recipe answer, and at what cost?
  secformer distill --help                        how to train a model for secure inference from yours
  secformer infer --help                          every command has a help page like this

exit codes: 0 fine, 1 error (one line on stderr; --debug shows the traceback), 2 wrong usage, 130 interrupted
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="secformer", description=_ABOUT, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(debug=False)
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.add_argument("--version", action="version", version=f"secformer {__version__}")
    commands = Commands(parser)
    for group in (inference, tasks, generation, training, certify, serving, workers, epochs, query, gateway, cells,
                  batch, page, tokens, auditing):
        group.add(commands)
    return parser
