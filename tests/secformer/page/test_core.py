"""The page's JavaScript in node, against the Python client: equal keys, halves that parties take, equal values."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest
from core_lab import CORE, bytes_of, core, text_of
from mpc_lab import chi_square_fits, looks_uniform
from safetensors.numpy import load, save

from secformer.models.data.batch import Batch, Row
from secformer.models.data.inputs import TokenInputs
from secformer.mpc.backend import choose_backend
from secformer.mpc.kernels import NumpyKernels
from secformer.mpc.meter import Cost
from secformer.mpc.points import keys_of
from secformer.mpc.prg import FORMAT, SEED_BYTES, Stream, derive
from secformer.roles.halves import joined
from secformer.roles.messages import Answer, StepRequest, most_bytes, pack_answer, unpack_answer, unpack_half

ID, DIGEST = "0123456789abcdef" * 2, "d" * 64
KERNELS = NumpyKernels(choose_backend("numpy"))
SEED = bytes(range(SEED_BYTES))


# ---- known answers ---------------------------------------------------------------------------------------------------


def test_the_ciphers_and_the_hash_give_known_answers() -> None:
    """RFC 8439, 2.3.2 (a key of 256 bits); draft-strombergson-chacha-test-vectors-01 (128 bits, all zero); BLAKE2b
    against the standard library's, of keys and messages of every length that fits one block."""
    long = np.arange(32, dtype=np.uint8).view("<u4").tolist()
    nonce = np.frombuffer(bytes.fromhex("000000090000004a00000000"), "<u4").tolist()
    lengths = [(1 + i % 64, 1 + (37 * i) % 128, i % 17) for i in range(256)]
    given = [(bytes(range(k)), bytes((7 * j + 3) % 256 for j in range(m)), bytes(range(65, 65 + p)))
             for k, m, p in lengths]
    rfc, short, *hashes = core([
        {"do": "block", "key": long, "counter": 1, "nonce": nonce},
        {"do": "block", "key": [0] * 4, "counter": 0, "nonce": [0] * 3},
        *({"do": "blake2b", "key": text_of(key), "person": text_of(person), "message": text_of(message)}
          for key, message, person in given)])
    assert bytes_of(rfc).hex() == (
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
        "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e")
    assert bytes_of(short).hex().startswith("89670952608364fd00b2f90936f031c8e756e15dba04b8493d00429259b20f46")
    for (key, message, person), found in zip(given, hashes, strict=True):
        assert bytes_of(found) == hashlib.blake2b(message, key=key, digest_size=32, person=person).digest()


def test_streams_are_those_of_python() -> None:
    assert f'FORMAT = "{FORMAT}"' in (CORE / "streams.js").read_text("utf-8")
    keys, words = core([{"do": "derive", "seed": text_of(SEED), "name": ["share", "é"]},
                        {"do": "words", "seed": text_of(SEED), "name": ["share", "x"], "count": 37}])
    assert bytes_of(keys) == derive(SEED, "share", "é")
    assert bytes_of(words) == Stream(SEED, "share", "x").read(4 * 37).tobytes()


SIZES = (1, 2, 15, 16, 17, 31, 32, 33, 48, 49, 100, 128, 129, 257, 30_522)


def test_one_seed_makes_the_keys_that_python_makes() -> None:
    """Every position of small rows, and some of a real vocabulary; keys are equal byte for byte."""
    points = [list(range(n)) if n < 300 else [0, 1, 15, 16, 12_345, n - 1] for n in SIZES]
    found = core([{"do": "keys", "points": each, "columns": n, "seed": text_of(SEED)}
                  for n, each in zip(SIZES, points, strict=True)])
    for columns, each, made in zip(SIZES, points, found, strict=True):
        first, second = keys_of(np.array(each), columns, SEED)
        for name in ("salt", "corrections", "turns", "finals"):
            assert bytes_of(made[name]) == np.ascontiguousarray(getattr(first, name)).tobytes(), (columns, name)
        for rank, keys in enumerate((first, second)):
            assert bytes_of(made["seeds"][rank]) == np.ascontiguousarray(keys.seeds).tobytes(), columns


@pytest.mark.parametrize(("points", "columns"), [([-1], 4), ([4], 4), ([0, 9], 9), ([], 4), ([0.5], 4), (["1"], 4)])
def test_points_outside_of_the_row_are_refused(points: list[Any], columns: int) -> None:
    (found,) = core([{"do": "keys", "points": points, "columns": columns, "seed": text_of(SEED)}])
    assert found["error"] == "RangeError" and "one or more points lie in a row" in found["message"]


