"""A text that grows, whatever answers its steps: tokens that are kept, limits, parts of long prompts, failed steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from families_lab import save
from generation_lab import CONTEXT, Scripted, decoder_folder

from secformer.models.families.folder import ModelFolder
from secformer.models.run import decoding
from secformer.models.run.decoding import decoder_of, new_tokens
from secformer.mpc.errors import InputError, ModelError, ProtocolError

SCRIPT = list(range(10, 10 + CONTEXT))


def test_a_step_gives_the_logits_of_its_last_tokens() -> None:
    text = Scripted(SCRIPT)
    assert text.take([10, 11, 12]).logits.argmax(axis=1).tolist() == [13]
    assert text.take([13, 14], last=2).logits.argmax(axis=1).tolist() == [14, 15]
    assert text.length == 5 and [turn.shape for turn in text.turns] == [(3, 64, 1), (2, 64, 2)]


def test_a_text_keeps_what_it_has_in_common() -> None:
    """All but the last token, whose logits are asked for."""
    text = Scripted(SCRIPT, prefix=(10, 11))
    for ids, new in (([10, 11, 12, 13], [12, 13]), ([10, 11, 12, 13, 14], [14]), ([10, 11, 12, 15], [15]),
                     ([10, 11, 12, 15], [15]), ([10, 11, 12], [12]), ([10, 11, 20], [20])):
        text.become(ids)
        assert text.given[-1] == new and text.length == len(ids)
    assert text.timeline.used == 2 + sum(map(len, text.given)), "slots are not used again"


def test_a_prompt_begins_with_the_public_prefix() -> None:
    text = Scripted(SCRIPT, prefix=(10, 11))
    for ids in ([10, 12, 13], [10], [10, 11], []):
        with pytest.raises(InputError, match="does not begin with the model's public prefix of 2 tokens"):
            text.become(ids)
    assert not text.turns and text.length == 2
    with pytest.raises(InputError):
        Scripted(SCRIPT).become([])


def test_steps_are_as_long_as_the_context() -> None:
    text = Scripted(SCRIPT, longest=5, prefix=(10,))
    text.take([11, 12, 13])
    with pytest.raises(InputError, match="the text has 4 tokens and 2 come; this model's context holds 5"):
        text.take([14, 15])
    text.take([14])
    for ids, last in (([], 1), ([14], 0), ([14], 2)):
        with pytest.raises(InputError, match="takes at least one token"):
            Scripted(SCRIPT).take(ids, last)


@pytest.mark.parametrize("count, last, parts", [(8, 1, [4, 4]), (9, 1, [4, 4, 1]), (4, 4, [4]), (9, 3, [4, 2, 3]),
                                                (3, 1, [3]), (9, 9, [9])])
def test_long_prompts_come_in_parts(count: int, last: int, parts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs and breaches of all of them count; logits are those of the last tokens."""
    monkeypatch.setattr(decoding, "AT_ONCE", 4)
    text = Scripted(SCRIPT, breaches=("here",))
    step = text.take(SCRIPT[:count], last)
    assert [len(ids) for ids in text.given] == parts and [i for ids in text.given for i in ids] == SCRIPT[:count]
    assert step.logits.argmax(axis=1).tolist() == SCRIPT[count - last + 1 : count + 1]
    assert step.cost.rounds == len(parts) and step.breaches == ("here",)


def test_back() -> None:
    text = Scripted(SCRIPT, prefix=(10,))
    text.take([11, 12, 13])
    text.back(2)
    assert text.take([12]).logits.argmax() == 13 and text.turns[-1].positions.tolist() == [2]
    with pytest.raises(InputError, match="can go back to 1 to 3 tokens; got 0"):
        text.back(0)


def test_a_failed_step_ends_the_text() -> None:
    text = Scripted(SCRIPT, fails_at=1)
    text.take([10])
    with pytest.raises(ConnectionError):
        text.take([11])
    for _ in range(2):
        with pytest.raises(ProtocolError, match="what its parties kept of it is lost; begin a new one"):
            text.take([11])
    text.back(0)
    with pytest.raises(ProtocolError):
        text.become([10, 11])


def test_new_tokens_are_one_text() -> None:
    batch = new_tokens([4, 5])
    assert batch.size == 1 and batch.ids.tolist() == [4, 5] and batch.mask.tolist() == [[1, 1]]


@pytest.mark.filterwarnings("ignore")
def test_models_that_do_not_tell_the_next_token(tmp_path: Path) -> None:
    own = ModelFolder(decoder_folder(tmp_path / "causal", "llama")).architecture
    assert decoder_of(own) is own
    for name in ("LlamaModel", "BertModel"):
        sizes = {"hidden_size": 12, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 9}
        other = ModelFolder(save(tmp_path / name, name, **sizes)).architecture
        with pytest.raises(ModelError, match=f"{name} does not tell the next token"):
            decoder_of(other)


def test_positions_of_a_step_follow_the_prefix() -> None:
    text = Scripted(SCRIPT, prefix=(10, 11, 12))
    text.take([13, 14])
    np.testing.assert_array_equal(text.turns[0].positions, [3, 4])
