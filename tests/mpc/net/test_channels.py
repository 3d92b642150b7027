"""One suite over channels: the pair inside one process and plain TCP."""

from __future__ import annotations

import gc
import socket
import struct
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_lab import PAIRS, examples, kept, tcp_pair

from secformer.mpc.errors import Desync, PeerLost, SettingsError
from secformer.mpc.net.channel import local_pair
from secformer.mpc.net.tcp import QUIET, listening, unsafe_connect, unsafe_listen
from secformer.mpc.net.wire import ABORT, HEADER_BYTES, MAX_ABORT, Tag, pack_header

TAG = Tag(1, "product", 48, 4)


def payload(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size=n, dtype=np.uint8)


def test_messages_arrive_whole_and_in_order(pair: Any) -> None:
    a, b = pair("a", "b")
    for i, n in enumerate([1, 0, 7, 65536, 3, 0]):
        a.send(Tag(i, "x", 8, n), payload(n, i))
    for i, n in enumerate([1, 0, 7, 65536, 3, 0]):
        got = b.receive(Tag(i, "x", 8, n), n)
        assert got.dtype == np.uint8
        np.testing.assert_array_equal(got, payload(n, i))
    b.send(TAG, payload(24))
    np.testing.assert_array_equal(a.receive(TAG, 24), payload(24))
    a.close()
    b.close()


@examples(20)
@given(
    sizes=st.lists(st.integers(0, 5000), max_size=8),
    kind=st.sampled_from(sorted(PAIRS)),
    verb=st.text("abcxyz_019.", max_size=16),
)
def test_any_sequence_both_ways(sizes: list[int], kind: str, verb: str) -> None:
    a, b = PAIRS[kind]("a", "b")
    for i, n in enumerate(sizes):
        a.send(Tag(i, verb, 64, n), payload(n, i))
        b.send(Tag(i, verb, 1, n), payload(n, i + 100))
    for i, n in enumerate(sizes):
        np.testing.assert_array_equal(b.receive(Tag(i, verb, 64, n), n), payload(n, i))
        np.testing.assert_array_equal(a.receive(Tag(i, verb, 1, n), n), payload(n, i + 100))
    a.close()
    b.close()


def test_large_messages_cross_without_deadlock(pair: Any) -> None:
    ends, n = pair("a", "b"), 1 << 24
    tag = Tag(1, "big", 8, n)

    def exchange(k: int) -> Any:
        ends[k].send(tag, np.full(n, k, dtype=np.uint8))
        return ends[k].receive(tag, n)

    with ThreadPoolExecutor(2) as pool:
        got = list(pool.map(exchange, (0, 1)))
    assert got[0].min() == got[0].max() == 1
    assert got[1].min() == got[1].max() == 0
    for end in ends:
        end.close()


def test_an_array_that_is_not_contiguous(pair: Any) -> None:
    a, b = pair("a", "b")
    data = payload(20)[::2]
    a.send(TAG, data)
    np.testing.assert_array_equal(b.receive(TAG, 10), data)
    a.close()
    b.close()


@pytest.mark.parametrize(
    "other", [Tag(2, "product", 48, 4), Tag(1, "truncate", 48, 4), Tag(1, "product", 40, 4), Tag(1, "product", 48, 5)]
)
def test_a_different_message_is_a_desync_on_both_sides(pair: Any, other: Tag) -> None:
    a, b = pair("side a", "side b", deadline=5.0)
    a.send(other, payload(24))
    with pytest.raises(Desync) as caught:
        b.receive(TAG, 24)
    assert str(other) in str(caught.value)
    assert str(TAG) in str(caught.value)
    assert "side a" in str(caught.value)
    with pytest.raises(Desync) as caught:
        a.receive(TAG, 24)
    assert "gave up" in str(caught.value)
    assert str(other) in str(caught.value)
    a.close()
    b.close()


def test_a_different_size_is_a_desync(pair: Any) -> None:
    a, b = pair("a", "b", deadline=5.0)
    a.send(TAG, payload(23))
    with pytest.raises(Desync, match=r"24 bytes.*23 bytes"):
        b.receive(TAG, 24)
    a.close()
    b.close()


