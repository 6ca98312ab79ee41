"""Who may take, and when, over real sockets; the agents are left out."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from trunkline.errors import PeerUnreachableError, TicketError
from trunkline.exchange.address import Address
from trunkline.exchange.frame import pack_frame
from trunkline.offer.direct import MAX_CONNECTIONS, PROOF_TIMEOUT, DirectOffer, DirectTaking
from trunkline.offer.manifest import Manifest
from trunkline.testing.clock import FakeClock
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

CARD = b"a card"
MANIFEST = Manifest(is_directory=True, files=(), directories=(), chunk_size=1 << 20, total=0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def offer(clock: FakeClock) -> Iterator[DirectOffer]:
    with DirectOffer(Address("127.0.0.1", 0), CARD, MANIFEST, clock=clock) as offer:
        yield offer


def test_one_takes_and_it_is_over(offer: DirectOffer) -> None:
    with DirectTaking(offer.ticket) as taking:
        assert taking.card == CARD
        assert not offer.wait_taken(0)
        taking.finish()
    assert offer.wait_taken(20)
    with pytest.raises(TicketError, match="has been taken: a ticket is good once"):
        DirectTaking(offer.ticket)


def test_another_waits_until_the_first_breaks_off(offer: DirectOffer) -> None:
    with DirectTaking(offer.ticket), pytest.raises(TicketError, match="is being taken by another process"):
        DirectTaking(offer.ticket)
    eventually(lambda: offer._taker is None)
    with DirectTaking(offer.ticket) as resuming:
        resuming.finish()
    assert offer.wait_taken(20)


def test_a_wrong_secret(offer: DirectOffer) -> None:
    with pytest.raises(TicketError, match="does not know the ticket's secret"):
        DirectTaking(replace(offer.ticket, secret=os.urandom(16)))
    with DirectTaking(offer.ticket) as taking:
        assert taking.card == CARD


def test_one_that_has_ended(offer: DirectOffer) -> None:
    offer.close()
    with pytest.raises(PeerUnreachableError, match="An offer ends when it was taken once, or is stopped"):
        DirectTaking(offer.ticket)


def test_one_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = Address(*silent.getsockname())
        ticket = DirectOffer(Address("127.0.0.1", 0), CARD, MANIFEST)
        ticket.close()
        with pytest.raises(PeerUnreachableError, match="waiting for the answer"):
            DirectTaking(replace(ticket.ticket, address=address), timeout=0.1)


def test_strangers_hold_up_no_taker_and_are_hung_up_on(offer: DirectOffer, clock: FakeClock) -> None:
    address = offer.ticket.address
    with DirectTaking(offer.ticket) as taking:
        strangers = [socket.create_connection(address, timeout=20) for _ in range(MAX_CONNECTIONS + 2)]
        for evil in (bytes(8), (1 << 20).to_bytes(8, "little"), pack_frame(b"DONE" + bytes(32))):
            with socket.create_connection(address, timeout=20) as stranger:
                stranger.sendall(evil)
                assert stranger.recv(1) == b""
        clock.advance(PROOF_TIMEOUT + 1)
        offer._server.wake()
        for stranger in strangers:
            assert stranger.recv(1) == b""
            stranger.close()
        taking.finish()
    assert offer.wait_taken(20)


@pytest.mark.parametrize(("host", "named"), [("0.0.0.0", None), ("::", None), ("::1", "::1")])
def test_the_ticket_says_where_it_can_be_reached(host: str, named: str | None) -> None:
    with DirectOffer(Address(host, 0), CARD, MANIFEST) as offer:
        assert offer.ticket.address.host == (named or socket.gethostname())
