"""Generation on shares: verified against plaintext, then measured; what a token costs, and what its place costs.

    python bench/generate.py ../shared/models/SmolLM2-135M-Instruct --prompts 20 --tokens 32 --text text.txt
    python bench/generate.py gpt2-shape --parts logits,cost,growth,drafted

The model is a folder of a causal language model, or `gpt2-shape`: GPT-2's shape (12 layers, hidden 768, vocabulary of
50,257, 1,024 positions) with random weights, which has no tokenizer. The parts:

    logits      the largest error of a logit on a prompt, to the float64 twin, and to transformers in float32
    agreement   greedy tokens of several prompts, against the plaintext reference and transformers. A difference where
                the two largest logits are within 1e-2 is a tie
    perplexity  of a text, on shares and in plaintext
    cost        seconds of a prompt and of a token (the median), rounds, MB online and of the dealer, peak memory
    growth      a token behind 10 tokens and behind 500
    drafted     a step that verifies eight tokens, against a step of one

`logits` always runs first, and nothing is timed where it is off. bench/results/generate.json is written after each part
and keeps what it has of other models and parts. What transformers is needed for is left out without torch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from report import RESULTS, peak_memory, record
from safetensors.numpy import save_file

from secformer import PlainModel, SecureModel
from secformer.memory import keep_memory
from secformer.models.data.tensors import parts as stored
from secformer.models.families.config import read_config
from secformer.models.families.folder import ModelFolder
from secformer.models.families.table import architecture_of
from secformer.models.ranges.profile import FILE, RangeProfile, measure
from secformer.models.run.decoding import Decoding, Step
from secformer.models.run.local import reference
from secformer.models.run.prefix import begin
from secformer.mpc.ring import WORD_BITS

SHAPE = "gpt2-shape"
GPT2 = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 50257, "n_positions": 1024,
        "n_embd": 768, "n_layer": 12, "n_head": 12}
TOLERANCE = 0.1  # of a logit to the twin's: more is a defect, not rounding
TIE = 1e-2       # two largest logits that are as near may change their places
STEPS = 5        # steps whose median counts
DRAFTED = 8      # tokens of a step that verifies drafted ones
EARLY, LATE = 10, 500
QUESTIONS = (
    "What is the capital of France? Answer in one short sentence.", "Name three colours.", "What is 7 plus 5?",
    "Write one sentence about the sea.", "Who wrote Hamlet?", "What do bees make?", "Translate 'hello' to French.",
    "Give a synonym of 'happy'.", "Why is the sky blue?", "What is water made of?", "Name a planet with rings.",
    "Finish: the early bird", "How many days has a week?", "What is the opposite of cold?", "Name a large river.",
    "Write a title for a story about a fox.", "What is bread made of?", "Which animal says meow?",
    "Explain gravity in one sentence.", "What comes after Tuesday?",
)


@dataclass(frozen=True)
class Bench:
    """A model on shares, its twin, the plaintext reference, and transformers' own in float32, where torch is there."""

    folder: Path
    secure: SecureModel
    twin: PlainModel
    plain: PlainModel
    theirs: Any
    seed: int = 0

    @property
    def longest(self) -> int:
        return self.secure.architecture.inputs.longest

    def ids(self, count: int) -> list[int]:
        """That many random tokens, behind the public prefix."""
        rng = np.random.default_rng(self.seed)
        prefix = self.secure.decoding().prefix
        return [*prefix, *rng.integers(0, self.secure.architecture.inputs.words, count - len(prefix)).tolist()]


def random_gpt2(folder: Path, seed: int = 0, **entries: int) -> Path:
    """A randomly initialised GPT-2, in float16."""
    (folder / "config.json").write_text(json.dumps(GPT2 | entries))
    rng, tensors = np.random.default_rng(seed), {}
    for part in stored(architecture_of(read_config(folder)).layout(WORD_BITS)):
        gain = len(part.shape) == 1 and part.names[0].endswith("weight")
        drawn = np.ones(part.shape) if gain else 0.02 * rng.standard_normal(part.shape, dtype=np.float32)
        tensors[part.names[0]] = drawn.astype(np.float16)
    save_file(tensors, folder / "model.safetensors")
    return folder


def transformers_model(folder: Path) -> Any:
    """transformers' model in float32; None without torch."""
    try:
        import torch
        from transformers import AutoModelForCausalLM
    except ImportError:
        return None
    return AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()