def test_what_was_sent_before_closing_still_arrives(pair: Any) -> None:
    a, b = pair("a", "b", deadline=5.0)
    a.send(TAG, payload(1000))
    a.close()
    np.testing.assert_array_equal(b.receive(TAG, 1000), payload(1000))
    with pytest.raises(PeerLost, match="a closed"):
        b.receive(TAG, 1000)
    b.close()


def test_abort_tells_why_after_what_was_sent(pair: Any) -> None:
    a, b = pair("a", "b", deadline=5.0)
    a.send(TAG, payload(5))
    a.abort("the kettle boiled: 100 °C")
    np.testing.assert_array_equal(b.receive(TAG, 5), payload(5))
    with pytest.raises(Desync, match="the kettle boiled: 100 °C"):
        b.receive(TAG, 5)
    b.close()


def test_a_sender_learns_why_its_peer_gave_up() -> None:
    """The side that only sends must hear the story too, not just that the line is dead."""
    a, b = local_pair("a", "b", deadline=5.0)
    a.abort("the kettle boiled")
    with pytest.raises(Desync, match="the kettle boiled"):
        b.send(TAG, payload(5))


def test_silence_ends_at_the_deadline(pair: Any) -> None:
    a, b = pair("a", "b", deadline=0.1)
    with pytest.raises(PeerLost, match=r"a sent nothing for 0\.1 s"):
        b.receive(TAG, 24)
    a.close()
    b.close()


def test_a_waiting_receiver_wakes_when_the_peer_goes(pair: Any) -> None:
    a, b = pair("a", "b", deadline=30.0)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(b.receive, TAG, 24)
        a.abort("enough")
        with pytest.raises(Desync, match="enough"):
            waiting.result(timeout=20)
    b.close()


def test_ending_twice_is_harmless(pair: Any) -> None:
    a, b = pair("a", "b", deadline=5.0)
    for _ in range(2):
        a.close()
        a.abort("again")
        b.abort("again")
        b.close()


def test_sending_after_closing_is_an_error(pair: Any) -> None:
    a, b = pair("a", "b", deadline=5.0)
    a.close()
    with pytest.raises((PeerLost, Desync)):
        a.send(TAG, payload(3))
    b.close()


def test_capacity_bounds_what_waits() -> None:
    a, b = local_pair("a", "b", capacity=100, deadline=0.1)
    a.send(TAG, payload(60))
    with pytest.raises(PeerLost, match=r"took nothing for 0\.1 s"):
        a.send(TAG, payload(60))
    b.receive(TAG, 60)
    a.send(TAG, payload(1000))  # an empty queue takes a message of any size
    assert b.receive(TAG, 1000).size == 1000


def test_a_blocked_sender_goes_on_when_the_peer_reads() -> None:
    a, b = local_pair("a", "b", capacity=10, deadline=20.0)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(lambda: [a.send(Tag(i, "x", 8, 9), payload(9, i)) for i in range(50)])
        for i in range(50):
            np.testing.assert_array_equal(b.receive(Tag(i, "x", 8, 9), 9), payload(9, i))
        done.result(timeout=10)


# ---- bytes that are not frames, over TCP ----------------------------------------------------------------------------


def raw_peer(*chunks: bytes, deadline: float = 5.0) -> Any:
    """A channel whose peer is a bare socket that writes these bytes and closes."""
    port, accept = unsafe_listen("127.0.0.1", 0, "a stranger", deadline=deadline)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(accept)
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            channel = kept(first.result())
            for chunk in chunks:
                stranger.sendall(chunk)
    return channel


@pytest.mark.parametrize(
    "junk",
    [
        b"GET / HTTP/1.1\r\nHost: example\r\n\r\n" + bytes(60),
        bytes(HEADER_BYTES),
        b"\xff" * 500,
        b"SFR2" + bytes(HEADER_BYTES),
    ],
)
def test_garbage_is_a_desync(junk: bytes) -> None:
    channel = raw_peer(junk)
    with pytest.raises(Desync, match="same version"):
        channel.receive(TAG, 24)
    channel.close()


