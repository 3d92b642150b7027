"""The page in a real Chromium, against two real parties and a dealer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser_lab import PHONE, WIDE, Visit, browser, origin, playing, shots

pytest.importorskip("starlette", reason="the served roles need the extra `serve`")
pytest.importorskip("uvicorn", reason="the served roles need the extra `serve`")

from safetensors.numpy import load, save
from sentence_lab import write_sentence
from tiny_chat_lab import measured_chat

from secformer import connect, demo_model, plain_bert
from secformer.models.data.tokenizer import Tokenizer
from secformer.models.run.public import PublicModel
from secformer.mpc.net.tcp import free_ports
from secformer.page.files import Page
from secformer.page.model import page_model
from secformer.page.serving import PageServer, origins
from secformer.page.trial import browser_options, trial_page
from secformer.roles.settings import load_client
from secformer.roles.signing import Signer
from secformer.roles.tokens import make, pair
from secformer.roles.trial import LocalRoles

pytestmark = pytest.mark.slow
TEXT, OTHER = "A wonderful film.", "A terrible film."
SENTENCES = ["a cat sat on the mat", "the dog ran", "it was a very good film"]
SHORT = {"half_deadline": 2.0, "deadline": 20.0, "dealer_wait": 2.0}
NEW = 6  # tokens
PUBLIC = {"lengths", "mask", "turns"}  # turns are two random bits in a byte each


class Place:
    """Served roles, the page that asks them, and a browser that accepts their keys."""

    def __init__(self, stack: ExitStack, play: Any, folder: Path, model: Any, **provisioning: Any):
        port, self.other = free_ports(2)  # pages at both may ask
        self.roles = stack.enter_context(LocalRoles(folder, model, settings=SHORT,
                                                    origins=[*origins(port), *origins(self.other)], **provisioning))
        self.settings = load_client(self.roles.settings("client"))
        self.parties = (self.roles.url(0), self.roles.url(1))
        self.public = PublicModel.load(self.settings.model)
        self._chrome = stack.enter_context(browser(play, browser_options(self.roles)))
        self.roles.wait_ready()
        self.url = stack.enter_context(trial_page(self.roles, port)).url

    def visit(self, url: str = "", **context: Any) -> Visit:
        return Visit(self._chrome, url or self.url, **context).open()

    def page(self, port: int, tokens: Callable[[], dict[str, Any]]) -> PageServer:
        """Another server of the same page."""
        page = Page(self.parties)
        return PageServer(port, page.files(page_model(self.settings.model)), page.headers, tokens)

    def tokens(self) -> dict[str, Any]:
        return pair(self.settings, 600, 1000).as_dict()

    def ids(self, text: str) -> np.ndarray:
        """A text's tokens, as Python reads them."""
        return Tokenizer(self.settings.model, self.public.inputs).rows([text])[0].ids


@pytest.fixture(scope="module")
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def play(stack: ExitStack) -> Any:
    return stack.enter_context(playing())


