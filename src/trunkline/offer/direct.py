"""Offering and taking by ticket, without a store."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import socket
import threading
from typing import TYPE_CHECKING, Self

from trunkline.clock import SYSTEM_CLOCK, Clock, Deadline
from trunkline.errors import PeerUnreachableError
from trunkline.exchange.address import Address
from trunkline.exchange.client import TIMEOUT, FrameClient
from trunkline.exchange.server import FrameServer
from trunkline.metadata.card import MAX_BYTES
from trunkline.offer.handshake import MAX_REQUEST, PROOF_SIZE, VERB_SIZE, OfferSide, Step, TakerSide
from trunkline.offer.manifest import encode_manifest
from trunkline.offer.ticket import SECRET_SIZE, Ticket

if TYPE_CHECKING:
    from types import TracebackType

    from trunkline.offer.manifest import Manifest

log = logging.getLogger(__name__)

PROOF_TIMEOUT = 10.0
"""Seconds that an offer waits for each message of someone who has not proved to know the secret."""

MAX_CONNECTIONS = 32


class DirectOffer:
    """Hands an agent's card to one who knows the secret. One taker at a time; it is over when one has all.

    Args:
        address: Where to listen; port 0 takes a free one.
        card: What the agent offers.
        manifest: What it offers, too.
        clock: For tests.

    Attributes:
        ticket: What the taker needs. Where it listens on all addresses, it names this host.

    Raises:
        ConfigurationError: It can't listen there.
    """

    def __init__(self, address: Address, card: bytes, manifest: Manifest, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._card = card
        self._secret = os.urandom(SECRET_SIZE)
        self._taker: _Session | None = None
        self._is_used = False
        self._taken = threading.Event()
        self._server = FrameServer(
            address,
            lambda peer: _Session(self, peer),
            max_bytes=MAX_REQUEST,
            idle_timeout=PROOF_TIMEOUT,
            max_connections=MAX_CONNECTIONS,
            name="trunkline-offer",
            clock=clock,
        )
        host, port = self._server.address
        digest = hashlib.sha256(encode_manifest(manifest)).digest()
        named = Address(socket.gethostname() if host in {"0.0.0.0", "::"} else host, port)  # noqa: S104 - compared
        self.ticket = Ticket(named, self._secret, digest)

    def wait_taken(self, timeout: float | None) -> bool:
        """Return whether it was taken, waiting for it."""
        return self._taken.wait(timeout)

    def open_side(self) -> OfferSide:
        """Return the offer's side for a new connection."""
        return OfferSide(self._secret)

    def admit(self, session: _Session, side: OfferSide) -> bytes:
        """Return the answer to one who knows the secret."""
        if self._is_used:
            return b"USED"
        if self._taker is not None:
            return b"BUSY"
        self._taker = session
        log.info("%s takes it", session.peer)
        return side.give(self._card)

    def let_go(self, session: _Session, *, is_done: bool) -> None:
        """A connection has ended; if it was the taker's, another may take, or it is over."""
        if self._taker is not session:
            return
        self._taker = None
        if is_done:
            self._is_used = True
            self._taken.set()
        else:
            log.warning("%s broke off; the ticket is good for going on", session.peer)

    def close(self) -> None:
        """Listen no more. Idempotent."""
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Session:
    """One connection."""

    def __init__(self, offer: DirectOffer, peer: str) -> None:
        self.is_kept = False
        self.peer = peer
        self._offer = offer
        self._side = offer.open_side()

    def receive(self, payload: bytes) -> bytes | None:
        answer = self._side.receive(payload)
        if answer is None:
            answer = self._offer.admit(self, self._side)
        self.is_kept = self._side.step is Step.TAKING and answer not in {b"BUSY", b"USED"}
        return answer

    def end(self) -> None:
        self._offer.let_go(self, is_done=self._side.step is Step.DONE)


class DirectTaking:
    """A taker's connection to an offer. While it is open nobody else can take.

    Args:
        ticket: The ticket.
        timeout: Seconds for the handshake.

    Attributes:
        card: What the agent offers.

    Raises:
        PeerUnreachableError: Nobody listens there, or the answer did not come.
        TicketError: The offer is another, or used.
    """

    def __init__(self, ticket: Ticket, timeout: float | None = TIMEOUT) -> None:
        self._side = TakerSide(ticket.secret, ticket.address)
        deadline = Deadline(timeout)
        try:
            self._client = FrameClient(ticket.address, deadline)
        except PeerUnreachableError as error:
            raise PeerUnreachableError(
                f"{error} An offer ends when it was taken once, or is stopped: then ask for another ticket. Without "
                "--listen it is found from its own machine only",
                **error.context,
            ) from error
        try:
            self._client.send(self._side.hello(), deadline)
            self._client.send(self._side.prove(self._client.receive(MAX_REQUEST, deadline)), deadline)
            self.card = self._side.card(self._client.receive(VERB_SIZE + PROOF_SIZE + MAX_BYTES, deadline))
        except BaseException:
            self._client.close()
            raise

    def finish(self) -> None:
        """All was verified and written: the offer may end. If it can't be told, it stays until it is stopped."""
        deadline = Deadline(TIMEOUT)
        with contextlib.suppress(PeerUnreachableError):
            self._client.send(self._side.done(), deadline)
            self._client.receive(VERB_SIZE, deadline)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()
