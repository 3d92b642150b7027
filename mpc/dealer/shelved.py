"""A run's corrections as they lie in a store: each with its tag before it and an authenticator behind it."""

from __future__ import annotations

from typing import Any, BinaryIO

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.poly1305 import Poly1305

from secformer.mpc.dealer.plan import Plan
from secformer.mpc.errors import StoreError
from secformer.mpc.net.channel import Channel
from secformer.mpc.net.wire import HEADER_BYTES, Tag, pack_header
from secformer.mpc.prg import derive

MAC_BYTES = 16


class Shelved(Channel):
    """Reads one run's corrections back; refuses what was altered, moved or cut."""

    def __init__(self, file: BinaryIO, seed: bytes, label: str, name: str):
        super().__init__("the store")
        self._file, self._seed, self._label, self._name = file, seed, label, name

    def receive(self, tag: Tag, nbytes: int) -> Any:
        header, payload = self._file.read(HEADER_BYTES), self.buffer(nbytes)
        read = self._file.readinto(payload.data)  # type: ignore[attr-defined]
        mac = self._file.read(MAC_BYTES)
        try:
            if header != pack_header(tag, nbytes) or read != nbytes:
                raise InvalidSignature
            check = Poly1305(_key(self._seed, self._name, tag))
            check.update(header)
            check.update(payload.data)
            check.verify(mac)
        except InvalidSignature:
            raise StoreError(f"{self._label}, {tag}: the stored correction was altered or cut; remove the store's "
                             f"files and deal again") from None
        return payload

    def send(self, tag: Tag, payload: Any) -> None:
        raise StoreError("a store is only read during a run")

    def abort(self, reason: str) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()


def run_bytes(plan: Plan) -> int:
    """Bytes that one run of a plan takes in a store."""
    return sum(HEADER_BYTES + nbytes + MAC_BYTES for _, nbytes in plan.corrections())


def mac(seed: bytes, run: str, tag: Tag, header: bytes, payload: Any) -> bytes:
    """The authenticator of one correction of a run."""
    made = Poly1305(_key(seed, run, tag))
    made.update(header)
    made.update(payload)
    return made.finalize()


def _key(seed: bytes, run: str, tag: Tag) -> bytes:
    """A key for one message: a Poly1305 key serves once."""
    return derive(seed, "store", run, tag.step, tag.verb)
