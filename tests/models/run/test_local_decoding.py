"""Steps over caches in a model: what whole texts give, in the twin and on shares; what parties see; guards; ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from generation_lab import FAMILIES, IDS, decoder_folder, ranges, secure, walked
from mpc_lab import Sent, looks_uniform, wire_words

from secformer.models.families import caching
from secformer.models.ranges.profile import RangeProfile
from secformer.models.run import decoding
from secformer.models.run.decoding import Decoding
from secformer.models.run.local import PlainModel, SecureModel
from secformer.mpc.caches import Cache, Cached
from secformer.mpc.errors import ProtocolError, SettingsError, Untrusted
from secformer.mpc.shares import Share
from secformer.protocols.quantities import MOST
from secformer.protocols.ranges import Range

pytestmark = pytest.mark.filterwarnings("ignore")
SECURE = 4e-3  # of the largest logit: shares against plain_model, with ranges that are up to twice as wide as measured
Logs = tuple[list[Sent], list[Sent]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("decoders")
    return {family: decoder_folder(root / family, family) for family in FAMILIES}


def whole(path: Path, ids: list[int]) -> np.ndarray:
    """The logits (N, V) of a whole text, by plain_model's functions, without a public prefix."""
    model = PlainModel.from_pretrained(path, recipe="exact", public_prefix=None)
    found = model({"input_ids": [ids]}).logits
    assert found is not None
    return np.asarray(found[0])


def plain(path: Path, prefix: tuple[int, ...]) -> Decoding:
    return PlainModel.from_pretrained(path, recipe="exact", public_prefix=prefix or None).decoding()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("first", [0, 3])
