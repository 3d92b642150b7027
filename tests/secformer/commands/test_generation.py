"""generate, chat and score on the command line, with a scripted model in the place of the loaded one."""

from __future__ import annotations

import io
import math
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from commands_lab import answer, complaint, help_of
from scripted_lab import LIKELY, Scripted
from text_lab import WORDS, change_vocabulary
from tiny_chat_lab import tiny_chat

from secformer.cli import main
from secformer.commands import generating
from secformer.commands.compiling import Compiling

COMMANDS = ("generate", "chat", "score")
NEEDS = ("--max-new-tokens", "4", "--draft", "off")


class Loaded:
    """Stands for `generating`: gives a scripted model, and keeps what the command asked for."""

    def __init__(self, folder: Path):
        self.model, self.args, self.served = Scripted(folder, longest=160), None, None

    @contextmanager
    def open(self, args: Any, *, served: bool, check: Any) -> Any:
        self.args, self.served = args, served
        check(self.model.tokenizer)
        yield self.model, Compiling()


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Loaded:
    found = Loaded(tmp_path)
    monkeypatch.setattr(generating, "generating", found.open)
    return found


def plain_texts(loaded: Loaded, tmp_path: Path) -> None:
    """Takes the chat template away."""
    from text_lab import byte_tokenizer

    loaded.model.tokenizer = byte_tokenizer(tmp_path / "plain", 160, template=None)
    (tmp_path / "plain/config.json").write_text('{"model_type": "gpt2", "eos_token_id": 0}', "utf-8")


# ---- generate --------------------------------------------------------------------------------------------------------


