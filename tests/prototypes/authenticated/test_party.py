"""Honest parties get right words; a party that deviates in one message is noticed before anything leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from prototypes.authenticated.dealer import Dealer
from prototypes.authenticated.pair import together
from prototypes.authenticated.party import CheatingParty, Party
from prototypes.authenticated.shares import Authenticated
from prototypes.authenticated.wide import Wide
from secformer.mpc.errors import Desync, PeerLost
from secformer.mpc.net.channel import Channel
from secformer.mpc.net.wire import Tag
from secformer.mpc.prg import Stream

EDGES = np.array([0, 1, 2, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 2, 2**64 - 1], np.uint64)
Change = Callable[[Tag, Any], Any]


class Deviating(Channel):
    """Party 1's channel, of a party that changes what it sends."""

    def __init__(self, inner: Channel, change: Change):
        super().__init__(inner.peer)
        self._inner, self._change = inner, change

    def send(self, tag: Tag, payload: Any) -> None:
        self._inner.send(tag, self._change(tag, payload))

    def receive(self, tag: Tag, nbytes: int) -> Any:
        return self._inner.receive(tag, nbytes)

    def abort(self, reason: str) -> None:
        self._inner.abort(reason)

    def close(self) -> None:
        self._inner.close()


def seed(number: int) -> bytes:
    return number.to_bytes(32, "little")


def added(step: int, delta: int, place: int = 0) -> Change:
    """Adds a number to one word of the opening at a step."""

    def change(tag: Tag, payload: Any) -> Any:
        if tag.step != step or tag.verb != "open":
            return payload
        words = payload.copy().view("<u8")
        words[place : place + 1] += np.uint64(delta % 2**64)  # an array: NumPy warns of scalars that wrap
        return words.view(np.uint8)

    return change


def product(dealer: Dealer, x: np.ndarray, y: np.ndarray, change: Change | None = None) -> list[np.ndarray]:
    """x y at both parties, opened and checked. The product opens at step 1, its result at step 2."""
    left, right, triple, mask = (dealer.share(x), dealer.share(y), dealer.triple(x.shape, y.shape),
                                 dealer.random((1,)))

    def program(party: Party) -> np.ndarray:
        rank = party.key.rank
        found = party.open(party.multiply(left[rank], right[rank], triple[rank]))
        party.check(mask[rank])
        return found

    return list(together(dealer, program, lambda c: c if change is None else Deviating(c, change)))


def opened(dealer: Dealer, values: list[np.ndarray], change: Change | None = None,
           alter: Callable[[Authenticated], Authenticated] = lambda x: x) -> list[list[np.ndarray]]:
    """Each value opened by itself, in order, then checked. `alter` is what party 1 does to its shares before."""
    shares, mask = [dealer.share(v) for v in values], dealer.random((1,))

    def program(party: Party) -> list[np.ndarray]:
        rank = party.key.rank
        found = [party.open(alter(pair[1]) if rank else pair[0]) for pair in shares]
        party.check(mask[rank])
        return found

    return list(together(dealer, program, lambda c: c if change is None else Deviating(c, change)))


# ---- honest parties --------------------------------------------------------------------------------------------------


def test_products_of_edges() -> None:
    for found in product(Dealer(seed(1)), EDGES[:, None], EDGES[None, :]):
        assert np.array_equal(found, EDGES[:, None] * EDGES[None, :])


@pytest.mark.parametrize("shape", [(0,), (1,), (3,), (2, 0, 3), (3, 5, 7)])
@pytest.mark.parametrize("extra", [64, 40, 1, 0])
def test_products_of_shapes(shape: tuple[int, ...], extra: int) -> None:
    stream = Stream(seed(2), "values")
    x, y = (np.asarray(stream.words(int(np.prod(shape))).reshape(shape)) for _ in range(2))
    for found in product(Dealer(seed(3), extra), x, y):
        assert np.array_equal(found, x * y)


def test_sums_public_factors_and_a_check_of_nothing() -> None:
    dealer = Dealer(seed(4))
    x, y, masks = dealer.share(EDGES), dealer.share(EDGES[::-1].copy()), [dealer.random((1,)) for _ in range(3)]

    def program(party: Party) -> tuple[np.ndarray, np.ndarray]:
        rank = party.key.rank
        party.check(masks[0][rank])  # of no opening
        z = (x[rank] + y[rank]).times(EDGES) - x[rank] + party.key.public(EDGES)
        first = party.open(z)
        party.check(masks[1][rank])
        second = party.open(x[rank])  # a check forgets what was checked before
        party.check(masks[2][rank])
        return first, second

    for first, second in together(dealer, program):
        assert np.array_equal(first, (EDGES + EDGES[::-1]) * EDGES)
        assert np.array_equal(second, EDGES)


