"""Two-party secure Transformer inference: secret inputs, secret weights, the plaintext model's answer.

The public interface. A name is loaded when it is first used, so importing the package is fast:

    from secformer import secure_model
    out = secure_model("path/to/model-folder", ["a sentence", "another"])

`SecureModel` keeps a provisioned model for repeated calls, and `PlainModel` is its plaintext twin. Both have a method
per task: `embed`, `rerank`, `classify`, `entities`, `fill_mask`, `answer`, `generate` and `score`. `plain_model` runs
the float64 plaintext model. `secure_bert` and `plain_bert` are other names of `secure_model` and `plain_model`.
`secure_generate` and `plain_generate` continue or answer a prompt, and a `Conversation` goes on; a `DraftModel` guesses
tokens ahead.
`FAITHFUL`, `SECFORMER`, `MPCFORMER`, `MPCFORMER_2RELU`, `PUMA` and `CRYPTEN` are recipes, values of `Recipe`. Every
error derives from `SecformerError`.

This folder holds the list of public names, the command line (`cli`, `commands`, `views`), the served roles (`roles`)
and the place of the shipped model (`shipped`). It may import `mpc`, `protocols` and `models`; they must not import it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from secformer.version import __version__ as __version__

if TYPE_CHECKING:
    from secformer.models.run.conversation import Conversation as Conversation
    from secformer.models.run.draft_model import DraftModel as DraftModel
    from secformer.models.run.generate import Generated as Generated
    from secformer.models.run.generate import Generation as Generation
    from secformer.models.run.generate import Scored as Scored
    from secformer.models.run.local import PlainModel as PlainModel
    from secformer.models.run.local import SecureModel as SecureModel
    from secformer.models.run.local import plain_bert as plain_bert
    from secformer.models.run.local import plain_model as plain_model
    from secformer.models.run.local import secure_bert as secure_bert
    from secformer.models.run.local import secure_model as secure_model
    from secformer.models.run.local_generate import plain_generate as plain_generate
    from secformer.models.run.local_generate import secure_generate as secure_generate
    from secformer.models.run.output import SecureOutput as SecureOutput
    from secformer.mpc.errors import SecformerError as SecformerError
    from secformer.protocols.recipes import CRYPTEN as CRYPTEN
    from secformer.protocols.recipes import FAITHFUL as FAITHFUL
    from secformer.protocols.recipes import MPCFORMER as MPCFORMER
    from secformer.protocols.recipes import MPCFORMER_2RELU as MPCFORMER_2RELU
    from secformer.protocols.recipes import PUMA as PUMA
    from secformer.protocols.recipes import SECFORMER as SECFORMER
    from secformer.protocols.recipes import Recipe as Recipe
    from secformer.roles.client import RemoteModel as RemoteModel
    from secformer.roles.client import connect as connect
    from secformer.shipped import demo_model as demo_model

_HOMES = {
    "secure_model": "secformer.models.run.local",
    "plain_model": "secformer.models.run.local",
    "secure_bert": "secformer.models.run.local",
    "plain_bert": "secformer.models.run.local",
    "secure_generate": "secformer.models.run.local_generate",
    "plain_generate": "secformer.models.run.local_generate",
    "Conversation": "secformer.models.run.conversation",
    "DraftModel": "secformer.models.run.draft_model",
    "Generated": "secformer.models.run.generate",
    "Generation": "secformer.models.run.generate",
    "Scored": "secformer.models.run.generate",
    "SecureModel": "secformer.models.run.local",
    "PlainModel": "secformer.models.run.local",
    "SecureOutput": "secformer.models.run.output",
    "Recipe": "secformer.protocols.recipes",
    "SECFORMER": "secformer.protocols.recipes",
    "FAITHFUL": "secformer.protocols.recipes",
    "MPCFORMER": "secformer.protocols.recipes",
    "MPCFORMER_2RELU": "secformer.protocols.recipes",
    "PUMA": "secformer.protocols.recipes",
    "CRYPTEN": "secformer.protocols.recipes",
    "SecformerError": "secformer.mpc.errors",
    "demo_model": "secformer.shipped",
    "connect": "secformer.roles.client",
    "RemoteModel": "secformer.roles.client",
}

__all__ = [
    "CRYPTEN",
    "FAITHFUL",
    "MPCFORMER",
    "MPCFORMER_2RELU",
    "PUMA",
    "SECFORMER",
    "Conversation",
    "DraftModel",
    "Generated",
    "Generation",
    "PlainModel",
    "Recipe",
    "RemoteModel",
    "Scored",
    "SecformerError",
    "SecureModel",
    "SecureOutput",
    "__version__",
    "connect",
    "demo_model",
    "plain_bert",
    "plain_generate",
    "plain_model",
    "secure_bert",
    "secure_generate",
    "secure_model",
]


def __getattr__(name: str) -> Any:
    """Loads a public name from its module on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it exports {', '.join(__all__)}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