@examples(20)
@given(junk=st.binary(max_size=200))
def test_no_bytes_hang_or_crash_a_receiver(junk: bytes) -> None:
    channel = raw_peer(junk)
    with pytest.raises((Desync, PeerLost)):
        channel.receive(TAG, 24)
    channel.close()


@pytest.mark.parametrize("cut", [0, 1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 10])
def test_a_connection_that_ends_mid_message_is_lost(cut: int) -> None:
    channel = raw_peer((pack_header(TAG, 24) + bytes(24))[:cut])
    with pytest.raises(PeerLost, match="closed the connection"):
        channel.receive(TAG, 24)
    channel.close()


def test_a_huge_claim_is_refused_before_memory_is_asked_for() -> None:
    channel = raw_peer(pack_header(TAG, 1 << 60))
    with pytest.raises(Desync):
        channel.receive(TAG, 24)
    channel.close()


def test_an_abort_may_be_long_broken_or_not_text() -> None:
    channel = raw_peer(pack_header(Tag(0, "abort", 8, 0), 1 << 40, ABORT) + b"\xff\xfe" * MAX_ABORT)
    with pytest.raises(Desync, match="gave up"):
        channel.receive(TAG, 24)
    channel.close()
    channel = raw_peer(pack_header(Tag(0, "abort", 8, 9), 9, ABORT) + b"half")
    with pytest.raises(PeerLost):
        channel.receive(TAG, 24)
    channel.close()


def test_a_frame_in_single_bytes_is_a_frame() -> None:
    frame = pack_header(TAG, 24) + payload(24).tobytes()
    channel = raw_peer(*(bytes([b]) for b in frame))
    np.testing.assert_array_equal(channel.receive(TAG, 24), payload(24))
    channel.close()


def test_a_peer_that_resets_is_lost() -> None:
    port, accept = unsafe_listen("127.0.0.1", 0, "a stranger", deadline=5.0)
    stranger = socket.create_connection(("127.0.0.1", port))
    channel = kept(accept())
    stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stranger.close()
    with pytest.raises(PeerLost):
        channel.receive(TAG, 24)
    with pytest.raises(PeerLost):
        for _ in range(200):
            channel.send(TAG, payload(1 << 16))
    channel.close()


def test_nobody_connects_and_nobody_listens() -> None:
    port, accept = unsafe_listen("127.0.0.1", 0, "party 1", deadline=0.1)
    with pytest.raises(PeerLost, match="party 1 did not connect"):
        accept()
    with pytest.raises(PeerLost, match="does not answer"):
        unsafe_connect("127.0.0.1", port, "party 0", deadline=0.1)


def test_forgotten_channels_close_their_sockets() -> None:
    port, accept = unsafe_listen("127.0.0.1", 0, "b", deadline=5.0)
    second = unsafe_connect("127.0.0.1", port, "a", deadline=5.0)
    first = accept()
    for end in (first, second):
        end.close()
        end.cycle = end  # type: ignore[attr-defined]
    del first, second, end
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gc.collect()
    assert [w.category for w in caught] == []


def test_writer_threads_end() -> None:
    before = set(threading.enumerate())
    a, b = tcp_pair("a", "b")
    a.send(TAG, payload(3))
    b.receive(TAG, 3)
    a.close()
    b.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)
        assert not thread.is_alive()


def ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "::"])
def test_addresses_of_both_families_are_listened_on(host: str) -> None:
    if ":" in host and not ipv6():
        pytest.skip("no IPv6 here")
    with listening((host, 0)) as server:
        port = server.getsockname()[1]
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_connection(("::1" if ":" in host else "127.0.0.1", port)) as client:
            assert client.family == server.family == family
        with pytest.raises(SettingsError, match=f"cannot listen on {host}:{port}"):
            listening((host, port))


def test_quiet_connections_are_kept_awake() -> None:
    """A slot's connection may be quiet for hours, and firewalls forget what is quiet."""
    a, b = tcp_pair("a", "b")
    connection = a._stream
    assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    if hasattr(socket, "TCP_KEEPIDLE"):
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == QUIET
    for each in (a, b):
        each.close()
