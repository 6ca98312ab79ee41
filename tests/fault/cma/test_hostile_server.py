"""A process of our own user that answers in the target's place, and lies."""

from __future__ import annotations

import mmap
import os
import socket
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline.backend.plugins.cma import CmaBackend, CmaPeer
from trunkline.backend.plugins.cma.greeting import Greeting, encode_greeting, encode_info, socket_name
from trunkline.testing.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="cross-memory attach is Linux's")

HERE = np.frombuffer(b"sixteen bytes ok", np.uint8).copy()


class Liar:
    """Listens where the connection info says, and sends whatever it is told to."""

    def __init__(self) -> None:
        key = os.urandom(16)
        self.info = encode_info(key)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(b"\0" + socket_name(key))
        self._listener.listen()
        self._accepted: list[socket.socket] = []

    def answer(self, data: bytes) -> None:
        self._accepted.append(self._listener.accept()[0])
        self._accepted[-1].send(data)

    def hang_up(self) -> None:
        for each in self._accepted:
            each.close()

    def close(self) -> None:
        self.hang_up()
        self._listener.close()


@pytest.fixture
def backend() -> Iterator[CmaBackend]:
    made = CmaBackend("initiator")
    yield made
    made.close()


@pytest.fixture
def liar() -> Iterator[Liar]:
    made = Liar()
    yield made
    made.close()


def lied_to(backend: CmaBackend, liar: Liar, data: bytes) -> CmaPeer:
    peer = backend.load_peer("target", liar.info)
    assert peer.obstacle == "the peer has not answered yet"
    liar.answer(data)
    peer.connect(PATIENCE)  # no proof that it is dead
    assert peer.failure is None
    return peer


@pytest.mark.parametrize(
    "data", [b"x", b"TLCM", b"y" * 44, b"TLCM\x01" + b"z" * 60_000, b"TLCM\x02" + bytes(60)], ids=len
)
def test_garbage(backend: CmaBackend, liar: Liar, data: bytes) -> None:
    assert "is none of ours" in (lied_to(backend, liar, data).obstacle or "")


def test_random_mutants_of_a_greeting_are_obstacles(backend: CmaBackend, liar: Liar) -> None:
    genuine = encode_greeting(Greeting(HERE.ctypes.data, HERE.tobytes(), "target"))
    random = np.random.default_rng(1)
    for _ in range(300):
        mutant = bytearray(genuine)
        mutant[random.integers(len(mutant))] ^= 1 << random.integers(8)
        assert lied_to(backend, liar, bytes(mutant)).obstacle is not None
        liar.hang_up()


@pytest.mark.parametrize("address", [0, 4096, 2**47, 2**64 - 8])
def test_an_address_that_is_not_mapped(backend: CmaBackend, liar: Liar, address: int) -> None:
    peer = lied_to(backend, liar, encode_greeting(Greeting(address, bytes(16), "target")))
    assert peer.obstacle == f"process {os.getpid()} does not hold the nonce that it sent: it is another than it says"


def test_an_address_that_may_not_be_read(backend: CmaBackend, liar: Liar) -> None:
    import ctypes

    page = mmap.mmap(-1, mmap.PAGESIZE)
    view = np.frombuffer(page, np.uint8)
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(view.ctypes.data), mmap.PAGESIZE, 0) == 0
    peer = lied_to(backend, liar, encode_greeting(Greeting(view.ctypes.data, bytes(16), "target")))
    assert "does not hold the nonce" in (peer.obstacle or "")


def test_another_nonce_than_the_one_there(backend: CmaBackend, liar: Liar) -> None:
    peer = lied_to(backend, liar, encode_greeting(Greeting(HERE.ctypes.data, b"another nonce!!!", "target")))
    assert "does not hold the nonce" in (peer.obstacle or "")


def test_hanging_up_without_an_answer_is_tried_again(backend: CmaBackend, liar: Liar) -> None:
    peer = backend.load_peer("target", liar.info)
    liar._accepted.append(liar._listener.accept()[0])
    liar.hang_up()
    peer.connect(PATIENCE)
    assert "hung up" in (peer.obstacle or "")
    peer._retry_at = 0.0  # what the passing of time comes to
    assert peer.obstacle == "the peer has not answered yet"
    liar.answer(encode_greeting(Greeting(HERE.ctypes.data, HERE.tobytes(), "target")))
    peer.connect(PATIENCE)
    assert peer.obstacle is None  # who tells the truth about its own memory is believed


def test_talking_on_after_the_greeting_ends_it(backend: CmaBackend, liar: Liar) -> None:
    peer = lied_to(backend, liar, encode_greeting(Greeting(HERE.ctypes.data, HERE.tobytes(), "target")))
    assert peer.obstacle is None
    liar._accepted[-1].send(b"more")
    assert "has ended, or has closed" in (peer.obstacle or "")
    assert backend.take_failed_peers() == [peer]
