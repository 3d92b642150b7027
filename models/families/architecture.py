"""The contract of a model family: all that is public about a checkpoint, apart from its ranges, as one value.

Loading, provisioning, served parties, rehearsals, range profiles, checks and distillation ask an `Architecture`; none
of them knows a family. CONTRIBUTING has the contract on one page, with a worked example.

B texts, N packed tokens, C hidden, V words, S segments, L labels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar, Self

import numpy as np

from secformer.models.data.batch import Batch
from secformer.models.data.checkpoint import Checkpoint
from secformer.models.data.inputs import TokenInputs
from secformer.models.data.tensors import TABLE, Layout, Tensor
from secformer.models.families.blocks import Forward
from secformer.models.families.certain import Values
from secformer.models.families.config import Config
from secformer.models.families.heads import Head
from secformer.mpc.errors import ModelError
from secformer.mpc.session import Session
from secformer.mpc.shares import Share
from secformer.protocols.recipes import Recipe

HEAD = "head"      # what the program's names of a head's tensors begin with
LAYERS = "layers"  # the size in which a student may differ from its teacher
SENTENCE = "sentence_embedding"                 # the result that a sentence-transformers folder is for
HIDDEN = ("last_hidden_state", "pooler_output")  # results that are no head's
LATER = "later"    # key of a field's metadata
PLAIN = {"int": (int,), "float": (float, int), "str": (str,), "bool": (bool,)}  # what JSON has for a field's type
Rows = Callable[[str, tuple[int, int], np.ndarray], Any]  # looks up a table's rows, by its name, shape and places


def later(default: Any) -> Any:
    """A Spec's field that older versions did not have. `Architecture.facts` leaves its default out, so that models
    that were provisioned by an older version keep their digests."""
    return field(default=default, metadata={LATER: True})


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The public facts of a checkpoint that every family has; a family adds its own sizes.

    architecture  Hugging Face's name of the model's class, which determines the head
    labels        names by label id, for classifiers; a single label means a regression
    problem       "single", "multi" or "regression": how logits turn into probabilities
    recipe        name of the recipe that the checkpoint was trained for, where its config names one
    constants     constants of the functions that it was trained for, as sorted JSON, where its config states them
    score         what turns a single logit of a text into its score: "sigmoid" or "identity"
    """

    architecture: str
    labels: tuple[str, ...] = ()
    problem: str = "single"
    recipe: str | None = None
    constants: str = ""
    score: str = later("sigmoid")