def their_logits(model: Any, ids: Sequence[int]) -> np.ndarray:
    """(T, V)"""
    import torch

    with torch.no_grad():
        return np.asarray(model(torch.tensor([list(ids)])).logits[0], np.float64)


def timed(job: Callable[[], Step]) -> tuple[float, Step]:
    started = time.perf_counter()
    step = job()
    return time.perf_counter() - started, step


def median(decoding: Decoding, count: int, tokens: int = 1) -> tuple[float, Step]:
    """The median seconds of steps of so many tokens, and the last of them. The first step makes its plan, and does not
    count."""
    found = [timed(lambda: decoding.take([1] * tokens, last=tokens)) for _ in range(count + 1)][1:]
    return statistics.median(seconds for seconds, _ in found), found[-1][1]


# ---- the parts -------------------------------------------------------------------------------------------------------


def logits(bench: Bench, args: argparse.Namespace) -> dict[str, Any]:
    ids = bench.ids(args.prompt_tokens)
    texts = [model.decoding() for model in (bench.secure, bench.twin)]
    behind = len(ids) - texts[0].length
    secure, twin = (text.take(ids[text.length :], last=behind) for text in texts)
    error = float(np.abs(secure.logits - twin.logits).max())
    if not error <= TOLERANCE or secure.breaches:
        raise SystemExit(f"off by {error:.3g} from the twin, or marked {secure.breaches}; nothing is timed")
    found = {"tokens": behind, "error_to_twin": error, "largest_logit": float(np.abs(twin.logits).max())}
    if bench.theirs is not None:
        wanted = their_logits(bench.theirs, ids)[-behind:]
        found["error_to_transformers"] = float(np.abs(secure.logits - wanted).max())
    return found


def agreement(bench: Bench, args: argparse.Namespace) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    prompts = args.prompt_file.read_text("utf-8").splitlines() if args.prompt_file else QUESTIONS
    for prompt in prompts[: args.prompts]:
        chat = bench.secure.tokenizer.chat_template is not None
        given: Any = [{"role": "user", "content": prompt}] if chat else prompt
        mine, plain = (model.generate(given, max_new_tokens=args.tokens) for model in (bench.secure, bench.plain))
        row: dict[str, Any] = {"trusted": mine.trusted, "tokens": len(mine.tokens),
                               "plain": same(bench, mine.prompt, mine.tokens, plain.tokens)}
        if bench.theirs is not None:
            import torch

            out = bench.theirs.generate(torch.tensor([mine.prompt]), max_new_tokens=args.tokens, do_sample=False)
            row["transformers"] = same(bench, mine.prompt, mine.tokens, out[0, len(mine.prompt) :].tolist())
        rows.append(row)
        print(prompt, repr(mine.text), row)
    return {"prompts": len(rows), "tokens_each": args.tokens, "tokens": sum(row["tokens"] for row in rows),
            "trusted": sum(row["trusted"] for row in rows),
            **{f"same_as_{name}": [row[name] for row in rows].count("same") for name in rows[0] if name in
               ("plain", "transformers")},
            **{f"ties_with_{name}": [row[name] for row in rows].count("tie") for name in rows[0] if name in
               ("plain", "transformers")}}


def same(bench: Bench, prompt: Sequence[int], mine: Sequence[int], other: Sequence[int]) -> str:
    """Whether both continuations are equal: "same"; "tie" where the first difference is one; else "different"."""
    if list(mine) == list(other):
        return "same"
    first = next((i for i, (a, b) in enumerate(zip(mine, other, strict=False)) if a != b), min(len(mine), len(other)))
    row = np.sort(bench.plain.decoding().become([*prompt, *mine[:first]]).logits[-1])
    return "tie" if row[-1] - row[-2] <= TIE else "different"


def perplexity(bench: Bench, args: argparse.Namespace) -> dict[str, Any]:
    ids = bench.secure.tokenizer.tokens(args.text.read_text("utf-8"))[: args.text_tokens]
    text = bench.secure.tokenizer.words(ids)
    secure, twin = bench.secure.score(text), bench.twin.score(text)
    return {"tokens": secure.tokens, "trusted": secure.trusted, "secure": secure.perplexity, "plain": twin.perplexity,
            "ratio": secure.perplexity / twin.perplexity}


