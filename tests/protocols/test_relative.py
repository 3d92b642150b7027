"""Relative positions: buckets against transformers' own functions, biases, and disentangled attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mpc_lab import Words, run

from secformer.mpc.errors import ShapeError
from secformer.mpc.fixed import encode
from secformer.mpc.session import Session
from secformer.mpc.sessions.plain import PlainSession
from secformer.mpc.shares import Share
from secformer.protocols.relative import (
    disentangled_scores,
    index_of,
    log_buckets,
    position_bias,
    shared_buckets,
    table_rows,
)

WIDE = np.arange(-3000, 3001)
B, H, T, D, R = 2, 3, 5, 4, 7
STEPS = np.array([[0, 1, 2, 3, 4], [0, 1, 2, 0, 0]])  # the second text has two places of padding
PLACES = np.array([[0, 1, 2, 3, 4], [5, 6, 7, 5, 5]])


# ---- rows of distances -----------------------------------------------------------------------------------------------


def test_buckets_against_transformers() -> None:
    torch = pytest.importorskip("torch")
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    wanted = MPNetEncoder.relative_position_bucket(torch.from_numpy(WIDE)).numpy()
    found = shared_buckets(WIDE)
    np.testing.assert_array_equal(found, wanted)
    assert set(found) == set(range(32)) - {16}  # 16 would be a positive distance of zero
    assert found[3000 + np.array([0, 1, 7, 8, 15, 16, 127, 128, -1, -128])].tolist() == [0, 17, 23, 24, 25, 26, 31, 31,
                                                                                       1, 15]


@pytest.mark.parametrize("buckets, farthest", [(256, 512), (256, 1024), (64, 512), (32, 128), (8, 16), (6, 20),
                                               (10, 37), (2, 8)])
def test_log_buckets_against_transformers(buckets: int, farthest: int) -> None:
    torch = pytest.importorskip("torch")
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    wanted = make_log_bucket_position(torch.from_numpy(WIDE), buckets, farthest).to(torch.long).numpy()
    found = log_buckets(WIDE, buckets, farthest)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(found, -found[::-1])
    assert found[3000 + farthest - 1] == buckets - 1  # the last row that is not cut off


@pytest.mark.parametrize("span, buckets, farthest", [(256, 256, 512), (8, 8, 16), (512, 0, 512), (4, 0, 4), (5, -1, 5)])
def test_rows_of_a_table(span: int, buckets: int, farthest: int) -> None:
    rows = table_rows(WIDE, span, buckets, farthest)
    assert rows.min() == 0 and rows.max() == 2 * span - 1
    assert rows[3000 + np.array([-1, 0, 1])].tolist() == [span + 1, span, span - 1]  # the query's place minus the key's
    assert (np.diff(rows) <= 0).all()


def test_an_index_is_the_same_for_texts_without_padding() -> None:
    def rows(distance: np.ndarray) -> np.ndarray:
        return 100 + distance

    assert index_of(STEPS[:1], rows).tolist() == [[[100 + j - i for j in range(5)] for i in range(5)]]
    both = index_of(STEPS, rows)
    np.testing.assert_array_equal(both[:1], index_of(STEPS[:1], rows))
    np.testing.assert_array_equal(both[1, 3:], both[1, [0, 0]])  # padding is where the first token is
    assert index_of(np.zeros((4, 1), int), rows).tolist() == [[[100]]]


# ---- scores ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("texts", [1, 2])
def test_a_bias_is_gathered_exactly(texts: int) -> None:
    rng = np.random.default_rng(1)
    table, index = rng.normal(0.0, 2.0, (32, H)), index_of(STEPS[:texts], shared_buckets)
    (found,), outcome = run(lambda s, t: position_bias(t, index), Words(encode(table, 16), 16, 64))
    rounded = np.rint(table * 2**16) / 2**16
    np.testing.assert_array_equal(found, np.moveaxis(rounded[index], -1, 1))
    assert outcome.cost.rounds == 0 and not outcome.plan.kinds


def operands(reach: float = 2.0, texts: int = B) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    q, k = (rng.uniform(-reach, reach, (texts, H, T, D)) for _ in range(2))
    if texts > 1:
        q[1, :, 3:], k[1, :, 3:] = q[1, :, :1], k[1, :, :1]  # padding repeats the first token
    return [q, k, *(rng.uniform(-reach, reach, (H, D, R)) for _ in range(2))]


def directly(q: np.ndarray, k: np.ndarray, keys: np.ndarray | None, queries: np.ndarray | None,
             index: np.ndarray) -> np.ndarray:
    """Entry by entry, as the paper's formula has it."""
    scores = q @ k.swapaxes(-1, -2)
    for b, h, i, j in np.ndindex(*scores.shape):
        row = index[b % len(index), i, j]
        if keys is not None:
            scores[b, h, i, j] += q[b, h, i] @ keys[h, :, row]
        if queries is not None:
            scores[b, h, i, j] += k[b, h, j] @ queries[h, :, row]
    return scores


