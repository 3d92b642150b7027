"""A client's connections to the parties: HTTPS, where each server must prove that it is this party."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from dataclasses import replace
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead, RemoteDisconnected
from typing import Any, TypeVar

from secformer.mpc.errors import InputError, PeerLost, ProtocolError, SecformerError
from secformer.mpc.net.tls import HUNG_UP, RETRY, CertificateRefused, Context, hang_up, host_name
from secformer.mpc.strict_json import read_own
from secformer.roles.formats import require_format
from secformer.roles.messages import Answer, Exchanged, Half, body_digest, pack_half, unpack_answer
from secformer.roles.receipts import HEADER as RECEIPT
from secformer.roles.telling import NOT_TOLD, STATUS, Told
from secformer.roles.traces import HEADER as TRACE
from secformer.roles.traces import header_of

T = TypeVar("T")
KNOCKING = 20.0  # seconds for which a client that was hung up on tries to get in
GRACE = 10.0  # seconds after the deadline in which a party may still report that the deadline has passed
BODY = "application/octet-stream"
REQUEST_ID = "X-Request-Id"  # tells a party, before the body has arrived, which half comes
MAX_ERROR = 1 << 16  # bytes: longer descriptions of errors are cut
MAX_TOKEN = 1 << 22  # bytes of an answer for each position of a request: more than any vocabulary's logits take
MAX_COST = 1 << 20   # bytes of the rest of an answer
MAX_MODEL = 1 << 28  # bytes of a model's description
DUPLICATE = "duplicate"  # the kind of refusal of a request whose id a party knows
HELLO = "/v1/hello"  # the small question that a party answers on a new connection


class Busy(ProtocolError):
    """A party is not ready, or has no room for the request. Try again later.

    after  seconds after which this client's own limit there may allow it; None where the party names no limit
    """

    def __init__(self, message: str, after: float | None = None):
        super().__init__(message)
        self.after = after


class _Silent(PeerLost):
    """A party did not answer in time. To ask again would take as long once more, under an id that it knows."""


class _SentBefore(ProtocolError):
    """A party knows the id of the request."""


class _Untold(ProtocolError):
    """A party does not tell how it does."""


class Left(ProtocolError):
    """This client hung up because the other party failed."""


class Sent:
    """The body of a request, and its digest once that was computed."""

    def __init__(self, content: bytes = b""):
        self.content, self.digest = content, ""

    def hash(self) -> None:
        """Computes the digest, if that was not done."""
        self.digest = self.digest or body_digest(self.content)


def _body(response: HTTPResponse, most: int) -> bytes:
    """The body of an answer: at most one byte more than `most`. Raises HTTPException for one that is cut off."""
    content = response.read(most + 1)
    if response.length and len(content) <= most:
        raise IncompleteRead(content, response.length)
    return content


class PartyConnection:
    """One party, as a client reaches it. The connection is kept between requests; a lost one is replaced."""

    def __init__(self, rank: int, address: tuple[str, int], context: Context, deadline: float, grace: float = GRACE):
        """`deadline` seconds for an answer, and `grace` for a party to report that they have passed."""
        self._role, self._address, self._context = f"party{rank}", address, context
        self._deadline, self._grace = deadline, grace
        self._connection: HTTPConnection | None = None
        self._left = False

    def model(self) -> str:
        """The digest of the model that the party holds."""
        _, body = self._exchange("GET", "/v1/model", Sent(), most=MAX_MODEL)
        try:
            return str(read_own(body)["digest"])
        except (ValueError, KeyError, TypeError) as error:
            raise ProtocolError(f"{self._role} sent a description of its model that cannot be read ({error}); does it "
                                f"run the same version?") from error

    def status(self) -> Told | None:
        """How the party does; None where it does not tell, or is of a version that could not. Raises as `infer`."""
        try:
            _, body = self._exchange("GET", STATUS, Sent())
        except _Untold:
            return None
        try:
            return Told.read(read_own(body))
        except (ValueError, KeyError, TypeError) as error:
            raise ProtocolError(f"{self._role} sent a status that cannot be read ({type(error).__name__}: {error}); "
                                f"does it run another version?") from error

    def infer(self, half: Half) -> Answer:
        """The party's half of the answer. Raises ProtocolError, PeerLost, InputError."""
        body = Sent(pack_half(half))
        headers = {REQUEST_ID: half.request} | ({TRACE: header_of(half.trace, half.request)} if half.trace else {})
        response, content = self._exchange("POST", "/v1/infer", body, headers,
                                           most=MAX_COST + half.mask.size * MAX_TOKEN)
        return replace(unpack_answer(content, half.request), exchanged=Exchanged(
            body.digest, body_digest(content), response.headers.get(RECEIPT)))

    def end(self, session: str) -> None:
        """Ends a session of this client, if there is one: on a connection of its own, and without patience. Raises as
        `infer`."""
        patience, self._deadline = self._deadline, 0.0
        try:
            self.close()
            self._exchange("DELETE", f"/v1/sessions/{session}", Sent())
        finally:
            self._deadline = patience
            self.close()

    def hang_up(self) -> None:
        """Ends a request that runs in another thread. Until `resume`, the next requests end at once."""
        self._left = True
        if (connection := self._connection) is not None and connection.sock is not None:
            hang_up(connection.sock)

    def resume(self) -> None:
        """Allows requests again after `hang_up`."""
        self._left = False

    def close(self) -> None:
        """Closes the connection. No request may be running."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _exchange(self, method: str, path: str, body: Sent,
                  headers: Mapping[str, str] | None = None, *, most: int = MAX_COST) -> tuple[HTTPResponse, bytes]:
        """What the party answers, at most `most` bytes."""
        if self._outdated():
            self.close()
        kept = self._connection is not None
        try:
            return self._once(method, path, body, headers or {}, most)
        except PeerLost as error:
            if not kept or self._left or isinstance(error, _Silent):
                raise
            lost = error
        try:
            return self._once(method, path, body, headers or {}, most)  # the party had hung up since the last one
        except _SentBefore as error:
            raise PeerLost(f"{self._role} at {self._shown} hung up in the middle of a request that it had taken, so "
                           f"the answer is lost; ask again ({lost})") from error

    def _outdated(self) -> bool:
        """Whether the kept connection was made with a certificate that this client has replaced since, or that does
        not hold any more at the party."""
        if self._connection is None or self._connection.sock is None:
            return False
        sock: Any = self._connection.sock
        return sock.context is not self._context.successor() or bool(self._context.objection(sock.getpeercert()))

    def _once(self, method: str, path: str, body: Sent, headers: Mapping[str, str],
              most: int) -> tuple[HTTPResponse, bytes]:
        try:
            connection = self._connection or self._connect()
            if self._left:
                raise ConnectionAbortedError
            connection.request(method, path, body.content, {"Content-Type": BODY, **headers})
            body.hash()  # while the party computes
            response = connection.getresponse()
            content = _body(response, most if response.status == 200 else MAX_ERROR)
        except SecformerError:  # the party's answer to a knock
            self.close()
            raise
        except (OSError, HTTPException, AttributeError, ValueError) as error:
            self.close()
            if self._left:
                raise Left(f"the request to {self._role} was abandoned") from error
            if isinstance(error, CertificateRefused):
                raise ProtocolError(f"the server at {self._shown} is not {self._role}: {error.verify_message}; "
                                    f"check the address and the certificates") from error
            if isinstance(error, TimeoutError):
                raise _Silent(f"{self._role} at {self._shown} did not answer within "
                              f"{self._deadline + self._grace:g} s") from error
            raise PeerLost(f"{self._role} at {self._shown} does not answer or hung up ({error}); check that it is "
                           f"running and, in its log, that it accepts this client's certificate") from error
        if response.status != 200:
            if len(content) > MAX_ERROR:
                self.close()  # the rest was not read
            raise self._problem(response, content[:MAX_ERROR])
        if len(content) > most:
            self.close()
            raise ProtocolError(f"{self._role} sent more than the {most} bytes that an answer may have")
        return response, content

    def _connect(self) -> HTTPConnection:
        """A connection on which the party has answered a first, small question: this client is let in. If strangers
        were in the way, it is tried again for `KNOCKING` seconds; a request itself is never sent twice for that."""
        end, pause = time.monotonic() + min(KNOCKING, self._deadline), RETRY[0]
        while True:
            try:
                return self._knock()
            except HUNG_UP as error:
                self.close()
                if isinstance(error, RemoteDisconnected):  # hung up in order, as on whose certificate was refused
                    raise
                if self._left or time.monotonic() + pause > end:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, RETRY[1])

    def _knock(self) -> HTTPConnection:
        connection = self._connection = HTTPConnection(*self._address, timeout=self._deadline + self._grace)
        connection.connect()
        context = self._context.successor()
        secured = context.wrap_socket(connection.sock, server_hostname=host_name(self._role))
        connection.sock = secured
        if problem := context.objection(secured.getpeercert()):
            raise ProtocolError(f"the certificate of {self._role} at {self._shown} {problem}; ask its operator")
        connection.request("GET", HELLO)
        response = connection.getresponse()
        content = _body(response, MAX_COST)
        if response.status != 200:
            raise self._problem(response, content[:MAX_ERROR])
        require_format(content, f"{self._role} at {self._shown}")
        return connection

    def _problem(self, response: HTTPResponse, content: bytes) -> SecformerError:
        status = response.status
        try:
            facts: Any = read_own(content)["error"]
            kind, message = facts.get("kind"), str(facts["message"])
        except (ValueError, KeyError, TypeError, AttributeError):
            kind, message = None, content.decode("utf-8", "replace").strip()[:200] or "no reason given"
        text = f"{self._role} answered {status}: {message}"
        if status == 429:
            after = response.headers.get("Retry-After", "")
            return Busy(text, float(after) if after.isascii() and after.isdigit() else None)
        if status == 409 and kind == DUPLICATE:
            return _SentBefore(text)
        if status == 404 or (status == 403 and kind == NOT_TOLD):
            return _Untold(text)
        return InputError(text) if status in (400, 413) else Busy(text) if status == 503 else ProtocolError(text)

    @property
    def _shown(self) -> str:
        return f"{self._address[0]}:{self._address[1]}"


class BothParties:
    """A connection to each party, for one request at a time: both parties are asked at once."""

    def __init__(self, addresses: Sequence[tuple[str, int]], context: Context, deadline: float):
        self.parties = [PartyConnection(rank, address, context, deadline) for rank, address in enumerate(addresses)]
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="to a party")
        self._gone = threading.Event()

    def ask(self, question: Callable[[PartyConnection, int], T]) -> tuple[T, T]:
        """Both parties' answers to (connection, rank). If one party fails, this does not wait for the other.

        Raises Left after `hang_up`, until `resume`, and after `close`.
        """
        try:
            running = [self._threads.submit(question, party, rank) for rank, party in enumerate(self.parties)]
        except RuntimeError as closed:
            raise Left("this client was closed while another thread used it") from closed
        try:
            return self._answers(running)
        except SecformerError:
            raise
        except BaseException:  # such as Ctrl-C
            self.hang_up()
            wait(running, GRACE)  # so that none of them tries again after `resume`
            raise

    def patiently(self, attempt: Callable[[], T], patience: float) -> T:
        """What an attempt gives. While a party says that this client is at a limit, it is tried again, for up to
        `patience` seconds. Each attempt must ask under a new id. Raises as `ask`, and Busy."""
        end = time.monotonic() + patience
        while True:
            try:
                return attempt()
            except Busy as busy:
                if busy.after is None or time.monotonic() + busy.after > end or self._gone.wait(busy.after):
                    raise
                for party in self.parties:
                    party.resume()
                if self._gone.is_set():
                    self.hang_up()

    def _answers(self, running: Sequence[Future[T]]) -> tuple[T, T]:
        problems: list[SecformerError] = []
        for future in as_completed(running):
            error = future.exception()
            if error is not None:
                for party, other in zip(self.parties, running, strict=True):
                    if not other.done():
                        party.hang_up()
                if not isinstance(error, SecformerError):
                    raise error
                problems.append(error)
        told = [p for p in problems if not isinstance(p, Left)] or problems
        if told:
            first, text = told[0], "; ".join(dict.fromkeys(map(str, told)))
            raise (Busy(text, first.after) if isinstance(first, Busy) else type(first)(text)) from first
        return running[0].result(), running[1].result()

    def hang_up(self) -> None:
        """Ends a request that runs in another thread. Until `resume`, the next requests end at once."""
        self._gone.set()
        for party in self.parties:
            party.hang_up()

    def resume(self) -> None:
        """Allows requests again after `hang_up`, or after a request in which a party failed."""
        self._gone.clear()
        for party in self.parties:
            party.resume()

    def close(self) -> None:
        """Hangs up, and ends the threads."""
        self.hang_up()
        self._threads.shutdown(wait=True)
        for party in self.parties:
            party.close()
