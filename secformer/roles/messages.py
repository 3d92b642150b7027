"""The messages of clients and parties: halves of requests and of answers, as safetensors bodies.

B texts, T tokens of the longest, N tokens of all, V vocabulary, S segments, C hidden.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from secformer.models.data.inputs import RowKeys, TokenInputs
from secformer.mpc.errors import InputError, ProtocolError
from secformer.mpc.kernels.points import LEAF, MOST_TURN, SALT_WORDS, SEED_WORDS, PointKeys, depth
from secformer.mpc.meter import Cost
from secformer.mpc.net.notes import decimal
from secformer.mpc.prg import SEED_BYTES, fresh_seed
from secformer.mpc.strict_json import read_own
from secformer.version import __version__

REQUEST, ANSWER = "secformer request 2", "secformer answer 1"
SAME = ("salt", "corrections", "turns", "finals")  # of keys: what both parties get
HEADER_ROOM = 1 << 13  # bytes of a half's header, about four times as many as it takes
MAX_HEADER = 1 << 20  # bytes of the header of a body
ID_DIGITS = 32        # hexadecimal digits of a request id, 128 random bits


@dataclass(frozen=True)
class StepRequest:
    """What a request says that continues a text (see `sessions`).

    session  id of the session: that of the request which opens it
    keep     the tokens of the text that stay, those of a public prefix included
    last     of how many of the new tokens the logits are wanted: of the last one, or of all
    """

    session: str
    keep: int
    last: int


@dataclass(frozen=True, eq=False)
class Half:
    """One party's half of a request. Lengths (B,) and mask (B, T) are public and must be the same in both halves.

    Where the parties hold the embedding tables, a half holds keys of the one-hot rows. Where clients hold them, party
    0's half holds words, its share of the embedding sums (N, C), and party 1's the seed of its share. A half with a
    `step` holds new tokens of one text. `digest` is that of the body that it came in, and `trace` the id of the trace
    that the request belongs to (see `traces`), which travels in a header.
    """

    request: str
    model: str
    lengths: np.ndarray
    mask: np.ndarray
    words: np.ndarray | None = field(default=None, repr=False)
    seed: bytes | None = field(default=None, repr=False)
    step: StepRequest | None = None
    keys: RowKeys | None = field(default=None, repr=False)
    digest: str = ""
    trace: str = ""

    @cached_property
    def shape_digest(self) -> str:
        """A digest of everything that must be the same in both halves."""
        h = hashlib.sha256(f"{self.model}:{self.mask.shape}:".encode())
        h.update(np.ascontiguousarray(self.lengths, dtype="<i8").tobytes() + np.packbits(self.mask).tobytes())
        if self.step is not None:
            h.update(f"{self.step.session}:{self.step.keep}:{self.step.last}".encode())
        if self.keys is not None:
            points = self.keys.points
            for name in SAME:
                h.update(np.ascontiguousarray(getattr(points, name)).tobytes())
        return h.hexdigest()


@dataclass(frozen=True)
class Ran:
    """What a party can say of a run, all of it public: its epoch, its space and serial as "space/serial", its name (a
    hash, which both parties' nonces enter), its plan's digest, and the seconds that the request waited, got its
    material and was computed."""

    epoch: str
    run: str
    name: str
    plan: str
    waiting: float
    material: float
    computing: float


@dataclass(frozen=True)
class Exchanged:
    """What a client knows of an exchange with a party: the digests of the bodies that it sent and received, and the
    receipt in the answer's header, None if there was none."""

    half: str
    answer: str
    receipt: str | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class Answer:
    """One party's half of an answer: words by result name, with `frac` fractional bits, and the cost. A party knows how
    it `ran`, and a client what was `exchanged`."""

    words: Mapping[str, np.ndarray] = field(repr=False)
    frac: int
    cost: Cost
    ran: Ran | None = None
    exchanged: Exchanged | None = None


def pack_half(half: Half) -> bytes:
    """A half as a body."""
    from safetensors.numpy import save

    tensors = {"lengths": half.lengths.astype(np.int64), "mask": half.mask.astype(np.uint8)}
    if half.keys is not None:
        tensors |= {name: np.ascontiguousarray(getattr(half.keys.points, name)) for name in (*SAME, "seeds")}
        tensors |= {"segments": half.keys.segments} if half.keys.segments.size else {}
    elif half.words is not None:
        tensors["words"] = np.ascontiguousarray(half.words)
    else:
        tensors["seed"] = np.frombuffer(half.seed or b"", dtype=np.uint8)
    metadata = {"format": REQUEST, "request": half.request, "model": half.model, "version": __version__,
                "salt": _salt()}
    if half.step is not None:
        metadata |= {name: str(value) for name, value in asdict(half.step).items()}
    return bytes(save(tensors, metadata=metadata))


def _salt() -> str:
    """Makes the digest of a body hide it. Without a salt, whoever has the other half and the digest could test guesses
    of the text."""
    return fresh_seed().hex()


def body_digest(body: bytes) -> str:
    """The digest of a body, as audit logs hold it."""
    return hashlib.sha256(body).hexdigest()


def most_bytes(inputs: TokenInputs, private: bool, max_tokens: int) -> int:
    """The most bytes that the body of a half may have. `private` as in `PublicModel`."""
    if private:
        each = 4 * SEED_WORDS + (4 * SEED_WORDS + 1) * depth(inputs.words) + 8 * (LEAF + inputs.segments)
    else:
        each = 8 * inputs.hidden
    return HEADER_ROOM + max_tokens * (each + 8 + 1)  # a length and the mask


def unpack_half(body: bytes, *, inputs: TokenInputs, private: bool, rank: int, max_tokens: int) -> Half:
    """A half from a body, at party `rank`. `private` as in `PublicModel`.

    Raises InputError for anything but a well-formed half within the limits.
    """
    longest = inputs.longest
    tensors, metadata = _unpack(body, REQUEST, InputError)
    request, model = metadata.get("request", ""), metadata.get("model", "")
    _require_id("request", request)
    segments = {"segments"} if inputs.segments else set()
    forms = [{*SAME, "seeds", *segments}] if private else [{"words"}, {"seed"}]
    if set(tensors) not in [{"lengths", "mask", *form} for form in forms]:
        wanted = "keys of its rows (" + ", ".join(sorted(forms[0])) + ")" if private else "words or seed"
        raise InputError(f"a request must hold lengths, mask, and {wanted}; got {sorted(tensors)}")
    lengths, mask = tensors["lengths"], tensors["mask"]
    if lengths.dtype != np.int64 or lengths.ndim != 1 or not lengths.size:
        raise InputError(f"lengths must be whole numbers of shape (B,), got {lengths.dtype} {lengths.shape}")
    if lengths.min() < 1 or lengths.max() > longest:
        raise InputError(f"texts must have 1 to {longest} tokens, got {lengths.min()} to {lengths.max()}")
    texts, most = lengths.size, int(lengths.max())
    if texts * most > max_tokens:
        raise InputError(f"a request may have at most {max_tokens} positions here, got {texts} texts of up to {most} "
                         f"tokens; send fewer texts per request")
    if mask.dtype != np.uint8 or mask.shape != (texts, most) or mask.max() > 1:
        raise InputError(f"the mask must be 0 and 1 of shape {(texts, most)}, got {mask.dtype} {mask.shape}")
    present = np.arange(most) < lengths[:, None]
    attend = mask.astype(bool)
    if (attend & ~present).any() or not attend.any(axis=1).all():
        raise InputError("the mask must attend to at least one token of each text, and to none beyond its end")
    step = _step(metadata, lengths, attend)
    if "seed" in tensors:
        seed = tensors["seed"]
        if seed.dtype != np.uint8 or seed.shape != (SEED_BYTES,):
            raise InputError(f"a seed must have {SEED_BYTES} bytes, got {seed.dtype} {seed.shape}")
        return Half(request, model, lengths, attend, seed=seed.tobytes(), step=step,
                    digest=body_digest(body))
    if private:
        return Half(request, model, lengths, attend, keys=_keys(tensors, inputs, int(lengths.sum()), rank), step=step,
                    digest=body_digest(body))
    _require("words", tensors["words"], np.uint64, (int(lengths.sum()), inputs.hidden))
    return Half(request, model, lengths, attend, words=tensors["words"], step=step, digest=body_digest(body))


def _keys(tensors: Mapping[str, np.ndarray], inputs: TokenInputs, tokens: int, rank: int) -> RowKeys:
    """The keys of so many rows. Raises InputError."""
    levels = depth(inputs.words)
    for name, dtype, shape in (("salt", np.uint32, (SALT_WORDS,)), ("seeds", np.uint32, (tokens, SEED_WORDS)),
                               ("corrections", np.uint32, (tokens, levels, SEED_WORDS)),
                               ("turns", np.uint8, (tokens, levels)), ("finals", np.uint64, (tokens, LEAF)),
                               ("segments", np.uint64, (tokens, inputs.segments))):
        if name in tensors:
            _require(name, tensors[name], dtype, shape)
    if tensors["turns"].size and tensors["turns"].max() > MOST_TURN:
        raise InputError(f"turns must lie in 0..{MOST_TURN}, got {tensors['turns'].max()}")
    points = PointKeys(rank, *(tensors[name] for name in ("salt", "seeds", "corrections", "turns", "finals")))
    return RowKeys(points, tensors.get("segments", np.zeros((tokens, 0), np.uint64)))


def _require(name: str, given: np.ndarray, dtype: type, shape: tuple[int, ...]) -> None:
    if given.dtype != dtype or given.shape != shape:
        raise InputError(f"{name} must be {np.dtype(dtype)} of shape {shape}, got {given.dtype} {given.shape}")


def _step(metadata: Mapping[str, str], lengths: np.ndarray, attend: np.ndarray) -> StepRequest | None:
    """What the request says of a text that it continues. Raises InputError."""
    if "session" not in metadata:
        return None
    session, keep, last = metadata["session"], metadata.get("keep", ""), metadata.get("last", "")
    _require_id("session", session)
    if not all(number.isascii() and number.isdigit() and len(number) < ID_DIGITS for number in (keep, last)):
        raise InputError(f"a step says in whole numbers how many tokens it keeps, and of how many it wants the logits; "
                         f"got {keep[:64]!r} and {last[:64]!r}")
    if lengths.size != 1 or not attend.all() or int(last) not in (1, int(lengths[0])):
        raise InputError(f"a step holds new tokens of one text, all of them attended to, and wants the logits of the "
                         f"last one or of all; got {lengths.size} texts and {last} logits")
    return StepRequest(session, int(keep), int(last))


def is_id(given: str) -> bool:
    """Whether this has the form of the id of a request or a session."""
    return len(given) == ID_DIGITS and not set(given) - set("0123456789abcdef")


def _require_id(what: str, given: str) -> None:
    if not is_id(given):
        raise InputError(f"a {what} id must have {ID_DIGITS} hexadecimal digits, got {given[:64]!r}")


def pack_answer(answer: Answer, request: str) -> bytes:
    """An answer to a request, as a body."""
    from safetensors.numpy import save

    cost = json.dumps(answer.cost.as_dict())
    metadata = {"format": ANSWER, "request": request, "frac": str(answer.frac), "cost": cost, "salt": _salt()}
    return bytes(save({name: np.ascontiguousarray(w) for name, w in answer.words.items()}, metadata=metadata))


def unpack_answer(body: bytes, request: str) -> Answer:
    """Raises ProtocolError for anything but the answer to that request."""
    tensors, metadata = _unpack(body, ANSWER, ProtocolError)
    try:
        if metadata["request"] != request:
            raise ValueError(f"it answers request {metadata['request']}")
        if odd := [name for name, words in tensors.items() if words.dtype != np.uint64]:
            raise ValueError(f"{odd[0]} holds {tensors[odd[0]].dtype}, but shares are uint64")
        return Answer(tensors, decimal(metadata["frac"]), Cost.from_dict(read_own(metadata["cost"])))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ProtocolError(f"the party's answer cannot be read ({type(error).__name__}: {error}); do all roles run "
                            f"the same version?") from error


def _unpack(body: bytes, form: str, problem: type[InputError] | type[ProtocolError]
            ) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if len(body) < 8 or not 2 <= (size := int.from_bytes(body[:8], "little")) <= min(MAX_HEADER, len(body) - 8):
        raise problem("the body is not a safetensors file")
    try:
        header: Any = read_own(body[8 : 8 + size])
        tensors: dict[str, np.ndarray] = load(body)
        metadata = header.get("__metadata__", {})
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise problem(f"the body is not a safetensors file ({error})") from error
    if not isinstance(metadata, dict) or metadata.get("format") != form:
        told = metadata if isinstance(metadata, dict) else {}
        raise problem(f"the body has the form {str(told.get('format'))[:64]!r}, of version "
                      f"{str(told.get('version', 'unknown'))[:64]}, but version {__version__} here reads {form!r}; "
                      f"install the same version at the client and the parties")
    return tensors, {str(k): str(v) for k, v in metadata.items()}