@pytest.mark.parametrize(("what", "places"), [
    ("getRandomValues", {"streams.js"}), ("Math.random", set()), ("eval(", set()), ("Function(", set()),
    ("fetch(", {"secformer.js"}),  # in its documentation
    ("document", set()), ("window", set()), ("localStorage", set()), ("console", set())])
def test_things_of_the_browser_stay_in_their_place(what: str, places: set[str]) -> None:
    """Randomness has one source, and the core sends, stores, shows and logs nothing."""
    assert {path.name for path in CORE.rglob("*.js") if what in path.read_text("utf-8")} == places


# ---- halves ----------------------------------------------------------------------------------------------------------


def a_batch(inputs: TokenInputs, lengths: list[int]) -> Batch:
    draw = np.random.default_rng(sum(lengths))
    return Batch(tuple(Row(draw.integers(0, inputs.words, n), draw.integers(0, max(1, inputs.segments), n),
                           np.ones(n, np.int64)) for n in lengths))


def job(inputs: TokenInputs, batch: Batch, **more: Any) -> dict[str, Any]:
    readings = [{"ids": row.ids.tolist(), "segments": row.segments.tolist()} for row in batch.rows]
    facts = {"digest": DIGEST, "words": inputs.words, "segments": inputs.segments}
    return {"do": "halves", "facts": facts, "readings": readings, "id": ID} | more


CASES = [*((TokenInputs(words, segments, 128, 8), lengths) for words in (1, 16, 17, 300) for segments in (0, 1, 3)
           for lengths in ([1], [3, 1, 9])), (TokenInputs(4096, 2, 128, 8), [4]), (TokenInputs(33, 2, 128, 8), [128])]


def test_parties_expand_halves_to_the_rows_of_the_tokens() -> None:
    """Each party reads its body as any other; both expansions together are the one-hot rows, and each alone is not."""
    batches = [a_batch(inputs, lengths) for inputs, lengths in CASES]
    found = core([job(inputs, batch) for (inputs, _), batch in zip(CASES, batches, strict=True)])
    for (inputs, lengths), batch, bodies in zip(CASES, batches, found, strict=True):
        halves = [unpack_half(bytes_of(body), inputs=inputs, private=True, rank=rank, max_tokens=512)
                  for rank, body in enumerate(bodies)]
        assert halves[0].shape_digest == halves[1].shape_digest
        assert all(half.request == ID and half.model == DIGEST and half.step is None for half in halves)
        assert halves[0].lengths.tolist() == lengths and np.array_equal(halves[1].mask, batch.mask)
        shares = [inputs.rows(half.keys, KERNELS) for half in halves if half.keys is not None]
        np.testing.assert_array_equal(shares[0] + shares[1], inputs.one_hot(batch, np.uint64))
        assert inputs.words == 1 or not any(np.isin(share, (0, 1)).any() for share in shares)


def test_one_seed_makes_the_halves_that_python_makes() -> None:
    inputs, lengths = TokenInputs(300, 2, 128, 8), [5, 2]
    batch = a_batch(inputs, lengths)
    (bodies,) = core([job(inputs, batch, seed=text_of(SEED))])
    for body, keys in zip(bodies, inputs.keys(batch, SEED), strict=True):
        arrays = load(bytes_of(body))
        assert np.array_equal(arrays["segments"], keys.segments)
        for name in ("salt", "seeds", "corrections", "turns", "finals"):
            np.testing.assert_array_equal(arrays[name], getattr(keys.points, name))


def test_steps_of_a_text_say_where_they_stand() -> None:
    inputs = TokenInputs(300, 0, 128, 8)
    session = "f" * 32
    (bodies,) = core([job(inputs, a_batch(inputs, [4]), step={"session": session, "keep": 17, "last": 1})])
    for rank, body in enumerate(bodies):
        half = unpack_half(bytes_of(body), inputs=inputs, private=True, rank=rank, max_tokens=512)
        assert half.step == StepRequest(session, 17, 1)


def test_the_upload_of_a_real_vocabulary_is_small() -> None:
    inputs = TokenInputs(30_522, 2, 512, 768)
    (bodies,) = core([job(inputs, a_batch(inputs, [128]))])
    for body in map(bytes_of, bodies):
        assert len(body) <= 128 * 500 <= 64_000 and len(body) <= most_bytes(inputs, True, 128)


