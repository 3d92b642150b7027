"""What a folder of sentence-transformers says of itself: its modules, limits and prompt, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from secformer.mpc.errors import ModelError
from secformer.mpc.strict_json import read_foreign

MODULES = "modules.json"
SETTINGS = "config_sentence_transformers.json"
LIMITS = "sentence_*_config.json"  # of the Transformer; the middle is the family's name, mostly "bert"
TOKENIZER = "tokenizer_config.json"
OWNER = "sentence_transformers."   # what the classes of modules begin with
# the ways of pooling, by the keys that older versions have for them, in the order in which results are joined
WAYS = MappingProxyType({
    "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max", "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
})
# activations of dense layers, by the names of torch's classes; none is the identity
ACTIVATIONS = MappingProxyType({"Identity": "", "Tanh": "tanh", "ReLU": "relu", "GELU": "gelu", "SiLU": "silu"})
SENTENCE_KEY = "sentence_embedding"  # where a Dense layer finds its input, and leaves its output
RUN = "Transformer, Pooling, Dense, Dropout, Normalize"


@dataclass(frozen=True)
class Dense:
    """A linear layer behind the pooling: from `inner` to `outer` numbers, in the folder `path`, with an activation."""

    path: str
    inner: int
    outer: int
    bias: bool
    act: str


@dataclass(frozen=True)
class Modules:
    """What stands behind the encoder of a folder, and what its texts are given.

    pooling  ways of pooling, joined in this order
    dense    layers behind it
    unit     the embedding is brought to unit length in the end
    limit    the most tokens of a text; None: what the encoder takes
    prompt   what is put before every text
    include_prompt  the prompt's tokens are pooled
    lower    texts are put into lower case
    skip     how many tokens at a text's start are not pooled
    """

    pooling: tuple[str, ...]
    dense: tuple[Dense, ...] = ()
    unit: bool = False
    limit: int | None = None
    prompt: str = ""
    include_prompt: bool = True
    lower: bool = False
    skip: int = 0

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict`. Raises TypeError for other keys."""
        return cls(**{**facts, "pooling": tuple(facts["pooling"]),
                      "dense": tuple(Dense(**layer) for layer in facts["dense"])})


def read_modules(folder: Path) -> Modules | None:
    """The modules of a folder; None where nothing stands behind the encoder, or the folder is not one of
    sentence-transformers.

    Raises ModelError, which names the file and the key, for a module or a variant that is not run.
    """
    file = folder / MODULES
    if not file.is_file():
        return None
    listed = _read(file, list)
    named = [_module(file, each) for each in listed]
    if not named or named[0][0] != "Transformer" or named[0][1]:
        raise ModelError(f"{file}: the first module must be a Transformer whose path is '' (the folder itself), got "
                         f"{listed[:1]}; save the model again with sentence-transformers")
    behind = [(kind, path) for kind, path in named[1:] if kind != "Dropout"]  # does nothing but in training
    if not behind:
        return None
    kinds = [kind for kind, _ in behind]
    dense = kinds.count("Dense")
    unit = len(kinds) > 1 + dense
    if kinds != ["Pooling", *["Dense"] * dense, *["Normalize"] * (len(kinds) - 1 - dense)]:
        raise ModelError(f"{file}: a Transformer must be followed by Pooling, then Dense layers, then Normalize, got "
                         f"{', '.join(kinds)}; {_instead(folder)}")
    pooling, include = _pooling(folder / behind[0][1])
    limit, lower = _limits(folder)
    return Modules(pooling, tuple(_dense(folder, path) for kind, path in behind if kind == "Dense"), unit, limit,
                   _prompt(folder), include, lower)


def read_settings(folder: Path) -> Mapping[str, Any]:
    """The entries of SETTINGS; none where there is no such file. Raises ModelError for a file that cannot be read."""
    file = folder / SETTINGS
    found: Mapping[str, Any] = _read(file, dict) if file.is_file() else {}
    return found


