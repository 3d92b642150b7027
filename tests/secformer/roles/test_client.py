"""One client's model, used by several threads, and closed while it asks; and texts that are refused here."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from checkpoints import write_checkpoint
from light_lab import light
from roles_lab import LONG, TEXT, right, serials, until

from secformer import RemoteModel, connect, demo_model, plain_bert
from secformer.cli import main
from secformer.models.families.folder import ModelFolder
from secformer.models.run.guard import SOMEWHERE, note
from secformer.models.run.local import reference
from secformer.mpc.errors import InputError, ModelError, ProtocolError, SettingsError, Untrusted
from secformer.roles.settings import load_client
from secformer.roles.trial import LocalRoles


@pytest.fixture
def remote(up: LocalRoles) -> Iterator[RemoteModel]:
    with connect(up.settings("client")) as model:
        yield model


def test_every_thread_gets_its_answer(remote: RemoteModel) -> None:
    questions = ["Bad.", ["Dull.", "A fine film."], TEXT, "so so"]
    with ThreadPoolExecutor(4) as threads:
        for question, out in zip(questions, threads.map(remote.infer, questions), strict=True):
            right(out, question)


def test_a_light_install_asks(up: LocalRoles) -> None:
    """What `pip install "secformer[client]"` brings is enough."""
    code = ("from secformer import connect\nwith connect(sys.argv[1]) as model:\n"
            "    print(model.classify('A wonderful film.').label)")
    assert light(code, str(up.settings("client"))) == "positive\n"
    assert "negative" in light("from secformer.cli import main\nassert main(['classify', *sys.argv[1:]]) == 0",
                               str(up.settings("client")), "Dull and lifeless.")


def test_texts_that_are_not_unicode_are_refused_before_anything_is_sent(up: LocalRoles, remote: RemoteModel) -> None:
    before = serials(up, "dealer")
    with pytest.raises(InputError, match=r"text 1 is not valid Unicode: character 1 .*U\+DC00"):
        remote.infer(["fine", "a\udc00"])
    assert serials(up, "dealer") == before
    right(remote.infer(TEXT))


def test_texts_that_cannot_be_trusted_are_marked_without_a_place(up: LocalRoles, remote: RemoteModel) -> None:
    texts = ["Fine.", "sequence " * 126]
    out = remote.infer(texts)
    assert out.trusted.tolist() == [True, False] and out.breaches == [(), (SOMEWHERE,)]
    assert out.notes[-1] == note(1, (SOMEWHERE,)) and "layer" not in out.notes[-1]
    with connect(up.settings("client"), guard="raise") as strict, pytest.raises(Untrusted, match=r"^text 1 cannot be"):
        strict.infer(texts)
    with pytest.raises(SettingsError, match="a client's guard must be 'mark', 'nan' or 'raise', got 'off'"):
        connect(up.settings("client"), guard="off")


def test_who_fills_texts_up_is_told_of_the_guard(up: LocalRoles, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_client(up.settings("client"))
    for to in (1, 4):
        with connect(replace(settings, pad_to=to)) as model:
            out = model.infer(TEXT)
            right(out, TEXT)
            assert [n for n in out.notes if n.startswith("pad_to = 4: the parties do not know")] == out.notes[:to > 1]
    monkeypatch.setattr(type(model.architecture), "fillable", False)
    assert model._filling() == ["pad_to = 4 does nothing: texts of this model keep their lengths"]


def test_tasks_of_a_served_model(up: LocalRoles, remote: RemoteModel) -> None:
    texts = ["Fine.", "sequence " * 126]
    exact, before = reference(ModelFolder(demo_model())), serials(up, "dealer")
    for call in (remote.embed, remote.entities, lambda text: remote.rerank(text, [text])):
        with pytest.raises(ModelError, match="needs a"):
            call("Fine.")
    assert serials(up, "dealer") == before, "the parties were asked"
    mine, wanted = remote.classify(texts[0], top_k=None), exact.classify(texts[0], top_k=None)
    assert [each.label for each in mine] == [each.label for each in wanted]
    assert abs(mine[0].score - wanted[0].score) < 1e-3
    with pytest.raises(Untrusted, match=r"^text 1 cannot be trusted: .*guard='nan'"):
        remote.classify(texts)
    with connect(up.settings("client"), guard="nan") as lenient:
        first, second = lenient.classify(texts)
    assert (first.label, second) == (wanted[0].label, None)


def test_closing_abandons_the_request_of_another_thread(up: LocalRoles, remote: RemoteModel) -> None:
    found: list[BaseException] = []

    def ask() -> None:
        try:
            remote.infer(LONG)
        except BaseException as error:
            found.append(error)

    before = len(serials(up, "party0"))
    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: len(serials(up, "party0")) > before)
    remote.close()
    asking.join(60)
    assert not asking.is_alive() and len(found) == 1 and isinstance(found[0], ProtocolError | SettingsError), found
    with pytest.raises(SettingsError, match="this RemoteModel is closed; open it again with connect"):
        remote.infer(TEXT)
    remote.close()


def test_a_callback_cannot_ask_again(remote: RemoteModel) -> None:
    with pytest.raises(SettingsError, match="progress callback"):
        remote.infer(TEXT, progress=lambda *_: remote.infer(TEXT))
    right(remote.infer(TEXT))


def test_answers_of_a_task_are_the_in_process_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The clients' folder has the tokenizer, so `query` tells words and places too."""
    model = write_checkpoint(tmp_path / "model", "BertForMaskedLM", prefix="bert.", scale=0.7)
    texts = ["The cat [MASK] on the mat", "a dog"]
    with LocalRoles(tmp_path / "served", model) as roles:
        roles.wait_ready()
        assert main(["query", "--settings", str(roles.settings("client")), texts[0], "--json", texts[1]]) == 0
        told = json.loads(capsys.readouterr().out)["answers"]
        assert main(["fill-mask", "--top-k", "2", str(roles.settings("client")), "--json", texts[0]]) == 0
        ((best, second),) = json.loads(capsys.readouterr().out)["words"]
        with connect(roles.settings("client")) as remote:
            words = remote.fill_mask([texts[0]], top_k=1)
            with pytest.raises(InputError, match=r"text 0 has no \[MASK\]"):
                remote.fill_mask(texts[1])
    exact = reference(ModelFolder(model)).fill_mask(texts[0], top_k=2)
    assert [best["token"], second["token"]] == [each.token for each in exact] and best["sequence"] == exact[0].sequence
    assert words[0][0].token == exact[0].token and abs(best["score"] - exact[0].score) < 1e-2
    wanted = plain_bert(model, texts).as_dict()["answers"]
    (mask,), (other,) = told[0]["masks"], wanted[0]["masks"]
    assert (mask["start"], mask["end"]) == (other["start"], other["end"]) == (8, 14)
    assert mask["words"][0]["word"] == other["words"][0]["word"]
    assert abs(mask["words"][0]["probability"] - other["words"][0]["probability"]) < 1e-2
    assert told[1] == wanted[1] and "no [MASK]" in told[1]["note"]