def test_one_share_alone_says_nothing_of_its_value() -> None:
    """Bits of party 1's share of 0, of its MAC, and of party 0's, are fair coins."""
    pair = Dealer(seed(5)).share(np.zeros(4096, np.uint64))
    for half in (half for a in pair for w in (a.value, a.mac) for half in (w.low, w.high)):
        ones = np.unpackbits(half.view(np.uint8)).reshape(4096, 64).sum(axis=0, dtype=np.int64)
        assert np.all(np.abs(ones - 2048) < 6 * 32)


# ---- one deviation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bit", range(64))
def test_a_wrong_bit_of_an_opening(bit: int) -> None:
    for step in (1, 2):  # masked operands, and the result
        with pytest.raises(CheatingParty, match="MACs do not fit"):
            product(Dealer(seed(100 + bit)), EDGES, EDGES, added(step, 1 << bit, place=bit % 10))


@pytest.mark.parametrize("factor", [3, 5, 2**20 + 1, 2**31, -1, -3])
@pytest.mark.parametrize("bit", [0, 1, 31, 32, 62, 63])
def test_multiples_of_powers_of_two(factor: int, bit: int) -> None:
    if factor * 2**bit % 2**64 == 0:
        bit = 32  # 2^31 2^bit would be no change
    with pytest.raises(CheatingParty, match="MACs do not fit"):
        product(Dealer(seed(200 + bit)), EDGES, EDGES, added(1, factor * 2**bit))


@pytest.mark.parametrize("bit", [0, 1, 63, 64, 100])
def test_a_wrong_mac(bit: int) -> None:
    error = Wide.of_ints([1 << bit])
    with pytest.raises(CheatingParty, match="MACs do not fit"):
        opened(Dealer(seed(300 + bit)), [EDGES], alter=lambda x: Authenticated(x.value, x.mac + error))


@pytest.mark.parametrize("bit", [0, 1, 30])
def test_wrong_upper_bits(bit: int) -> None:
    """Bits that are never opened do not fit the MAC either."""
    error = Wide.above(np.array([1 << bit], np.uint64))
    with pytest.raises(CheatingParty, match="MACs do not fit"):
        opened(Dealer(seed(350 + bit)), [EDGES], alter=lambda x: Authenticated(x.value + error, x.mac))


def noticed_of_60(first: int, alter: Callable[[Authenticated], Authenticated]) -> int:
    """How often a change is noticed. Where it passes, the value is right."""
    noticed = 0
    for number in range(60):
        try:
            found = opened(Dealer(seed(first + number)), [EDGES[:1]], alter=alter)
        except CheatingParty:
            noticed += 1
        else:
            assert all(np.array_equal(value, EDGES[:1]) for (value,) in found)
    return noticed


def test_wrong_highest_bits_may_pass_and_change_nothing() -> None:
    """2^127 alpha chi is 0 for every even alpha or chi. That is no hole: the low 64 bits alone are the value."""
    error = Wide.above(np.array([1 << 63], np.uint64))
    noticed = noticed_of_60(800, lambda x: Authenticated(x.value + error, x.mac))
    assert 0 < noticed < 40  # one of four


def test_a_wrong_highest_bit_of_a_mac_may_pass_and_changes_nothing() -> None:
    """2^127 chi is 0 for every even chi."""
    error = Wide.of_ints([1 << 127])
    assert 10 < noticed_of_60(900, lambda x: Authenticated(x.value, x.mac + error)) < 50  # one of two


def kept_back(replayed: int, at: int) -> Change:
    """Sends the message of step `replayed` again at step `at`."""
    kept: dict[int, Any] = {}

    def change(tag: Tag, payload: Any) -> Any:
        kept[tag.step] = payload
        return kept[replayed] if tag.step == at else payload

    return change


def test_a_replayed_opening() -> None:
    with pytest.raises(CheatingParty, match="MACs do not fit"):
        opened(Dealer(seed(400)), [EDGES, EDGES], kept_back(1, 2))  # of the very same value, in another share


def test_openings_in_the_wrong_order() -> None:
    """Party 1 opens its second share first; each message says what the other should."""
    dealer = Dealer(seed(401))
    x, y, mask = dealer.share(EDGES), dealer.share(EDGES[::-1].copy()), dealer.random((1,))

    def program(party: Party) -> None:
        rank = party.key.rank
        for pair in (y, x) if rank else (x, y):
            party.open(pair[rank])
        party.check(mask[rank])

    with pytest.raises(CheatingParty, match="MACs do not fit"):
        together(dealer, program)


def test_words_in_the_wrong_order() -> None:
    def change(tag: Tag, payload: Any) -> Any:
        return payload.view("<u8")[::-1].copy().view(np.uint8) if tag.verb == "open" else payload

    with pytest.raises(CheatingParty, match="MACs do not fit"):
        opened(Dealer(seed(402)), [EDGES], change)


