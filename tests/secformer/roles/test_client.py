"""One client's model, used by several threads, and closed while it asks; and texts that are refused here."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from roles_lab import LONG, TEXT, right, serials, until

from secformer import RemoteModel, connect
from secformer.mpc.errors import InputError, ProtocolError, SettingsError
from secformer.roles.trial import LocalRoles


@pytest.fixture
def remote(up: LocalRoles) -> Iterator[RemoteModel]:
    with connect(up.settings("client")) as model:
        yield model


def test_every_thread_gets_its_answer(remote: RemoteModel) -> None:
    questions = ["Bad.", ["Dull.", "A fine film."], TEXT, "so so"]
    with ThreadPoolExecutor(4) as threads:
        for question, out in zip(questions, threads.map(remote.infer, questions), strict=True):
            right(out, question)


def test_texts_that_are_not_unicode_are_refused_before_anything_is_sent(up: LocalRoles, remote: RemoteModel) -> None:
    before = serials(up, "dealer")
    with pytest.raises(InputError, match=r"text 1 is not valid Unicode: character 1 .*U\+DC00"):
        remote.infer(["fine", "a\udc00"])
    assert serials(up, "dealer") == before
    right(remote.infer(TEXT))


def test_closing_abandons_the_request_of_another_thread(up: LocalRoles, remote: RemoteModel) -> None:
    found: list[BaseException] = []

    def ask() -> None:
        try:
            remote.infer(LONG)
        except BaseException as error:
            found.append(error)

    before = len(serials(up, "party0"))
    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: len(serials(up, "party0")) > before)
    remote.close()
    asking.join(60)
    assert not asking.is_alive() and len(found) == 1 and isinstance(found[0], ProtocolError | SettingsError), found
    with pytest.raises(SettingsError, match="this RemoteModel is closed; open it again with connect"):
        remote.infer(TEXT)
    remote.close()


def test_a_callback_cannot_ask_again(remote: RemoteModel) -> None:
    with pytest.raises(SettingsError, match="progress callback"):
        remote.infer(TEXT, progress=lambda *_: remote.infer(TEXT))
    right(remote.infer(TEXT))
