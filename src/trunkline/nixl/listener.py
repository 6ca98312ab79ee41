"""The low-level agent's listener: peers send their metadata, ask for this agent's, or take theirs back."""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING

from trunkline.agent.lifetime import let_go, watch_over
from trunkline.errors import ClosedError, MetadataMismatchError, UnknownPeerError
from trunkline.exchange.nixl_message import INVALIDATE, LOAD, MAX_BYTES, NixlMessage, agent_name, decode_message
from trunkline.exchange.server import FrameServer
from trunkline.metadata.codec import decode

if TYPE_CHECKING:
    from trunkline.exchange.address import Address
    from trunkline.nixl.exchange import Exchange

log = logging.getLogger(__name__)

MAX_PEERS = 4096
"""How many agents that sent themselves may be loaded at once; another is refused."""


class Listener:
    """Listens for an agent, which it does not keep alive.

    Args:
        exchange: The agent.
        name: Its name.
        address: Where to listen.

    Attributes:
        address: Where it listens.

    Raises:
        ConfigurationError: It can't listen there.
    """

    def __init__(self, exchange: Exchange, name: str, address: Address) -> None:
        self._exchange = weakref.ref(exchange)
        self._name = name
        self._loaded: set[str] = set()
        self._server = FrameServer(
            address, lambda peer: _Session(self, peer), max_bytes=MAX_BYTES, name=f"trunkline-listener-{name}"
        )
        self.address = self._server.address
        watch_over(self)

    def close(self, timeout: float = 0.0) -> None:  # noqa: ARG002 - as all that is closed at exit
        """Hang up and listen no more. Idempotent."""
        let_go(self)
        self._server.close()

    def handle(self, message: NixlMessage, peer: str) -> bytes | None:
        """Do what a peer asks for, and return the answer, if any."""
        exchange = self._exchange()
        if exchange is None:
            raise ClosedError(f"agent {self._name!r} is closed")
        if message.verb == LOAD:
            self._check_room(exchange, message.body)
            name = exchange.loadRemoteMD(message.body).decode()
            self._loaded.add(name)
            log.debug("agent %r: %s sent the metadata of %r", self._name, peer, name)
            return None
        if message.verb == INVALIDATE:
            name = agent_name(message.body)
            exchange.invalidateRemoteMD(name)
            log.debug("agent %r: %s took the metadata of %r back", self._name, peer, name)
            return None
        return NixlMessage(LOAD, exchange.getLocalMD()).encode()

    def _check_room(self, exchange: Exchange, metadata: bytes) -> None:
        if len(self._loaded) < MAX_PEERS:
            return
        self._loaded = {name for name in self._loaded if _is_loaded(exchange, name)}
        if len(self._loaded) >= MAX_PEERS and decode(metadata).agent not in self._loaded:
            raise MetadataMismatchError(
                f"agent {self._name!r} has {MAX_PEERS:,} peers that sent themselves, and takes no more: remove some"
            )

    def _after_fork(self) -> None:
        self._server.forsake()


class _Session:
    """One connection."""

    is_kept = False

    def __init__(self, listener: Listener, peer: str) -> None:
        self._listener = listener
        self._peer = peer

    def receive(self, payload: bytes) -> bytes | None:
        return self._listener.handle(decode_message(payload), self._peer)

    def end(self) -> None:
        """Nothing hangs on it: what was loaded stays."""


def _is_loaded(exchange: Exchange, name: str) -> bool:
    try:
        exchange.trunkline.peer(name)
    except UnknownPeerError:
        return False
    return True