@pytest.fixture(scope="module")
def demo(stack: ExitStack, play: Any, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The shipped model."""
    return Place(stack, play, tmp_path_factory.mktemp("demo"), demo_model())


@pytest.fixture(scope="module")
def sentences(stack: ExitStack, play: Any, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A tiny model of sentence embeddings."""
    folder = tmp_path_factory.mktemp("sentences")
    return Place(stack, play, folder / "roles", write_sentence(folder / "model"))


@pytest.fixture(scope="module")
def chat(stack: ExitStack, play: Any, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A tiny chat model."""
    pytest.importorskip("torch", reason="it is made by transformers")
    pytest.importorskip("jinja2", reason="its template needs the extra `chat`")
    folder = tmp_path_factory.mktemp("chat")
    return Place(stack, play, folder / "roles", measured_chat(folder / "model"), public_prefix="auto")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shots(tmp_path_factory.mktemp("pictures"))


def picture(visit: Visit, path: Path) -> None:
    """As in docs/page.md: down to the answer, without what passes."""
    visit.page.set_viewport_size({"width": 700, "height": 900})
    visit.page.evaluate("document.activeElement.blur(), document.querySelector('#status').hidden = true")
    box = visit.page.locator("#answered").bounding_box()
    visit.page.screenshot(path=path, full_page=True,
                          clip={"x": 0, "y": 0, "width": 700, "height": box["y"] + box["height"] + 20})
    visit.page.set_viewport_size(WIDE)


def noise(body: bytes) -> np.ndarray:
    """The bytes of a half that must look random, whatever the text."""
    return np.concatenate([np.frombuffer(value.tobytes(), np.uint8) for name, value in load(body).items()
                           if name not in PUBLIC])


def test_a_text_is_labelled_as_in_process(demo: Place, pictures: Path) -> None:
    visit = demo.visit()
    told = visit.ask(TEXT)
    wanted = plain_bert(demo_model(), [TEXT])
    assert told.split()[0] == wanted.labels[0]
    shown = dict(zip(visit.page.locator(".bars th").all_inner_texts(), visit.figures(".bars .figure"), strict=True))
    for label, part in zip(demo.public.architecture.spec.labels, wanted.probabilities[0], strict=True):
        assert abs(shown[label] - 100 * part) < 1.0
    ids = visit.page.locator("#chips small").all_inner_texts()
    assert list(map(int, ids)) == demo.ids(TEXT).tolist()
    assert visit.page.locator("#status").inner_text().startswith("Answered in")
    assert "rounds" in visit.page.inner_text("#cost")
    picture(visit, pictures / "page.png")
    visit.page.click("#answer summary")
    sums = visit.figures("#answer details td:last-child")
    assert np.abs(np.array(sums) - wanted.logits[0]).max() < 0.01
    visit.page.emulate_media(color_scheme="dark")
    visit.page.screenshot(path=pictures / "label-dark.png", full_page=True)
    visit.end()
    assert {origin(url) for url in visit.asked} == {origin(demo.url), *demo.parties}


def test_parties_get_noise(demo: Place) -> None:
    """Bodies of two texts have one length, no trace of a text, and bytes that are all as likely."""
    visit = demo.visit()
    bodies = []
    for text in (TEXT, OTHER, TEXT):
        visit.ask(text)
        bodies.append([visit.sent[url] for url in demo.parties])
    assert all(len(body) == len(bodies[0][0]) for both in bodies for body in both)
    for text, both in zip((TEXT, OTHER, TEXT), bodies, strict=True):
        ids = demo.ids(text)
        for body in both:
            assert not any(word.encode() in body for word in text.lower().strip(".").split() if len(word) > 3)
            assert not any(ids.astype(kind).tobytes() in body for kind in ("<i8", "<i4", "<u2"))
    for party in (0, 1):
        first, other, again = (noise(both[party]) for both in bodies)
        assert (first == again).mean() < 0.05 and (first == other).mean() < 0.05, "halves are made anew"
        everything = np.concatenate([first, other, again])
        counts = np.bincount(everything, minlength=256)
        spread = ((counts - everything.size / 256) ** 2).sum() / (everything.size / 256)
        assert everything.size > 4000 and 100 < spread < 450, spread  # 255 expected, 23 of deviation
    shown = visit.page.locator(".party").first
    assert f"{len(bodies[-1][0]):,} bytes" in shown.inner_text()
    digits = shown.locator("code").first.inner_text().replace(" ", "").rstrip("…")
    assert bytes.fromhex(digits) in bodies[-1][0]
    visit.end()


def test_sentences_are_as_similar_as_in_python(sentences: Place, pictures: Path) -> None:
    with connect(sentences.roles.settings("client")) as model:
        vectors = model.embed(SENTENCES)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    visit = sentences.visit(viewport=PHONE)
    assert "at least two sentences" in _mistake(visit, "one alone")
    visit.ask("\n".join(SENTENCES) + "\n")
    shown = np.array(visit.figures(".heat td.value")).reshape(3, 3)
    assert np.abs(shown - vectors @ vectors.T).max() < 0.01
    assert visit.overflow() <= 0
    visit.page.screenshot(path=pictures / "similarities-phone.png", full_page=True)
    visit.end()


def _mistake(visit: Visit, text: str) -> str:
    visit.page.fill("#text", text)
    visit.page.click("#ask")
    return str(visit.page.inner_text("#mistake:not([hidden])"))


def test_a_keyboard_is_enough(demo: Place) -> None:
    visit = demo.visit()
    page, focused = visit.page, "document.activeElement.id || document.activeElement.className || "\
        "document.activeElement.localName"
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate(focused) == "text", "the link leads past the rest"
    page.keyboard.type(TEXT)
    order = []
    for _ in range(2):
        page.keyboard.press("Tab")
        order.append(page.evaluate(focused))
    assert order == ["summary", "ask"], "the order is that on the page"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle + ' ' + "
                            "getComputedStyle(document.activeElement).outlineWidth")
    assert outline == "solid 3px", "the focus must be seen"
    page.keyboard.press("Enter")
    assert visit.answered().startswith("positive") and page.evaluate(focused) == "ask", "the focus stays"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    assert page.evaluate(focused) == "text"
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#ask[data-running]")
    assert visit.answered().startswith("positive")
    visit.end()


def test_it_fits_a_phone_and_holds_the_rules_of_access(demo: Place, pictures: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-core").Axe()
    for viewport, scheme in ((PHONE, "light"), (WIDE, "dark")):
        visit = demo.visit(viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
        assert visit.overflow() <= 0
        visit.ask("A wonderful film, warm and funny. Donaudampfschifffahrtsgesellschaftskapitän.")
        for summary in visit.page.locator("summary").all():
            summary.click()
        assert visit.overflow() <= 0
        visit.page.screenshot(path=pictures / f"access-{scheme}.png", full_page=True)
        found = axe.run(visit.page).response["violations"]
        assert not found, [(each["id"], [node["html"] for node in each["nodes"]]) for each in found]
        visit.end()


def test_what_a_text_cannot_be(demo: Place) -> None:
    visit = demo.visit()
    assert "Type a text first" in _mistake(visit, "  \n ")
    assert visit.page.get_attribute("#text", "aria-invalid") == "true"
    assert "this model takes at most" in _mistake(visit, "good " * 600)
    visit.ask("<img src=x onerror=alert(1)>")
    assert visit.page.locator("main img").count() == 0, "a text became markup"
    visit.end()


def changed(body: bytes, name: str) -> bytes:
    """An answer whose words of this name are others."""
    size = int.from_bytes(body[:8], "little")
    arrays = load(body)
    arrays[name] = arrays[name] + np.uint64(1)
    return bytes(save(arrays, metadata=json.loads(body[8 : 8 + size])["__metadata__"]))


def answering(visit: Visit, url: str, change: Callable[[bytes], bytes]) -> None:
    """The answers of a party are changed on their way to the page."""
    def handle(route: Any) -> None:
        if route.request.method != "POST":
            route.continue_()
            return
        answer = route.fetch()
        route.fulfill(response=answer, body=change(answer.body()))

    visit.page.route(f"{url}/**", handle)


def test_a_marked_text_has_no_answer(demo: Place, pictures: Path) -> None:
    """As where a value left its range: the guard's word is not 0."""
    visit = demo.visit(ignore_https_errors=True)
    answering(visit, demo.parties[0], lambda body: changed(body, "guard"))
    told = visit.ask(TEXT)
    assert "cannot be trusted" in told and "positive" not in told and "%" not in told
    assert "cannot be trusted" in visit.page.inner_text("#status")
    assert "positive" not in visit.page.inner_text("main").replace(TEXT, "")
    visit.page.screenshot(path=pictures / "marked.png", full_page=True)
    visit.end()


def test_answers_that_do_not_belong_together_are_refused(demo: Place) -> None:
    visit = demo.visit(ignore_https_errors=True)
    kept: list[bytes] = []

    def repeat(body: bytes) -> bytes:
        kept.append(body)
        return kept[0]

    answering(visit, demo.parties[1], repeat)
    assert visit.ask(TEXT).startswith("positive")
    told = visit.ask(TEXT)
    assert "There is no answer" in told and "the answer of party 1 cannot be read (it answers request" in told
    visit.end()


def test_tokens_that_expired_are_fetched_anew(demo: Place) -> None:
    given: list[bool] = []

    def tokens() -> dict[str, Any]:
        given.append(bool(given))
        if given[-1]:
            return demo.tokens()
        signer, then = Signer(demo.settings.tls), time.time() - 1000
        old = [make(signer, rank, demo.public.digest, 60, 10, now=then) for rank in (0, 1)]
        return {"party0": old[0], "party1": old[1], "expires": time.time() + 600}

    with demo.page(demo.other, tokens) as server:
        visit = demo.visit(server.url)
        assert visit.ask(TEXT).startswith("positive") and given == [False, True]
        visit.end("401")
    with demo.page(demo.other, lambda: {"party0": "a.b.c", "party1": "a.b.c", "expires": 1e12}) as server:
        visit = demo.visit(server.url)
        assert "did not answer the request (401)" in visit.ask(TEXT)
        visit.end("401")


def test_a_page_of_another_origin_is_told_so(demo: Place) -> None:
    with demo.page(port := free_ports(1)[0], demo.tokens) as server:
        visit = demo.visit(server.url)
        told = visit.ask(TEXT)
        assert f"must add http://127.0.0.1:{port} to the origins" in told
        visit.end("CORS policy", "net::ERR_FAILED", "401")


def test_a_prompt_is_continued_as_in_python(chat: Place, pictures: Path) -> None:
    """Greedily, each token in a request of its own; then the session ends at both parties."""
    with connect(chat.roles.settings("client")) as model:
        wanted = model.generate([{"role": "user", "content": "hello"}], max_new_tokens=NEW)
    visit = chat.visit(viewport=PHONE)
    visit.page.fill("#length", str(NEW))
    with visit.page.expect_request(lambda request: request.method == "DELETE"):
        visit.ask("hello")
    assert visit.page.text_content(".stream .made") == wanted.text
    assert f"Done: {len(wanted.tokens)} tokens" in visit.page.inner_text("#status")
    assert f"in {len(wanted.tokens)} requests" in visit.page.locator(".party").first.inner_text()
    assert visit.overflow() <= 0 and "rounds" in visit.page.inner_text("#cost")
    visit.page.screenshot(path=pictures / "text-phone.png", full_page=True)
    assert "this model's context holds" in _mistake(visit, "hello " * 200)
    visit.end()


def test_a_text_is_stopped(chat: Place) -> None:
    visit = chat.visit()
    visit.page.fill("#length", "120")
    visit.page.fill("#text", "hello")
    visit.page.click("#ask")
    visit.page.locator(".party", has_text="2 requests").first.wait_for()
    visit.page.click("#ask")
    visit.answered()
    assert "Stopped after" in visit.page.inner_text("#status") and visit.page.inner_text("#ask") == "Ask"
    visit.end()


def test_a_dead_party_is_named(sentences: Place, pictures: Path) -> None:
    """Last of its model, because it ends one."""
    visit = sentences.visit()
    sentences.roles.stop("party1")
    told = visit.ask("\n".join(SENTENCES))
    assert f"Party 1 does not answer at {sentences.parties[1]}" in told and "It may be down" in told
    visit.page.screenshot(path=pictures / "dead-party.png", full_page=True)
    assert all("ERR_CONNECTION_REFUSED" in each or "503" in each for each in visit.problems), visit.problems
    visit.end(*{"net::ERR_CONNECTION_REFUSED", *(["503"] if "503" in str(visit.problems) else [])})
