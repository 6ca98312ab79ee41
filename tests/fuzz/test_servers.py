"""Mutated frames over real sockets: whatever strangers sent, the next good client is served."""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.fuzz.formats.exchange import OFFER
from tests.fuzz.formats.metadata import CARD, METADATA
from tests.fuzz.mutation import mutate
from tests.fuzz.target import stream

from trunkline.exchange.address import Address
from trunkline.exchange.client import FrameClients
from trunkline.exchange.nixl_message import INVALIDATE, LOAD, MAX_BYTES, SEND, NixlMessage, decode_message
from trunkline.metadata.codec import decode
from trunkline.nixl import nixl_agent, nixl_agent_config
from trunkline.offer.direct import DirectOffer, DirectTaking
from trunkline.offer.manifest import Manifest
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

STRANGERS = 200


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "trunkline")


def send_mutants(address: Address, seeds: Sequence[bytes], seed: int) -> None:
    """Send each mutant on a connection of its own, which the server must close once it has read it."""
    chance = Random(seed)
    for number in range(STRANGERS):
        mutant = mutate(seeds[number % len(seeds)], chance.choice(seeds), chance)
        with socket.create_connection(address, timeout=20) as stranger, contextlib.suppress(ConnectionError):
            stranger.sendall(mutant)
            stranger.shutdown(socket.SHUT_WR)
            while stranger.recv(1 << 16):
                pass


def test_an_offer_serves_its_taker_after_all_that() -> None:
    manifest = Manifest(is_directory=True, files=(), chunk_size=1 << 20, total=0)
    with DirectOffer(Address("127.0.0.1", 0), CARD, manifest) as offer:
        send_mutants(offer.ticket.address, [OFFER, stream(b"HELO" + bytes(32))], seed=1)
        with DirectTaking(offer.ticket) as taking:
            send_mutants(offer.ticket.address, [OFFER], seed=2)
            assert taking.card == CARD
            taking.finish()
        assert offer.wait_taken(20)


@pytest.mark.skipif(sys.platform != "linux", reason="UCX's wheels are for Linux only")
def test_a_listener_serves_its_peers_after_all_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UCX_NET_DEVICES", "lo")
    agents = [
        nixl_agent(name, nixl_agent_config(enable_listen_thread=True, listen_port=0)) for name in ("a", "good", "bad")
    ]
    a, good, bad = agents
    memory = np.zeros(4096, np.uint8)
    bad.register_memory([(memory.ctypes.data, memory.nbytes, 0, "")], "DRAM")
    address = a.agent.listen_address
    assert address is not None
    seeds = [
        stream(NixlMessage(LOAD, bad.get_agent_metadata()).encode()),
        stream(NixlMessage(LOAD, METADATA).encode(), NixlMessage(SEND).encode()),
        stream(NixlMessage(SEND).encode(), NixlMessage(INVALIDATE, b"bad").encode()),
        stream(NixlMessage(LOAD, CARD).encode()),
    ]
    send_mutants(address, seeds, seed=3)
    clients = FrameClients()
    answer = decode_message(clients.ask(address, NixlMessage(SEND).encode(), MAX_BYTES))
    assert decode(answer.body).agent == "a"
    good.send_local_metadata(*address)
    eventually(lambda: a.check_remote_metadata("good"), timeout=20)
    clients.close()
    for agent in agents:
        agent.close()
