"""The public prefix: its keys and values are those of whole texts; what it changes in a folder; a first token that
shares could not hold; what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families_lab import save
from generation_lab import CONTEXT, FAMILIES, IDS, decoder_folder, ranges
from text_lab import START, WORDS, write_byte_tokenizer

from secformer.models.data.parameters import load_weights
from secformer.models.data.shares import PlainTensors
from secformer.models.families.attending import Causal, prefix_names
from secformer.models.families.blocks import Forward
from secformer.models.families.decoder import Decoder
from secformer.models.families.folder import ModelFolder
from secformer.models.run.decoding import new_tokens
from secformer.models.run.local import PlainModel, SecureModel
from secformer.models.run.options import Settings
from secformer.models.run.prefix import begin, tensors_of
from secformer.mpc.errors import InputError, RangeError, SettingsError
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.shares import Share
from secformer.protocols.recipes import EXACT

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decoder_folder(tmp_path_factory.mktemp("llama"), "llama")


class Seen(Causal):
    """Whole texts, whose keys and values are kept."""

    found: dict[str, np.ndarray]

    def __call__(self, s: Any, q: Share, k: Share, v: Share, f: Forward, at: Any, layer: int,
                 reach: int | None) -> Share:
        self.found |= {name: s.values(x).reshape(len(k), -1) for name, x in zip(prefix_names(layer), (k, v),
                                                                               strict=True)}
        return super().__call__(s, q, k, v, f, at, layer, reach)


@pytest.mark.parametrize("family", ["mistral", "qwen3", "gpt2"])
def test_keys_and_values_are_those_of_the_whole_text(family: str, tmp_path: Path) -> None:
    folder = ModelFolder(decoder_folder(tmp_path, family))
    own, s, batch = folder.architecture, PlainSession(strict=False), new_tokens(IDS)
    assert isinstance(own, Decoder)
    seen = Seen(batch)
    seen.found = {}
    parameters = load_weights(s, PlainTensors(own.layout(None), folder.checkpoint))
    own.hidden(s, s.accept(folder.embeddings(batch)), Forward(batch, parameters, EXACT, lambda site: {}), seen)
    found = tensors_of(folder, own, IDS[:7])
    assert found.keys() == seen.found.keys() and len(found) == 4
    for name, values in found.items():
        np.testing.assert_allclose(values, seen.found[name][:7], atol=1e-12)


def test_a_folder_that_begins(llama: Path) -> None:
    """Its digest names the prefix; its texts have fewer tokens; and no text has the prefix itself."""
    folder, other, none = ModelFolder(llama), ModelFolder(llama), ModelFolder(llama)
    before = folder.digest
    begin(none, None)
    assert none.digest == before and none.architecture.inputs.longest == CONTEXT
    begin(folder, IDS[:3])
    begin(other, IDS[:4])
    begin(folder, IDS[5:9])  # it has one
    spec = folder.architecture.spec
    assert spec.prefix == tuple(IDS[:3])  # type: ignore[attr-defined]
    assert len({before, folder.digest, other.digest}) == 3
    assert folder.tokenizer.inputs.longest == CONTEXT - 3 and folder.tokenizer.inputs.context == CONTEXT
    folder.verify(Settings().fixed)
    assert not folder.notes, "its tensors are used"
    rows = folder.tokenizer.rows({"input_ids": [IDS[:5], IDS[3:5], IDS[1:3]]})
    assert [row.ids.tolist() for row in rows] == [IDS[3:5], IDS[3:5], IDS[1:3]]
    with pytest.raises(InputError, match="text 0 is the model's public prefix of 3 tokens and nothing else"):
        folder.tokenizer.rows({"input_ids": IDS[:3]})
    with pytest.raises(InputError, match=f"text 0 has {CONTEXT - 2} tokens; this model takes at most {CONTEXT - 3}"):
        folder.tokenizer.rows({"input_ids": [9] * (CONTEXT - 2)})
    assert len(folder.tokenizer.rows({"input_ids": IDS[:3] + [9] * (CONTEXT - 3)})[0]) == CONTEXT - 3


def test_the_first_tokens_of_every_prompt(tmp_path: Path) -> None:
    """Those of the chat template, else BOS, else none."""
    name, entries = FAMILIES["llama"]
    found = []
    for i, (made, chat) in enumerate((({"start": True, "template": None}, False), ({}, True),
                                      ({"template": None}, False))):
        path = save(tmp_path / str(i), name, **entries, tokenizer=lambda p, _, made=made: write_byte_tokenizer(
            p, CONTEXT, **made))
        folder = ModelFolder(path)
        begin(folder, "auto")
        found.append(folder.architecture.spec.prefix)  # type: ignore[attr-defined]
        assert (folder.tokenizer.chat_template is not None) == chat
    assert found[0] == (START,) and len(found[1]) > 5 and found[1][0] == START and found[2] == ()


@pytest.mark.parametrize("ids, says", [((3, WORDS), f"ids below {WORDS}"), ((-1,), "ids below"),
                                       (tuple([5] * CONTEXT), f"fewer than the {CONTEXT} tokens of a text; got 60")])
def test_ids_that_the_model_does_not_have(ids: tuple[int, ...], says: str, llama: Path) -> None:
    with pytest.raises(SettingsError, match=says):
        PlainModel.from_pretrained(llama, recipe="exact", public_prefix=ids)


@pytest.mark.parametrize("given", ["", 3, ("a",), (True,), [1.5]], ids=str)
def test_settings_that_are_no_prefix(given: Any, llama: Path) -> None:
    with pytest.raises(SettingsError, match="public_prefix must be 'auto', a system prompt, ids"):
        PlainModel.from_pretrained(llama, recipe="exact", public_prefix=given)


def test_models_that_take_no_prefix(tmp_path: Path) -> None:
    path = save(tmp_path, "LlamaModel", **FAMILIES["llama"][1], tokenizer=lambda p, _: write_byte_tokenizer(p, CONTEXT))
    begin(ModelFolder(path), "auto")
    with pytest.raises(SettingsError, match="LlamaModel takes no public prefix: it is no causal language model"):
        begin(ModelFolder(path), (3,))


def test_padding_behind_a_prefix(llama: Path) -> None:
    model = PlainModel.from_pretrained(llama, recipe="exact", public_prefix=(5,))
    with pytest.raises(InputError, match="texts behind a public prefix must be attended to whole"):
        model({"input_ids": [[2, 7, 8]], "attention_mask": [[0, 1, 1]]})


@pytest.mark.parametrize("family", ["mistral", "gpt2"])
def test_whole_texts_behind_a_prefix(family: str, tmp_path: Path) -> None:
    """Several of several lengths, with and without the prefix itself; to the end of the context."""
    path, full = decoder_folder(tmp_path, family), [*IDS, *IDS, *IDS, 9, 9, 9, 9, 9, 9, 9, 9, 9]
    texts = [full[:60], full[:9], full[:4]]
    known, plain = (PlainModel.from_pretrained(path, recipe="exact", public_prefix=prefix)
                    for prefix in (tuple(IDS[:3]), None))
    found = known({"input_ids": [texts[0], texts[1][3:], texts[2]]}).logits
    for row, text in zip(found, texts, strict=True):  # type: ignore[arg-type]
        wanted = plain({"input_ids": [text]}).logits
        np.testing.assert_allclose(row[: len(text) - 3], wanted[0][3:], atol=1e-10)  # type: ignore[index]


# ---- a first token that shares could not hold ------------------------------------------------------------------------


def test_a_first_token_with_huge_values(tmp_path: Path) -> None:
    """One word makes values thousands of times as large as all others do. As a secret, it is refused, and the error
    says what helps; as a public prefix, it never appears on shares."""
    from safetensors.numpy import load_file, save_file

    path = decoder_folder(tmp_path, "llama")
    file = path / "model.safetensors"
    tensors = dict(load_file(file))
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"].copy()
    tensors["model.embed_tokens.weight"][START] *= 6000.0
    save_file(tensors, file, {"format": "pt"})
    ids = [START, *IDS[:6]]
    with pytest.raises(RangeError, match="public prefix"):
        SecureModel.from_pretrained(path, backend="numpy", public_prefix=None, profile=ranges(path, (), ids))
    model = SecureModel.from_pretrained(path, backend="numpy", public_prefix=(START,), embedding="client",
                                        profile=ranges(path, (START,), ids[1:]))
    with model:
        step = model.decoding().become(ids)
    wanted = PlainModel.from_pretrained(path, recipe="exact", public_prefix=None)({"input_ids": [ids]}).logits
    assert not step.breaches and wanted is not None
    assert np.abs(step.logits[0] - wanted[0, -1]).max() < 1e-2 * np.abs(wanted[0, -1]).max()
