"""The page in a real Chromium, against two real parties and a dealer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser_lab import PHONE, WIDE, Visit, browser, chromium, origin, shots

pytest.importorskip("starlette", reason="the served roles need the extra `serve`")
pytest.importorskip("uvicorn", reason="the served roles need the extra `serve`")
chromium()

from safetensors.numpy import load, save
from sentence_lab import write_sentence
from tiny_chat_lab import measured_chat

from secformer import connect, demo_model, plain_bert
from secformer.models.data.tokenizer import Tokenizer
from secformer.models.run.public import PublicModel
from secformer.mpc.net.tcp import free_ports
from secformer.page.files import headers, page_files
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
PUBLIC = {"lengths", "mask", "turns"}  # turns are two random bits in a byte each
DIGITS = 0.0006  # of figures with three digits behind the point


class Place:
    """Served roles, and ports of this machine whose pages may ask them."""

    def __init__(self, folder: Path, model: Any, **provisioning: Any):
        self.ports = free_ports(2)
        allowed = [each for port in self.ports for each in origins(port)]
        self.roles = LocalRoles(folder, model, settings=SHORT, origins=allowed, **provisioning)
        self.settings = load_client(self.roles.settings("client"))
        self.urls = (self.roles.url(0), self.roles.url(1))

    def page(self, port: int, tokens: Callable[[], dict[str, Any]] | None = None) -> PageServer:
        return PageServer(port, page_files(page_model(self.settings.model), self.urls), headers(list(self.urls)),
                          tokens or (lambda: pair(self.settings, 600, 1000).as_dict()))


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Place]]:
    """Three models, each served by roles of its own, which start side by side."""
    folder = tmp_path_factory.mktemp("places")
    write_sentence(folder / "encoder")
    found = {"demo": Place(folder / "demo", demo_model()), "sentences": Place(folder / "sentences", folder / "encoder"),
             "chat": Place(folder / "chat", measured_chat(folder / "llama"), public_prefix="auto")}
    entered: list[LocalRoles] = []
    try:
        for place in found.values():
            entered.append(place.roles.__enter__())
        for place in found.values():
            place.roles.wait_ready()
        yield found
    finally:
        for roles in entered:
            roles.__exit__()


@pytest.fixture(scope="module")
def pages(places: dict[str, Place]) -> Iterator[dict[str, str]]:
    """Addresses of the three pages, as `up --page` serves them."""
    servers = {name: trial_page(place.roles, place.ports[0]) for name, place in places.items()}
    yield {name: server.url for name, server in servers.items()}
    for server in servers.values():
        server.close()


@pytest.fixture(scope="module")
def chrome(places: dict[str, Place]) -> Iterator[Any]:
    """One browser, which accepts the keys of all these parties."""
    keys = ",".join(option.partition("=")[2] for place in places.values() for option in browser_options(place.roles))
    with browser([f"--ignore-certificate-errors-spki-list={keys}"]) as opened:
        yield opened


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shots(tmp_path_factory.mktemp("pictures"))


def noise(body: bytes) -> np.ndarray:
    """The bytes of a half that must look random, whatever the text."""
    return np.concatenate([np.frombuffer(value.tobytes(), np.uint8) for name, value in load(body).items()
                           if name not in PUBLIC])


def test_a_text_is_labelled_as_in_process(chrome: Any, places: dict[str, Place], pages: dict[str, str],
                                          pictures: Path) -> None:
    visit = Visit(chrome, pages["demo"]).open()
    told = visit.ask(TEXT)
    wanted = plain_bert(demo_model(), [TEXT])
    assert told.split()[0] == wanted.labels[0]
    shown = dict(zip(visit.page.locator(".bars th").all_inner_texts(), visit.figures(".bars .figure"), strict=True))
    labels = PublicModel.load(places["demo"].settings.model).architecture.spec.labels
    for label, part in zip(labels, wanted.probabilities[0], strict=True):
        assert abs(shown[label] - 100 * part) < 1.0
    reading = Tokenizer(places["demo"].settings.model, PublicModel.load(places["demo"].settings.model).inputs)
    ids = visit.page.locator("#chips small").all_inner_texts()
    assert list(map(int, ids)) == reading.rows([TEXT])[0].ids.tolist()
    assert visit.page.locator("#status").inner_text().startswith("Answered in")
    assert "rounds" in visit.page.inner_text("#cost")
    visit.page.locator("summary").first.click()
    sums = visit.figures("#answer details td:last-child")
    assert np.abs(np.array(sums) - wanted.logits[0]).max() < 0.01
    for which in ("light", "dark"):
        visit.page.emulate_media(color_scheme=which)
        visit.page.screenshot(path=pictures / f"label-{which}.png", full_page=True)
    visit.end()
    own, *parties = origin(pages["demo"]), *places["demo"].urls
    assert {origin(url) for url in visit.asked} == {own, *parties}


def test_parties_get_noise(chrome: Any, places: dict[str, Place], pages: dict[str, str]) -> None:
    """Bodies of two texts have one length, no trace of a text, and bytes that are all as likely."""
    visit = Visit(chrome, pages["demo"]).open()
    bodies = []
    for text in (TEXT, OTHER, TEXT):
        visit.ask(text)
        bodies.append([visit.sent[url] for url in places["demo"].urls])
    assert all(len(body) == len(bodies[0][0]) for both in bodies for body in both)
    public = PublicModel.load(places["demo"].settings.model)
    for text, both in zip((TEXT, OTHER, TEXT), bodies, strict=True):
        ids = Tokenizer(places["demo"].settings.model, public.inputs).rows([text])[0].ids
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


def test_sentences_are_as_similar_as_in_python(chrome: Any, places: dict[str, Place], pages: dict[str, str],
                                               pictures: Path) -> None:
    with connect(places["sentences"].settings) as model:
        vectors = model.embed(SENTENCES)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    visit = Visit(chrome, pages["sentences"], viewport=PHONE).open()
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


def test_a_keyboard_is_enough(chrome: Any, pages: dict[str, str]) -> None:
    visit = Visit(chrome, pages["demo"]).open()
    page, focused = visit.page, "document.activeElement.id || document.activeElement.className"
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "skip"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    order = []
    while page.evaluate(focused) not in ("text", *order):
        order.append(page.evaluate(focused))
        page.keyboard.press("Tab")
    page.focus("#text")
    page.keyboard.type(TEXT)
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "ask"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle + ' ' + "
                            "getComputedStyle(document.activeElement).outlineWidth")
    assert outline == "solid 3px", "the focus must be seen"
    page.keyboard.press("Enter")
    assert visit.answered().startswith("positive") and page.evaluate(focused) == "ask", "the focus stays"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#ask[data-running]")
    assert visit.answered().startswith("positive")
    visit.end()


def test_it_fits_a_phone_and_holds_the_rules_of_access(chrome: Any, pages: dict[str, str], pictures: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-core").Axe()
    for viewport, scheme in ((PHONE, "light"), (WIDE, "dark")):
        visit = Visit(chrome, pages["demo"], viewport=viewport, color_scheme=scheme, reduced_motion="reduce").open()
        assert visit.overflow() <= 0
        visit.ask("A wonderful film, " + "warm and funny, " * 8 + "Donaudampfschifffahrtsgesellschaftskapitän.")
        for summary in visit.page.locator("summary").all():
            summary.click()
        assert visit.overflow() <= 0
        visit.page.screenshot(path=pictures / f"access-{scheme}.png", full_page=True)
        found = axe.run(visit.page).response["violations"]
        assert not found, [(each["id"], [node["html"] for node in each["nodes"]]) for each in found]
        visit.end()


def test_what_a_text_cannot_be(chrome: Any, pages: dict[str, str]) -> None:
    visit = Visit(chrome, pages["demo"]).open()
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


def test_a_marked_text_has_no_answer(chrome: Any, places: dict[str, Place], pages: dict[str, str],
                                     pictures: Path) -> None:
    """As where a value left its range: the guard's word is not 0."""
    visit = Visit(chrome, pages["demo"], ignore_https_errors=True).open()
    answering(visit, places["demo"].urls[0], lambda body: changed(body, "guard"))
    told = visit.ask(TEXT)
    assert "cannot be trusted" in told and "positive" not in told and "%" not in told
    assert "cannot be trusted" in visit.page.inner_text("#status")
    assert "positive" not in visit.page.inner_text("main").replace(TEXT, "")
    visit.page.screenshot(path=pictures / "marked.png", full_page=True)
    visit.end()