def test_steps_of_the_twin_are_the_whole_text(family: str, first: int, folders: dict[str, Path],
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, token by token, several at once, and with tokens that are gone back on; caches that grow on the way."""
    monkeypatch.setattr(caching, "SLOTS", 4)
    path, prefix, rest = folders[family], tuple(IDS[:first]), len(IDS) - first
    wanted = whole(path, IDS)[first:]
    for sizes in ((rest,), (1,) * rest, (5, 1, 3, rest - 9)):
        np.testing.assert_allclose(walked(plain(path, prefix), IDS, *sizes), wanted, atol=1e-10)
    text = plain(path, prefix)
    found = [walked(text, IDS, 4)]
    text.take(IDS[:3])
    text.back(first + 4)
    found.append(walked(text, IDS, 1, 2))
    text.take([9])
    text.back(first + 6)  # one token further than what came since
    found[-1] = found[-1][:2]
    found.append(walked(text, IDS, rest - 6))
    np.testing.assert_allclose(np.concatenate(found), wanted, atol=1e-10)
    assert text.timeline.used == len(IDS) + 3 + 1 + 1


def test_long_prompts_of_the_twin(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "AT_ONCE", 3)
    text = plain(folders["mistral"], ())
    np.testing.assert_allclose(text.take(IDS, last=2).logits, whole(folders["mistral"], IDS)[-2:], atol=1e-10)


@pytest.mark.parametrize("family, first, settings", [
    ("llama", 2, {}), ("mistral", 0, {"embedding": "client"}), ("qwen2", 3, {}),
    ("qwen3", 0, {"guard": "off"}), ("gpt2", 2, {"embedding": "client"}), ("gpt2", 0, {}),
])
def test_steps_on_shares_are_the_whole_text(family: str, first: int, settings: dict[str, Any],
                                            folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Private look-ups and the client's, tied heads and others, windows, prefixes; capacities grow on the way."""
    monkeypatch.setattr(caching, "SLOTS", 16)
    path, prefix = folders[family], tuple(IDS[:first])
    with secure(path, ranges(path, prefix, IDS[first:]), public_prefix=prefix or None, **settings) as model:
        text, wanted = model.decoding(), whole(path, IDS)[first:]
        found = [walked(text, IDS, 5, 1)]
        assert not text.take([9, 10]).breaches
        text.back(first + 6)
        found.append(walked(text, IDS, 4, len(IDS) - first - 10))
        np.testing.assert_allclose(np.concatenate(found), wanted, rtol=0.0, atol=SECURE * np.abs(wanted).max())
        capacities = {shape[1] for shape in model._plans}
        assert capacities == {16, 32}


# ---- what parties see ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def profile(folders: dict[str, Path]) -> RangeProfile:
    return ranges(folders["llama"])


@pytest.fixture
def logs() -> Logs:
    return [], []


@pytest.fixture
def model(folders: dict[str, Path], profile: RangeProfile, logs: Logs) -> Iterator[SecureModel]:
    with secure(folders["llama"], profile, logs) as found:
        yield found


class Slots:
    """Which slots of which cache rows were opened in, at the parties."""

    def __init__(self, model: SecureModel, monkeypatch: pytest.MonkeyPatch):
        self.opened: list[tuple[int, int, int]] = []
        taking, parties = Cache.taking, model._world().parties

        def watched(cache: Cache, rows: Share) -> Cached:
            found = taking(cache, rows)
            if cache.session is parties[0]:
                self.opened += [(id(cache), cache.number, found.first + i) for i in range(rows.shape[0])]
            return found

        monkeypatch.setattr(Cache, "taking", watched)

    @property
    def twice(self) -> bool:
        return len(set(self.opened)) < len(self.opened)


def forgetful(text: Decoding, length: int) -> None:
    """What must not happen: a text that goes back and takes its slots again."""
    text.back(length)
    text.timeline._positions = text.timeline._positions[:length]
    for pairs in text._caches.values():  # type: ignore[attr-defined]
        for cache in (cache for pair in pairs for cache in pair):
            cache.filled = length


@pytest.mark.parametrize("back, reused", [(Decoding.back, False), (forgetful, True)])
def test_a_text_that_goes_back_draws_new_slots(back: Callable[[Decoding, int], None], reused: bool, model: SecureModel,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    slots, text = Slots(model, monkeypatch), model.decoding()
    text.take(IDS[:4])
    back(text, 2)
    text.take(IDS[2:4])
    assert len(slots.opened) == 6 * 2 * 2, "rows, keys and values, layers"
    assert slots.twice == reused


def opened(logs: Logs, bits: int = 8) -> np.ndarray:
    """The bytes of all that was opened in whole bytes since the logs were cleared."""
    found = []
    for (tag, mine), (_, theirs) in zip(*logs, strict=True):
        if tag.bits % bits == 0 and tag.bits:
            words = wire_words(mine, tag.bits) + wire_words(theirs, tag.bits)
            found.append(words.view(np.uint8).reshape(-1, 8)[:, : tag.bits // 8].reshape(-1))
    return np.concatenate(found)


def test_what_is_opened_in_two_steps_is_uniform(model: SecureModel, logs: Logs) -> None:
    """Each party's messages, and what both open with them; the same tokens, again and again, behind the same text."""
    text = model.decoding()
    text.take(IDS[:4])
    steps = []
    for _ in range(2):
        logs[0].clear(), logs[1].clear()
        text.become(IDS[:4])
        steps.append(opened(logs).astype(np.uint64))
        for log in logs:
            assert looks_uniform(np.concatenate([p.view(np.uint8) for tag, p in log if tag.bits % 8 == 0]), 8)
    assert len(steps[0]) > 2000
    assert looks_uniform(steps[0], 8) and looks_uniform(steps[1], 8)
    assert looks_uniform((steps[0] - steps[1]) & np.uint64(255), 8), "masks that served twice would cancel"


def test_texts_of_one_model_have_nothing_in_common(model: SecureModel) -> None:
    one, other = model.decoding(), model.decoding()
    for text in (one, other):
        text.take(IDS[:4])
    for s in model._world().parties:
        for mine, theirs in zip(one._caches[s][0], other._caches[s][0], strict=True):  # type: ignore[attr-defined]
            assert not (mine.data.opened[:4] == theirs.data.opened[:4]).any()
            assert not (mine.data.factor == theirs.data.factor).any()


def test_costs_and_plans_depend_on_public_numbers_alone(model: SecureModel) -> None:
    """Of a step: its tokens' number, the slots and the logits that are asked for; one plan serves all texts."""
    one, other = model.decoding(), model.decoding()
    first = [one.take(ids).cost for ids in (IDS[:4], IDS[4:5], IDS[5:6])]
    second = [other.take(ids).cost for ids in (IDS[8:12], [3], IDS[:1])]
    other.back(2)
    second.append(other.take([200]).cost)
    facts = [(cost.rounds, cost.bytes, cost.dealer_bytes) for cost in (*first, *second)]
    assert facts[0] == facts[3] and len(set(facts[1:3] + facts[4:])) == 1 and facts[0] != facts[1]
    assert facts[0][0] == facts[1][0], "rounds do not depend on the number of tokens"
    assert set(model._plans) == {(4, 64, 1), (1, 64, 1)}


# ---- guards ----------------------------------------------------------------------------------------------------------


def narrowed(profile: RangeProfile, kind: str, name: str, **others: Range) -> RangeProfile:
    """The profile with a range that a hundredth of the values keep, at all sites of a kind."""
    def found(site: str, given: Any) -> Any:
        if not site.endswith(kind):
            return given
        r = given[name]
        return {**given, name: Range(r.low / 100.0, r.high / 100.0), **others}

    return replace(profile, sites={site: found(site, given) for site, given in profile.sites.items()})


@pytest.mark.parametrize("most, checked", [(Range(2.0**30, 2.0**30), True), (Range(8.0, 8.0), False)])
def test_turned_queries_and_keys_are_checked_unless_words_hold_them(most: Range, checked: bool, profile: RangeProfile,
                                                                     folders: dict[str, Path]) -> None:
    """In a step as in whole texts: by their range, before keys are opened; or not at all, where weights alone bound
    them."""
    narrow = narrowed(profile, ".rope", "input", **{MOST.name: most})
    with secure(folders["llama"], narrow) as model:
        text = model.decoding()
        for ids in (IDS[:4], IDS[4:5]):
            assert any("rope" in place for place in text.take(ids).breaches) == checked


@pytest.mark.parametrize("guard", ["mark", "raise", "nan", "off"])
def test_values_outside_of_their_ranges(guard: str, profile: RangeProfile, folders: dict[str, Path]) -> None:
    with secure(folders["llama"], narrowed(profile, ".glu", "gate"), guard=guard) as model:
        text = model.decoding()
        steps = [text.take(IDS[:4]), text.take(IDS[4:5])]
        assert [bool(step.breaches) for step in steps] == [guard != "off"] * 2
        assert guard == "off" or any("layer" in place for place in steps[1].breaches)
        given = {"input_ids": [IDS[:4]]}
        if guard == "raise":
            with pytest.raises(Untrusted, match="values left the ranges"):
                model.generate(given, max_new_tokens=2)
            return
        out = model.generate(given, max_new_tokens=2)
        assert out.trusted == (guard == "off") and any("cannot be trusted" in n for n in out.notes) != out.trusted
        assert np.isnan(out.logprobs).all() == (guard == "nan")


def test_values_within_their_ranges_are_not_marked(model: SecureModel) -> None:
    assert model.generate({"input_ids": [IDS[:4]]}, max_new_tokens=2).trusted


# ---- ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("embedding", ["private", "client"])
def test_a_closed_model(embedding: str, folders: dict[str, Path], profile: RangeProfile) -> None:
    model = secure(folders["llama"], profile, embedding=embedding)
    text = model.decoding()
    text.take(IDS[:2])
    model.close()
    with pytest.raises(SettingsError, match="this SecureModel is closed"):
        text.take(IDS[2:4])
    for ask in (model.decoding, lambda: model.generate({"input_ids": [IDS]}), lambda: model.score("hello")):
        with pytest.raises(SettingsError, match="this SecureModel is closed"):
            ask()


def test_an_error_in_a_step_ends_its_text_alone(model: SecureModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other texts go on; the model generates as before."""
    broken, other, sound = model.decoding(), model.decoding(), model.decoding()
    for text in (broken, other):
        text.take(IDS[:4])
    with monkeypatch.context() as patch:
        patch.setattr(model.architecture.__class__, "fed", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            broken.take(IDS[4:5])
    with pytest.raises(ProtocolError, match="begin a new one"):
        broken.take(IDS[4:5])
    wanted = sound.take(IDS[:5]).logits
    np.testing.assert_allclose(other.take(IDS[4:5]).logits, wanted, atol=1e-2)


def test_threads_take_turns(model: SecureModel) -> None:
    """Each goes on with a text of its own."""
    wanted = model.generate({"input_ids": [IDS[:4]]}, max_new_tokens=3, draft=None).tokens
    found: dict[int, Any] = {}

    def run(i: int) -> None:
        found[i] = model.generate({"input_ids": [IDS[:4]]}, max_new_tokens=3, draft=None).tokens

    threads = [threading.Thread(target=run, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(3), wanted)


def test_plans_that_were_used_last_are_kept(model: SecureModel, monkeypatch: pytest.MonkeyPatch) -> None:
    from secformer.models.run import local_decoding

    monkeypatch.setattr(local_decoding, "PLANS", 2)
    text = model.decoding()
    for size in (1, 2, 1, 3):
        text.take(IDS[:size])
    assert set(model._plans) == {(1, 64, 1), (3, 64, 1)}
