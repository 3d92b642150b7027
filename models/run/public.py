"""The public description of a provisioned model: all that parties and clients know, which is all but the weights.

The digest of the description depends on a random salt and not on the weights. A digest of the weights would let a party
test a guess of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from secformer.models.data.batch import Batch
from secformer.models.data.checkpoint import PathLike
from secformer.models.data.inputs import Request, TokenInputs
from secformer.models.data.tensors import Layout
from secformer.models.families.architecture import Architecture
from secformer.models.families.decoder import Decoder
from secformer.models.families.heads import Head
from secformer.models.families.program import GUARD
from secformer.models.families.table import architecture_from
from secformer.models.ranges.profile import RangeProfile
from secformer.models.run.decoding import LOGITS
from secformer.mpc.errors import InputError, ModelError
from secformer.mpc.fixed import FixedPoint
from secformer.mpc.functions import Series
from secformer.mpc.ops.book import series_from_list, series_to_list
from secformer.mpc.prg import FORMAT as STREAMS
from secformer.mpc.ring import WORD_BITS
from secformer.mpc.strict_json import read_own
from secformer.protocols.ranges import bits
from secformer.protocols.recipes import Recipe, recipe_named

FORMAT = f"secformer model 1, {STREAMS}"  # one share file is a seed: it says how that is expanded
PUBLIC = "public.json"
CLIENT_FOLDER = "client"  # of what the owner writes
UNNAMED = "bert"          # the family of descriptions that name none
CLIENT = {"embedding": "client"}  # what descriptions add where clients hold the tables; older ones say nothing


@dataclass(frozen=True)
class PublicModel:
    """What every role may know of a model.

    width   bits per word of what a client shares of a token: the embedding table's, or WORD_BITS for embedding sums
    names   names of the results that clients receive
    books   one book (see `mpc/ops/book`) per length class of a request's longest text, public prefix included: the
            fitted series that the parties use, in the program's order
    salt    random bytes in hexadecimal; because of them, the digest says nothing about the weights
    steps   books of the steps of texts that grow, by the class of their capacity; nothing in models that generate none
    private True: clients share one-hot rows, and the parties hold the embedding tables as shares; False: clients hold
            the tables and share embedding sums, and the share files have no tables
    """

    architecture: Architecture
    recipe: Recipe
    profile: RangeProfile
    fixed: FixedPoint
    width: int
    names: tuple[str, ...]
    books: Mapping[int, tuple[Series, ...]]
    salt: str
    notes: tuple[str, ...] = ()
    private: bool = True
    steps: Mapping[int, tuple[Series, ...]] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the whole description. Two roles whose digests are equal hold the same model."""
        return hashlib.sha256(json.dumps(self._facts(), sort_keys=True).encode()).hexdigest()

    @property
    def inputs(self) -> TokenInputs:
        """The sizes of the model's input."""
        return self.architecture.inputs

    @property
    def layout(self) -> Layout:
        """The secret tensors, by name."""
        return self.architecture.layout(self.width if self.private else None)

    @property
    def columns(self) -> int:
        """The number of words that a client shares of a token: V + S of a one-hot row, or C of an embedding sum."""
        return self.inputs.columns if self.private else self.inputs.hidden

    def request(self, batch: Batch, words: Callable[[], Any]) -> Request:
        """A batch's input, whose share `words` makes. One-hot rows are checked."""
        if self.private:
            return replace(self.inputs.private_request(batch, self.width, words), spans=self.inputs.spans)
        return self.inputs.client_request(batch, words)

    def series(self, longest: int) -> tuple[Series, ...]:
        """The book of a request whose longest text has `longest` tokens."""
        return self.books[length_class(self.prefixed + longest)]

    def step_series(self, capacity: int) -> tuple[Series, ...]:
        """The book of a step over so many slots. Raises InputError where a text may not have as many."""
        if length_class(capacity) not in self.steps:
            raise InputError(f"this text needs {capacity} slots of its caches, and it may have {self.slots}; tokens "
                             f"that it went back from keep theirs, so begin a new one")
        return self.steps[length_class(capacity)]

    @property
    def slots(self) -> int:
        """The most slots that the caches of a text may have; 0 in models that generate no text."""
        return 2 ** max(self.steps) if self.steps else 0

    @property
    def decoder(self) -> Decoder | None:
        """The architecture, where it tells the next token."""
        own = self.architecture
        return own if isinstance(own, Decoder) and own.head is Head.CAUSAL else None

    @property
    def step_names(self) -> tuple[str, ...]:
        """Names of the results of a step."""
        return (LOGITS, *((GUARD,) if GUARD in self.names else ()))

    @property
    def prefixed(self) -> int:
        """Tokens of the public prefix, that every text begins with."""
        return len(self.decoder.spec.prefix) if self.decoder is not None else 0

    @cached_property
    def numbers(self) -> str:
        """A digest of the numbers that this machine computes for texts that grow; "" in models that generate none."""
        if self.decoder is None:
            return ""
        h = hashlib.sha256()
        for each in self.decoder.numbers(self.fixed.frac):
            h.update(each.tobytes())
        return h.hexdigest()

    def _facts(self) -> dict[str, Any]:
        each = list(dict.fromkeys(f for books in (self.books, self.steps) for book in books.values() for f in book))
        books, steps = ({str(size): [each.index(f) for f in book] for size, book in found.items()}
                        for found in (self.books, self.steps))
        named = self.architecture.model_type != UNNAMED
        later: dict[str, Any] = {"family": self.architecture.model_type} if named else {}
        later |= ({} if self.private else CLIENT) | ({"steps": steps} if steps else {})
        return later | {
            "format": FORMAT, "spec": self.architecture.facts(), "recipe": self.recipe.name,
            "profile": self.profile.as_dict(), "frac": self.fixed.frac, "magnitude": self.fixed.magnitude,
            "ring": WORD_BITS, "width": self.width, "names": list(self.names), "series": series_to_list(each),
            "books": books, "salt": self.salt, "notes": list(self.notes),
        }

    def to_json(self) -> str:
        return json.dumps(self._facts() | {"digest": self.digest})

    @classmethod
    def from_json(cls, text: str | bytes, where: PathLike) -> Self:
        """The inverse of `to_json`; `where` names the source in errors.

        Raises ModelError for anything that is not a whole description of this version.
        """
        try:
            facts = read_own(text)
            if facts["format"] != FORMAT:
                raise ValueError(f"the format is {facts['format']!r}, but this version reads {FORMAT!r}")
            if (embedding := facts.get("embedding")) not in (None, *CLIENT.values()):
                raise ValueError(f"its embedding is {embedding!r}, but this version reads 'client' or none")
            series = series_from_list(facts["series"])
            books = {name: {int(size): tuple(series[i] for i in book) for size, book in facts.get(name, {}).items()}
                     for name in ("books", "steps")}
            public = cls(
                architecture_from(str(facts.get("family", UNNAMED)), facts["spec"]),
                recipe_named(facts["recipe"]), RangeProfile.of(facts["profile"], where),
                FixedPoint(facts["frac"], facts["magnitude"]), int(facts["width"]), tuple(facts["names"]),
                books["books"], str(facts["salt"]), tuple(facts["notes"]), embedding is None, books["steps"],
            )
            if public.digest != facts["digest"]:
                raise ValueError("its digest does not match its content")
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            raise ModelError(f"{where} does not describe a provisioned model ({type(error).__name__}: {error}); "
                             f"make it with: secformer provision") from error
        return public

    @classmethod
    def load(cls, folder: PathLike) -> Self:
        """Reads the description in the folder for clients. Raises ModelError where it is missing or cannot be read."""
        path = Path(folder) / PUBLIC
        try:
            return cls.from_json(path.read_bytes(), path)
        except OSError as error:
            raise ModelError(f"cannot read {path}: {error.strerror}; `secformer provision` writes this folder for "
                             f"clients") from error


def length_class(longest: int) -> int:
    """The number of bits of a length. The fitted series of a program depend on the model and on this class alone."""
    return bits(longest)