def test_answers_that_do_not_belong_together_are_refused(chrome: Any, places: dict[str, Place],
                                                         pages: dict[str, str]) -> None:
    visit = Visit(chrome, pages["demo"], ignore_https_errors=True).open()
    kept: list[bytes] = []

    def repeat(body: bytes) -> bytes:
        kept.append(body)
        return kept[0]

    answering(visit, places["demo"].urls[1], repeat)
    assert visit.ask(TEXT).startswith("positive")
    told = visit.ask(TEXT)
    assert "There is no answer" in told and "the answer of party 1 cannot be read (it answers request" in told
    visit.end()


def test_tokens_that_expired_are_fetched_anew(chrome: Any, places: dict[str, Place]) -> None:
    place = places["demo"]
    given: list[bool] = []

    def tokens() -> dict[str, Any]:
        given.append(bool(given))
        if given[-1]:
            return pair(place.settings, 600, 10).as_dict()
        signer, model = Signer(place.settings.tls), PublicModel.load(place.settings.model).digest
        old = [make(signer, rank, model, 60, 10, now=time.time() - 1000) for rank in (0, 1)]
        return {"party0": old[0], "party1": old[1], "expires": time.time() + 600}

    with place.page(place.ports[1], tokens) as server:
        visit = Visit(chrome, server.url).open()
        assert visit.ask(TEXT).startswith("positive") and given == [False, True]
        visit.end("401")
    with place.page(place.ports[1], lambda: {"party0": "a.b.c", "party1": "a.b.c", "expires": 1e12}) as server:
        visit = Visit(chrome, server.url).open()
        assert "did not answer the request (401)" in visit.ask(TEXT)
        visit.end("401")