def test_two_errors_that_cancel_in_a_sum() -> None:
    """+1 and -1: the coefficients are not known before the openings."""
    def change(tag: Tag, payload: Any) -> Any:
        return added(1, 1, 0)(tag, added(1, -1, 1)(tag, payload))

    with pytest.raises(CheatingParty, match="MACs do not fit"):
        opened(Dealer(seed(403)), [EDGES], change)


@pytest.mark.parametrize("verb", ["upper bits", "residue", "residue fixed", "coin", "coin fixed"])
@pytest.mark.parametrize("place", [0, -1])
def test_a_wrong_message_of_the_check(verb: str, place: int) -> None:
    def change(tag: Tag, payload: Any) -> Any:
        if tag.verb != verb:
            return payload
        wrong = payload.copy()
        wrong[place] ^= 1
        return wrong

    with pytest.raises(CheatingParty):
        opened(Dealer(seed(404)), [EDGES], change)


def test_an_answer_that_is_the_others_commitment() -> None:
    """A party that waits, and sends party 0's own commitment and opening back, would make the coin 0."""

    class Mirror(Deviating):
        def send(self, tag: Tag, payload: Any) -> None:
            if not tag.verb.startswith("coin"):
                return super().send(tag, payload)
            self.kept = self._inner.receive(tag, payload.size)
            return self._inner.send(tag, self.kept)

        def receive(self, tag: Tag, nbytes: int) -> Any:
            return self.kept if tag.verb.startswith("coin") else super().receive(tag, nbytes)

    dealer = Dealer(seed(405))
    mask = dealer.random((1,))
    with pytest.raises(CheatingParty, match="coin"):
        together(dealer, lambda party: party.check(mask[party.key.rank]), lambda c: Mirror(c, lambda tag, p: p))


@pytest.mark.parametrize("left_out", ["opening", "check"])
def test_a_party_that_does_less(left_out: str) -> None:
    dealer = Dealer(seed(406))
    x, mask = dealer.share(EDGES), dealer.random((1,))

    def program(party: Party) -> None:
        rank = party.key.rank
        if not rank or left_out != "opening":
            party.open(x[rank])
        if not rank or left_out != "check":
            party.check(mask[rank])

    with pytest.raises(Desync if left_out == "opening" else PeerLost):
        together(dealer, program)


# ---- positive control: without extra bits ----------------------------------------------------------------------------


def passes(number: int, extra: int, delta: int) -> bool:
    dealer = Dealer(seed(number), extra)
    try:
        opened(dealer, [EDGES[:1]], added(1, delta))
    except CheatingParty:
        return False
    return True


def test_an_even_key_without_extra_bits_misses_the_top_bit() -> None:
    """s = 0: the MACs fit an error of 2^63 whenever alpha 2^63 = 0 modulo 2^64, so for every second key. This is the
    MAC of one opening, without coefficients; see `test_without_extra_bits_the_check_misses_the_top_bit`."""
    missed = 0
    for number in range(400):
        dealer = Dealer(seed(5000 + number), 0)
        pair = dealer.share(EDGES[-1:])
        wrong = pair[0].value.low + pair[1].value.low + np.uint64(2**63)
        mac = pair[0].mac.low + pair[1].mac.low
        fits = bool(mac[0] == (dealer.alpha * wrong)[0])
        assert fits == (int(dealer.alpha[0]) % 2 == 0)
        missed += fits
    assert abs(missed - 200) < 5 * 10  # probability 1/2; five standard deviations


def test_without_extra_bits_the_check_misses_the_top_bit() -> None:
    """s = 0: chi alpha 2^63 is 0 modulo 2^64 where chi or alpha is even: three of four times."""
    missed = sum(passes(6000 + number, 0, 2**63) for number in range(200))
    assert abs(missed - 150) < 5 * 6.2


def test_few_extra_bits_miss_few() -> None:
    """An error of 2^63 against s bits of key: chi alpha must be a multiple of 2^(s + 1). The chance of a product of a
    uniform chi and an alpha below 2^s is summed over the power of two in alpha."""
    for extra in (1, 3):
        # alpha = 0 always passes; alpha with exactly v factors of two needs s + 1 - v of them from chi
        chance = 2.0**-extra + sum(2.0 ** -(v + 1) * 2.0 ** -(extra + 1 - v) for v in range(extra))
        missed = Counter(passes(7000 + 1000 * extra + number, extra, 2**63) for number in range(200))[True]
        assert abs(missed - 200 * chance) < 5 * (200 * chance * (1 - chance)) ** 0.5


def test_with_all_extra_bits_none_is_missed() -> None:
    assert not any(passes(9000 + number, 64, 2**63) for number in range(200))