def test_generate_writes_text_to_one_stream_and_its_cost_to_the_other(
        loaded: Loaded, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain_texts(loaded, tmp_path)
    assert main(["generate", *NEEDS, "folder", "xa"]) == 0
    out, err = capsys.readouterr()
    assert out == "bcab\n"
    assert err.startswith("4 tokens (length); ") and "7 rounds" in err and "prompt of 2 tokens" in err
    assert "note: scripted\n" in err and err.count("\n") == 2


def test_generate_with_a_template(loaded: Loaded, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("jinja2")
    data = answer(capsys, "generate", "folder", "a", "--system", "Hi.", *NEEDS, "--stop", "zz", "--stop", "ab")
    assert data["prompt"] == "a" and data["text"] == "" and data["end"] == "stop text" and data["trusted"]
    assert len(data["tokens"]) == len(data["logprobs"]) == 2
    asked = loaded.model.tokenizer.generated(data["prompt_tokens"])
    assert "Hi." in asked and asked.endswith("assistant\n")
    assert data["cost"]["prompt"]["rounds"] == data["cost"]["steps"][0]["rounds"] == 7 and data["notes"]
    data = answer(capsys, "generate", "folder", "xa", "--continue", *NEEDS)
    assert data["text"] == "bcab" and data["cost"]["per_token"]["bytes"] == 100 and len(data["prompt_tokens"]) == 2
    assert loaded.served is False


def test_every_sampling_option_arrives(loaded: Loaded, capsys: pytest.CaptureFixture[str]) -> None:
    from secformer.models.run.generate import Generates, sampling_of

    given: list[Any] = []
    own = Generates.generate

    def spied(self: Any, prompt: Any, **settings: Any) -> Any:
        given.append(settings)
        return own(self, prompt, **settings)

    loaded.model.generate = spied.__get__(loaded.model)  # type: ignore[method-assign]
    assert main(["generate", "folder", "x", "--continue", "--max-new-tokens", "2", "--temperature", "0.7", "--top-k",
                 "5", "--top-p", "0.9", "--repetition-penalty", "1.1", "--stop", "q", "--seed", "3"]) == 0
    chosen = {key: given[0][key] for key in given[0] if key not in ("stream", "draft", "progress")}
    assert chosen == {"max_new_tokens": 2, "temperature": 0.7, "top_k": 5, "top_p": 0.9, "repetition_penalty": 1.1,
                      "stop": ["q"], "seed": 3}
    assert sampling_of(chosen).do_sample and given[0]["draft"] == "auto"
    assert main(["generate", "folder", "x", "--continue", "--draft", "off"]) == 0
    assert given[1]["draft"] is None and "temperature" not in given[1] and given[1]["max_new_tokens"] == 128
    capsys.readouterr()


def test_a_draft_model_is_opened_once_and_checked(loaded: Loaded, capsys: pytest.CaptureFixture[str], tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    from secformer.models.run.draft_model import DraftModel
    from secformer.models.run.generate import Generates

    folder, given, own = tiny_chat(tmp_path / "draft"), list[Any](), Generates.generate
    loaded.model.generate = lambda *a, **settings: (  # type: ignore[method-assign]
        given.append(settings["draft"]), own(loaded.model, *a, **settings))[1]
    assert main(["generate", "folder", "x", "--continue", "--max-new-tokens", "9", "--draft", str(folder)]) == 0
    assert capsys.readouterr().out == "abcabcabc\n"
    out, _ = chatted(capsys, monkeypatch, "a\nb\n", "--draft", str(folder))
    assert out == "abca\nabca\n" and all(isinstance(each, DraftModel) for each in given)
    assert len(given) == 3 and given[1] is given[2], "a chat opens it once"
    change_vocabulary(folder, hello=200)
    for command in (("generate", "folder", "x"), ("chat", "folder")):
        assert "another vocabulary" in complaint(capsys, *command, "--max-new-tokens", "9", "--draft", str(folder))


def test_prompts_from_standard_input(loaded: Loaded, capsys: pytest.CaptureFixture[str],
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("x\nya\n"))
    data = answer(capsys, "generate", "folder", "-", "--continue", *NEEDS)
    assert data["prompt"] == "x\nya" and data["text"] == "bcab"


def test_refusals(loaded: Loaded, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "the prompt is empty" in complaint(capsys, "generate", "folder", "", "--continue")
    assert "context holds 160" in complaint(capsys, "generate", "folder", "x", "--max-new-tokens", "200")
    assert "top_p must be" in complaint(capsys, "generate", "folder", "x", "--top-p", "3")
    assert "gone.json" in complaint(capsys, "score", "folder", "x", "--profile", "gone.json")
    plain_texts(loaded, tmp_path)
    assert "has no chat template" in complaint(capsys, "chat", "folder")
    assert "has no chat template" in complaint(capsys, "generate", "folder", "x", "--system", "y")
    assert loaded.model.texts == []


def test_an_interrupt_leaves_whole_lines(loaded: Loaded, capsys: pytest.CaptureFixture[str]) -> None:
    loaded.model.interrupted_at = 3
    assert main(["generate", "folder", "xa", "--continue", "--draft", "off"]) == 130
    assert capsys.readouterr() == ("b\n", "secformer: interrupted\n") and loaded.model.texts[0].ended


# ---- chat ------------------------------------------------------------------------------------------------------------


def chatted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, lines: str,
            *options: str) -> tuple[str, str]:
    pytest.importorskip("jinja2")
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    assert main(["chat", "folder", *NEEDS, *options]) == 0
    return capsys.readouterr()


@pytest.mark.parametrize("end", ["", "/exit\nx\n", " /exit \n"])
def test_chat_answers_lines_until_its_end(end: str, loaded: Loaded, capsys: pytest.CaptureFixture[str],
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = chatted(capsys, monkeypatch, "a\n\nb\n" + end, "--system", "Hi.")
    assert out == "abca\nabca\n" and err.count("tokens (length)") == 2 and err.count("note: scripted") == 1
    assert "/exit" in err.splitlines()[0]
    (text,) = loaded.model.texts
    assert text.ended and text.length > len(text.steps[0]) + 8, "the conversation goes on in one text"


def test_chat_goes_on_behind_what_fails(loaded: Loaded, capsys: pytest.CaptureFixture[str],
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt stops an answer; a question that is too long is refused; /new begins again."""
    tokenizer = loaded.model.tokenizer
    asked = tokenizer.tokens(tokenizer.chat([{"role": "user", "content": "a"}]), special=False)
    loaded.model.interrupted_at = len(asked) + 2
    out, err = chatted(capsys, monkeypatch, f"a\n/new\n{'x' * 150}\n{'b' * 9}\n")
    assert out == "ab\nabca\n" and "stopped\n" in err and "secformer: the prompt has" in err
    assert len(loaded.model.texts) == 2 and all(text.ended for text in loaded.model.texts)


def test_an_interrupt_at_the_prompt_ends_cleanly(loaded: Loaded, capsys: pytest.CaptureFixture[str],
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jinja2")

    class Interrupted(io.StringIO):
        def readline(self, *_: Any) -> str:
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdin", Interrupted())
    assert main(["chat", "folder", *NEEDS]) == 0
    assert "Traceback" not in capsys.readouterr().err


# ---- score -----------------------------------------------------------------------------------------------------------


def test_score(loaded: Loaded, capsys: pytest.CaptureFixture[str]) -> None:
    data = answer(capsys, "score", "folder", "abc", "a")
    logprob = LIKELY - math.log(math.exp(LIKELY) + WORDS - 1)
    assert data["texts"] == ["abc", "a"] and data["cost"]["bytes"] == 400 and data["notes"] == ["scripted"]
    assert data["scores"][0]["log_likelihood"] == pytest.approx(2 * logprob) and data["scores"][0]["tokens"] == 2
    assert data["scores"][0]["perplexity"] == pytest.approx(math.exp(-logprob))
    assert data["scores"][1] == {"tokens": 0, "log_likelihood": 0.0, "perplexity": None, "trusted": True}
    assert main(["score", "folder", "abc", "a"]) == 0
    out = capsys.readouterr().out
    assert f"{2 * logprob:.4f}" in out and "perplexity" in out and "rounds" in out and "note: scripted" in out


# ---- usage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [
    ["generate", "folder"], ["generate", "folder", "x", "--system", "y", "--continue"], ["score", "folder"],
    ["generate", "folder", "x", "--public-prefix", "system"], ["chat", "folder", "x"],
    ["generate", "folder", "x", "--draft", "some"], ["score", "folder", "x", "--public-prefix", "system"],
    ["profile", "folder", "--texts", "pyproject.toml", "--public-prefix", "system"],
], ids=" ".join)
def test_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(help_of(capsys, name).split())
    assert "or a client's settings file" in text and f"secformer {name}" in text and "--public-prefix" in text
    assert ("--temperature" in text) == (name != "score")