@pytest.mark.parametrize("rank", [0, 1])
def test_what_one_party_gets_looks_uniform(rank: int) -> None:
    """Every part of one party's bodies over many keys of one word, the first, the last and another, and the low bits of
    two parts and the word, jointly."""
    inputs, many = TokenInputs(71, 2, 4096, 8), 1300
    batches = [Batch((Row(np.full(many, word), np.full(many, word % 2), np.ones(many, np.int64)),))
               for word in (0, 70, 37)]
    found = core([job(inputs, batch, seed=text_of(bytes([i]) * 32)) for i, batch in enumerate(batches)])
    drawn = [load(bytes_of(bodies[rank])) for bodies in found]
    for arrays in drawn:
        for name, bits in (("seeds", 32), ("corrections", 32), ("turns", 2), ("finals", 64), ("segments", 64)):
            for column in arrays[name].reshape(many, -1).T:
                assert looks_uniform(column, bits), name
    token = np.repeat(np.arange(len(batches)), many)
    parts = {name: np.concatenate([arrays[name].reshape(many, -1)[:, -1] for arrays in drawn]).astype(np.uint64) & 3
             for name in ("seeds", "corrections", "turns", "finals", "segments")}
    for a in parts:
        for b in parts:
            if a < b:
                assert chi_square_fits((parts[a] * 4 + parts[b]).astype(np.int64) * len(batches) + token,
                                       16 * len(batches)), (a, b)


def test_nothing_of_a_request_serves_twice() -> None:
    """The same text in many requests: no seed, no salt, no correction, no name of one is in another."""
    inputs = TokenInputs(300, 2, 128, 8)
    batch = a_batch(inputs, [3])
    bodies = [bytes_of(body) for pair in core([job(inputs, batch)] * 40) for body in pair]
    seen: list[bytes] = []
    for body in bodies:
        arrays = load(body)
        size = int.from_bytes(body[:8], "little")
        seen += [row.tobytes() for row in arrays["seeds"]] + [arrays["segments"].tobytes()]
        seen.append(json.loads(body[8 : 8 + size])["__metadata__"]["salt"].encode())
    assert len(set(seen)) == len(seen)
    shared = [load(body)["salt"].tobytes() + load(body)["corrections"].tobytes() for body in bodies[::2]]
    assert len(set(shared)) == len(shared)


# ---- answers ---------------------------------------------------------------------------------------------------------


def answers(shapes: dict[str, tuple[int, ...]], frac: int) -> tuple[Answer, Answer]:
    draw = np.random.default_rng(3)
    words = [{name: draw.integers(0, 2**64, shape, np.uint64) for name, shape in shapes.items()} for _ in (0, 1)]
    for name, each in words[0].items():  # sums of every size, also around what a float64 holds exactly
        wanted = np.array([0, 1, -1, 2**53, 2**53 + 1, -(2**53) - 1, 2**54 + 3, 2**63 - 1, -(2**63), 2**62 + 2**9 + 1],
                          dtype=np.int64).view(np.uint64)
        flat = each.reshape(-1)[: wanted.size]
        flat[:] = wanted[: flat.size] - words[1][name].reshape(-1)[: flat.size]
    costs = [Cost("total", 1.5 + rank, 0.25, 100, 7, 12 + rank, 1, 900 * rank, {
        "layer": Cost("layer", 1.0 + rank, 0.0, 90, 0, 9, 0, 3, {}), f"own{rank}": Cost(f"own{rank}", 0.5)})
        for rank in (0, 1)]
    return Answer(words[0], frac, costs[0]), Answer(words[1], frac, costs[1])


def test_values_and_costs_are_those_of_python_bit_for_bit() -> None:
    jobs, wanted = [], []
    for frac in (4, 16, 24):
        for shapes in ({"logits": (3, 2), "guard": (3, 1)}, {"last_hidden_state": (7, 5)}, {"logits": (1, 0)},
                       {"logits": (2, 3, 4)}):
            pair = answers(shapes, frac)
            bodies = [pack_answer(each, ID) for each in pair]
            jobs.append({"do": "joined", "bodies": [*map(text_of, bodies)], "id": ID, "names": list(shapes),
                         "frac": frac})
            wanted.append((joined(pair, shapes, frac), pair[0].cost.merged(pair[1].cost, parallel=True)))
    for (values, cost), found in zip(wanted, core(jobs), strict=True):
        assert found["cost"] == cost.as_dict()
        assert {name for name, _, _ in found["values"]} == set(values)
        for name, shape, data in found["values"]:
            assert tuple(shape) == values[name].shape and bytes_of(data) == values[name].tobytes(), name