@dataclass(frozen=True)
class Architecture(ABC):
    """One checkpoint of a family, as a value that compares and hashes by its spec.

    A family is a subclass. Its class attributes identify its checkpoints. Its methods say which tensors it needs and
    what it computes.

    model_type  the family's name in config files
    classes     the Hugging Face classes that the family runs, each with its head
    spec_type   the family's subclass of Spec
    prefix      what models with a head put before the names of their encoder's tensors
    buffers     stored tensors, without the prefix, that are not parameters
    """

    model_type: ClassVar[str]
    classes: ClassVar[Mapping[str, Head]]
    spec_type: ClassVar[type[Spec]]
    prefix: ClassVar[str] = ""
    buffers: ClassVar[Sequence[str]] = ()

    spec: Spec

    # ---- from a config, and from its own description -----------------------------------------------------------------

    @classmethod
    @abstractmethod
    def from_config(cls, config: Config, architecture: str) -> Self:
        """The architecture of a config whose class is `architecture`, one of `classes`.

        Raises ModelError, which names the key, for a variant that the family does not run.
        """

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Self:
        """The inverse of `facts`. Raises TypeError for other keys, and for values of other types."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts.items()}
        for f in fields(cls.spec_type):
            if f.name in values and type(values[f.name]) not in PLAIN.get(str(f.type), (type(values[f.name]),)):
                raise TypeError(f"{f.name} must be of type {f.type}, got {type(values[f.name]).__name__}")
        return cls(cls.spec_type(**values))

    def facts(self) -> dict[str, Any]:
        """The spec as plain values, for JSON."""
        later_ones = (f for f in fields(self.spec) if f.metadata.get(LATER))
        unsaid = {f.name for f in later_ones if getattr(self.spec, f.name) == f.default}
        return {name: value for name, value in asdict(self.spec).items() if name not in unsaid}

    def found_in(self, checkpoint: Checkpoint) -> tuple[Self, list[str]]:
        """The architecture without the optional parts, such as a pooler, whose tensors the checkpoint lacks; and one
        note per such part."""
        return self, []

    # ---- tensors -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def tables(self) -> dict[str, Tensor]:
        """The tensors that a private look-up reads.

        The name TABLE stands for the standing table (V + S, C) that one-hot rows are multiplied with. Other names are
        those of tensors that the embedding adds, such as positions.
        """

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """Every tensor that is used after the embedding sum, heads included, in the program's order."""

    def layout(self, width: int | None) -> Layout:
        """The tensors that the model's owner shares.

        width  bits per word of the table; None: without tables, for clients that hold them
        """
        if width is None:
            return self.weights()
        tables = self.tables()
        return {**tables, TABLE: replace(tables[TABLE], width=width)} | self.weights()

    def certain(self, values: Values, recipe: Recipe) -> Mapping[str, float]:
        """What the values that a call site takes cannot exceed, whatever the texts are, by site (of attention: queries,
        keys and values). `values` gives the tensors by their names in `weights()`. Families may leave out sites, or
        all (see `families/certain.py`)."""
        return {}

    # ---- inputs ------------------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def inputs(self) -> TokenInputs:
        """The sizes of the model's input."""

    @property
    def hidden_size(self) -> int:
        """C, the number of entries of a hidden state."""
        return self.inputs.hidden

    @abstractmethod
    def embedding_sums(self, rows: Rows, batch: Batch) -> Any:
        """The embedding sums (N, C) of a batch. `rows` looks them up in the checkpoint's own tables."""

    # ---- the program -------------------------------------------------------------------------------------------------

    @abstractmethod
    def embed(self, s: Session, rows: Share, f: Forward) -> Share:
        """The embedding sums (N, C) of secret one-hot rows (N, V + S), in any session."""

    @abstractmethod
    def answer(self, s: Session, x: Share, f: Forward) -> dict[str, Share]:
        """Every result in `results`, computed from embedding sums (N, C), in any session."""

    @property
    @abstractmethod
    def sites(self) -> tuple[str, ...]:
        """The names of the call sites whose ranges are measured, in the order in which `answer` reaches them."""

    # ---- results -----------------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def results(self) -> Mapping[str, bool]:
        """The results by Hugging Face's names: True where a result has one row per token, False where it has one row
        per text."""

    @property
    def fillable(self) -> bool:
        """Whether texts may be filled up with copies of their first token (see `Row`): the program then computes the
        same of such a copy as of that token, and of other tokens what it computes without. Families say so."""
        return False

    @property
    def unit_embeddings(self) -> bool:
        """Whether the client brings the result SENTENCE, where there is one, to unit length."""
        return False

    @property
    def embedding_size(self) -> int:
        """D, the number of entries of a text's embedding."""
        return self.hidden_size

    @property
    def head(self) -> Head:
        """What the head answers."""
        return self.classes[self.spec.architecture]

    def class_names(self, *heads: Head) -> str:
        """The Hugging Face classes of this family with these heads, for messages."""
        return " or ".join(name for name, head in self.classes.items() if head in heads)

    # ---- distillation (a family may leave this out) ------------------------------------------------------------------

    @property
    def hidden_sites(self) -> tuple[str, ...]:
        """The sites whose results are the hidden states that a student learns: the embedding's, and one per layer.

        Raises ModelError for a family that is not trained here; so do `sizes` and `classifier`.
        """
        raise self._not_trained()

    @property
    def sizes(self) -> Mapping[str, int]:
        """The sizes that a student must share with its teacher, by the names that users know; and LAYERS, of which a
        student may have fewer."""
        raise self._not_trained()

    def classifier(self, labels: tuple[str, ...]) -> Self:
        """The same encoder with a text classifier over `labels`; one label is a regression."""
        raise self._not_trained()

    @property
    def head_tensors(self) -> frozenset[str]:
        """The checkpoint's names of the head's tensors. These names have no prefix."""
        return frozenset(p.names[0] for name, tensor in self.weights().items() if name.startswith(f"{HEAD}.")
                         for p in tensor.parts)

    def stored_name(self, name: str) -> str:
        """The name under which a model with a head stores a tensor."""
        return name if name in self.head_tensors else self.prefix + name

    def _not_trained(self) -> ModelError:
        return ModelError(f"models of type {self.model_type!r} can be run and measured, but not trained here")