def cost(bench: Bench, args: argparse.Namespace) -> dict[str, Any]:
    text, ids = bench.secure.decoding(), bench.ids(args.prompt_tokens)
    bench.secure.decoding().become(ids)  # makes the plan, which all prompts of this length share
    prompt_seconds, prompt = timed(lambda: text.become(ids))
    seconds, step = median(text, args.tokens)
    return {"prompt_tokens": len(ids), "prompt_seconds": prompt_seconds, "prompt_bytes": prompt.cost.bytes,
            "prompt_rounds": prompt.cost.rounds, "seconds_per_token": seconds, "rounds": step.cost.rounds,
            "online_bytes": step.cost.bytes, "dealer_bytes": step.cost.dealer_bytes,
            "peak_memory_bytes": peak_memory()}


def growth(bench: Bench, args: argparse.Namespace) -> dict[str, Any]:
    text, late = bench.secure.decoding(), min(args.late, bench.longest - STEPS - 1)
    ids = bench.ids(late)
    rows = {}
    for place in (EARLY + text.length, late):
        text.take(ids[text.length : place])
        seconds, step = median(text, STEPS)
        rows[place] = {"seconds": seconds, "bytes": step.cost.bytes, "rounds": step.cost.rounds}
        text.back(place)
    first, last = rows.values()
    return {"rows": rows, "ratio": last["seconds"] / first["seconds"]}


def drafted(bench: Bench, args: argparse.Namespace) -> dict[str, Any]:
    found = {}
    for tokens in (1, DRAFTED):
        text = bench.secure.decoding()
        text.become(bench.ids(args.prompt_tokens))
        seconds, step = median(text, STEPS, tokens)
        found[tokens] = {"seconds": seconds, "bytes": step.cost.bytes, "rounds": step.cost.rounds}
    one, many = found.values()
    return {"rows": found, "ratio": many["seconds"] / one["seconds"], "same_rounds": many["rounds"] == one["rounds"]}


PARTS = {each.__name__: each for each in (logits, agreement, perplexity, cost, growth, drafted)}
NEED_A_TOKENIZER = ("agreement", "perplexity")


# ---- all of it -------------------------------------------------------------------------------------------------------


def opened(folder: Path, *, texts: bool, longest: int) -> Bench:
    """The models of a folder, all with one range profile."""
    known, whole = folder / FILE, ModelFolder(folder)
    settings: dict[str, Any] = {"public_prefix": "auto" if texts else None}
    begin(whole, settings["public_prefix"])
    given = None
    if not texts:
        rng = np.random.default_rng(1)
        given = {"input_ids": rng.integers(0, whole.architecture.inputs.words, (2, min(longest, 256)))}
    profile = RangeProfile.load(known) if known.is_file() else measure(whole, given)
    secure = SecureModel.from_pretrained(folder, profile=profile, backend="numpy", deadline=3600.0, **settings)
    twin = PlainModel.from_pretrained(folder, profile=profile, **settings)
    plain = reference(ModelFolder(folder), public_prefix=None)
    return Bench(folder, secure, twin, plain, transformers_model(folder))


def kept(name: str, part: str, found: dict[str, Any], out: Path) -> None:
    """Writes a part's result among those that are there."""
    file = out / "generate.json"
    models = json.loads(file.read_text("utf-8"))["models"] if file.is_file() else {}
    models.setdefault(name, {})[part] = found
    record("generate", {"models": models}, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help=f"a folder, or {SHAPE}")
    parser.add_argument("--name", help="what the model is called in the results")
    parser.add_argument("--parts", default=",".join(PARTS), help="names with commas between them")
    parser.add_argument("--prompts", type=int, default=20, help="how many prompts the agreement is taken of")
    parser.add_argument("--prompt-file", type=Path, help="one prompt per line, in the place of the built-in ones")
    parser.add_argument("--tokens", type=int, default=32, help="generated tokens of a prompt")
    parser.add_argument("--prompt-tokens", type=int, default=64, help="tokens of the prompt that is timed")
    parser.add_argument("--late", type=int, default=LATE, help="the later place whose cost is compared")
    parser.add_argument("--text", type=Path, help="a text for the perplexity")
    parser.add_argument("--text-tokens", type=int, default=512)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    keep_memory()
    chosen = [name for name in PARTS if name in ("logits", *args.parts.split(","))]
    texts = args.model != SHAPE
    if not texts or args.text is None:
        chosen = [name for name in chosen if name != "perplexity" and (texts or name not in NEED_A_TOKENIZER)]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(args.model) if texts else random_gpt2(Path(made))
        bench = opened(folder, texts=texts, longest=args.late)
        name = args.name or (folder.resolve().name if texts else SHAPE)
        with bench.secure:
            for part in chosen:
                found = PARTS[part](bench, args)
                print(part, found)
                kept(name, part, found, args.out)


if __name__ == "__main__":
    main()