def _module(file: Path, entry: Any) -> tuple[str, str]:
    """A module's class and the folder that it is in."""
    known = isinstance(entry, Mapping) and isinstance(entry.get("type"), str) and isinstance(entry.get("path"), str)
    kind = entry["type"].rpartition(".")[2] if known else ""
    if not known or not entry["type"].startswith(OWNER) or kind not in RUN.split(", "):
        raise ModelError(f"{file}: the module {entry} is not run here; those that are: {RUN}. {_instead(file.parent)}")
    path = str(entry["path"])
    if path and (Path(path).name != path or path == ".."):
        raise ModelError(f"{file}: the path of a module must be a folder beside the file, got {path!r}")
    return kind, path


def _instead(folder: Path) -> str:
    return f"for hidden states alone, use a copy of {folder} without {MODULES}"


def _pooling(folder: Path) -> tuple[tuple[str, ...], bool]:
    """The ways of pooling, and whether the prompt is pooled."""
    file = folder / "config.json"
    facts = _read(file, dict)
    stated = facts.get("pooling_mode")
    if stated is None:
        found = tuple(way for key, way in WAYS.items() if facts.get(key))
    else:
        found = (stated,) if isinstance(stated, str) else tuple(stated) if isinstance(stated, list) else (stated,)
    unknown = [key for key, value in facts.items() if key.startswith("pooling_mode_") and value and key not in WAYS]
    if unknown or not set(map(str, found)) <= set(WAYS.values()):
        raise ModelError(f"{file}: pooling must be among {', '.join(WAYS.values())}, got "
                         f"{', '.join(map(str, [*found, *unknown]))}; {_instead(folder.parent)}")
    return found or ("mean",), bool(facts.get("include_prompt", True))


def _dense(folder: Path, path: str) -> Dense:
    file = folder / path / "config.json"
    facts = _read(file, dict)
    name = str(facts.get("activation_function", "torch.nn.modules.activation.Tanh"))
    kind = name.rpartition(".")[2]
    if not name.startswith("torch.nn.") or kind not in ACTIVATIONS:
        raise ModelError(f"{file}: activation_function must be one of torch.nn's {', '.join(ACTIVATIONS)}, got "
                         f"{name!r}; {_instead(folder)}")
    for key, usual in (("module_input_name", SENTENCE_KEY), ("module_output_name", SENTENCE_KEY),
                       ("use_residual", False)):
        if facts.get(key) not in (None, usual):
            raise ModelError(f"{file}: {key} must be {usual!r}, got {facts[key]!r}; {_instead(folder)}")
    sizes = [facts.get("in_features"), facts.get("out_features")]
    if not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in sizes):
        raise ModelError(f"{file}: in_features and out_features must be positive integers, got {sizes}")
    return Dense(path, sizes[0], sizes[1], bool(facts.get("bias", True)), ACTIVATIONS[kind])


def _limits(folder: Path) -> tuple[int | None, bool]:
    """The most tokens of a text, and whether texts are put into lower case."""
    files = sorted(folder.glob(LIMITS))
    facts = _read(files[0], dict) if files else {}
    limit, lower = facts.get("max_seq_length"), bool(facts.get("do_lower_case"))
    if limit is None:
        stated = _read(folder / TOKENIZER, dict).get("model_max_length") if (folder / TOKENIZER).is_file() else None
        return stated if isinstance(stated, int) and stated > 0 else None, lower  # huge where there is no limit
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise ModelError(f"{files[0]}: max_seq_length must be a positive integer, got {limit!r}")
    return limit, lower


def _prompt(folder: Path) -> str:
    """The prompt that is put before texts where the user names none."""
    file, facts = folder / SETTINGS, read_settings(folder)
    if facts.get("truncate_dim") is not None:
        raise ModelError(f"{file}: truncate_dim must be null, got {facts['truncate_dim']!r}; {_instead(folder)}")
    name, prompts = facts.get("default_prompt_name"), facts.get("prompts") or {}
    if name is None:
        return ""
    if not isinstance(prompts, Mapping) or not isinstance(prompts.get(name), str):
        raise ModelError(f"{file}: default_prompt_name is {name!r}, but prompts has no text of that name")
    return str(prompts[name])


def _read(file: Path, kind: type) -> Any:
    try:
        facts = read_foreign(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {file} ({type(error).__name__}: {error}); copy the folder again, with the "
                         f"folders of its modules") from error
    if not isinstance(facts, kind):
        raise ModelError(f"{file} must hold a JSON {'list' if kind is list else 'object'}; copy it again")
    return facts