def test_a_page_of_another_origin_is_told_so(chrome: Any, places: dict[str, Place]) -> None:
    with places["demo"].page(port := free_ports(1)[0]) as server:
        visit = Visit(chrome, server.url).open()
        told = visit.ask(TEXT)
        assert f"must add http://127.0.0.1:{port} to the origins" in told
        visit.end("CORS policy", "net::ERR_FAILED")


@pytest.mark.parametrize("most", [12])
def test_a_prompt_is_continued_as_in_python(chrome: Any, places: dict[str, Place], pages: dict[str, str], most: int,
                                            pictures: Path) -> None:
    with connect(places["chat"].settings) as model:
        wanted = model.generate([{"role": "user", "content": "hello"}], max_new_tokens=most)
    visit = Visit(chrome, pages["chat"], viewport=PHONE).open()
    visit.page.fill("#length", str(most))
    visit.ask("hello")
    assert visit.page.locator(".stream .made").text_content() == wanted.text
    assert visit.overflow() <= 0
    visit.page.screenshot(path=pictures / "text-phone.png", full_page=True)
    visit.end()


def test_a_dead_party_is_named(chrome: Any, places: dict[str, Place], pages: dict[str, str], pictures: Path) -> None:
    """Last, because it ends one."""
    place = places["sentences"]
    visit = Visit(chrome, pages["sentences"]).open()
    place.roles.stop("party1")
    told = visit.ask("\n".join(SENTENCES))
    assert f"Party 1 does not answer at {place.urls[1]}" in told and "It may be down" in told
    visit.page.screenshot(path=pictures / "dead-party.png", full_page=True)
    visit.end("net::ERR_CONNECTION_REFUSED")