def spoilt() -> dict[str, tuple[list[bytes], str]]:
    """Answers that must not be joined, and what is said of them."""
    first, second = (pack_answer(each, ID) for each in answers({"logits": (2, 2), "guard": (2, 1)}, 16))
    other = pack_answer(answers({"logits": (3, 2), "guard": (2, 1)}, 16)[1], ID)
    fewer = pack_answer(answers({"logits": (2, 2)}, 16)[1], ID)
    arrays = load(second)
    header = json.loads(second[8 : 8 + int.from_bytes(second[:8], "little")])["__metadata__"]

    def made(arrays: dict[str, Any] = arrays, **metadata: str) -> bytes:
        return bytes(save(arrays, metadata=header | metadata))

    def cost(**figures: Any) -> str:
        return json.dumps(json.loads(header["cost"]) | figures)

    return {
        "of another request": ([first, pack_answer(answers({"logits": (2, 2), "guard": (2, 1)}, 16)[1], "e" * 32)],
                               "it answers request eee"),
        "of other shapes": ([first, other], "halves of logits have shapes"),
        "of other results": ([first, fewer], "party 1 answered with logits, but the model has guard, logits"),
        "of another scale": ([first, made(frac="15")], "15 fractional bits"),
        "of another form": ([first, made(format="secformer answer 9")], "its form is not"),
        "of other types": ([first, made({n: w.view(np.int64) for n, w in arrays.items()})], "shares are U64"),
        "with a cost that is none": ([first, made(cost="{}")], "a cost has numbers"),
        "with a text as a figure": ([first, made(cost=cost(rounds="9"))], "a cost has numbers"),
        "with half a round": ([first, made(cost=cost(rounds=0.5))], "a cost has numbers"),
        "with a cost that is no JSON": ([first, made(cost="{")], "cannot be read"),
        "cut off": ([first, second[:-8]], "not a safetensors file"),
        "longer": ([first, second + b"\0" * 8], "not a safetensors file"),
        "empty": ([b"", second], "not a safetensors file"),
        "with a header of no length": ([first, b"\xff" * 64], "not a safetensors file"),
        "with a list as its header": ([first, (2).to_bytes(8, "little") + b"[]"], "not a safetensors file"),
        "with overlapping arrays": ([first, overlapping()], "not a safetensors file"),
        "of a request": ([first, save({"logits": arrays["logits"]}, metadata={"format": "secformer request 2"})],
                         "its form is not"),
    }


def overlapping() -> bytes:
    place = {"dtype": "U64", "shape": [1], "data_offsets": [0, 8]}
    header = json.dumps({"a": place, "b": place}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(8)


def test_answers_that_do_not_belong_together_are_refused() -> None:
    cases = spoilt()
    found = core([{"do": "joined", "bodies": [*map(text_of, bodies)], "id": ID, "names": ["logits", "guard"],
                   "frac": 16} for bodies, _ in cases.values()])
    for (what, (_, said)), result in zip(cases.items(), found, strict=True):
        assert result.get("error") == "ProtocolError" and said in result["message"], (what, result)


def test_bodies_that_python_wrote_come_back_from_the_container() -> None:
    body = pack_answer(answers({"logits": (2, 3), "guard": (2, 1)}, 16)[0], ID)
    (again,) = core([{"do": "repacked", "body": text_of(body)}])
    assert unpack_answer(bytes_of(again), ID).words.keys() == {"logits", "guard"}
    for name, words in load(body).items():
        np.testing.assert_array_equal(load(bytes_of(again))[name], words)


def test_altered_answers_are_joined_or_refused_and_nothing_else() -> None:
    """Bytes of an answer's length, header and words, changed at random: what is refused is a ProtocolError."""
    first, second = (pack_answer(each, ID) for each in answers({"logits": (2, 2), "guard": (2, 1)}, 16))
    draw, jobs = np.random.default_rng(9), list[dict[str, Any]]()
    for _ in range(600):
        altered = bytearray(second)
        for _ in range(int(draw.integers(1, 4))):
            altered[int(draw.integers(0, 8 if draw.random() < 0.1 else len(altered)))] = int(draw.integers(0, 256))
        kept = bytes(altered[: int(draw.integers(0, len(altered)))] if draw.random() < 0.1 else altered)
        jobs.append({"do": "joined", "bodies": [text_of(first), text_of(kept)], "id": ID, "names": ["logits", "guard"],
                     "frac": 16})
    refused = [result for result in core(jobs) if "error" in result]
    assert {result["error"] for result in refused} == {"ProtocolError"} and 50 < len(refused) < 590