def scored(given: list[np.ndarray], terms: tuple[bool, bool], texts: int = B, magnitude: int = 14) -> tuple[Any, Any]:
    index = index_of(STEPS[:texts], lambda d: np.clip(d + 3, 0, R - 1))

    def program(s: Session, q: Share, k: Share, *tables: Share) -> Share:
        keys, queries = (s.open_weight(t.data) if term else None for t, term in zip(tables, terms, strict=True))
        return disentangled_scores(s, q, k, keys, queries, index, PLACES[:texts], magnitude=magnitude)

    (found,), outcome = run(program, *(Words(encode(x, 16), 16, 64) for x in given))
    return found, (outcome, directly(given[0], given[1], *(t if term else None for t, term in
                                                          zip(given[2:], terms, strict=True)), index))


@pytest.mark.parametrize("texts", [1, 2])
@pytest.mark.parametrize("terms", [(True, True), (True, False), (False, True), (False, False)])
def test_disentangled_scores(terms: tuple[bool, bool], texts: int) -> None:
    found, (outcome, wanted) = scored(operands(texts=texts), terms, texts)
    np.testing.assert_allclose(found, wanted, rtol=0.0, atol=3 * D * 2 * 2.0**-16)
    used, tokens = outcome.plan.kinds[sum(terms)], len(np.unique(PLACES[:texts]))
    again = sum(terms) if texts > 1 else terms[1]  # one text's queries are opened once
    assert used.rounds == 1 and used.opened == 6 * H * D * (2 * texts * T + again * tokens)
    assert used.corrections == 6 * (texts * H * T * T + sum(terms) * tokens * H * R)


def test_terms_that_cancel_may_leave_the_window() -> None:
    """Products of 80,000 and -80,000 in words for |v| < 32,768: what is promised is of the sum, 64."""
    q, k, keys, queries = operands()
    q[:], k[:], keys[:], queries[:] = 4.0, 4.0, 5000.0, -5000.0
    found, (outcome, wanted) = scored([q, k, keys, queries], (True, True), magnitude=7)
    assert outcome.plan.kinds[2].bits[0] == 48 and (wanted == 64.0).all()
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("change", [{"places": PLACES[:, :4]}, {"index": np.zeros((2, 4, 4), int)},
                                    {"index": np.zeros((3, 5, 5), int)}, {"k": np.zeros((B, H, T + 1, D))}])
def test_shapes_that_do_not_fit(change: dict[str, np.ndarray]) -> None:
    s = PlainSession()
    given = {"q": np.zeros((B, H, T, D)), "k": np.zeros((B, H, T, D)), "index": np.zeros((1, T, T), int),
             "places": PLACES} | change
    with pytest.raises(ShapeError, match="disentangled attention takes"):
        disentangled_scores(s, s.accept(given["q"]), s.accept(given["k"]), None, None, given["index"], given["places"],
                            magnitude=14)
