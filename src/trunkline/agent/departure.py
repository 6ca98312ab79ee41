"""What becomes of a loaded peer that left: a lease that ran out is no proof that its process is gone."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from trunkline.agent.peer import is_listed
from trunkline.agent.reminder import Reminder, Reminders
from trunkline.directory.event import LeaveReason, PeerEvent, PeerLeft, PeerSuspect
from trunkline.errors import PeerGoneError, TrunklineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.agent.membership import Membership
    from trunkline.agent.peers import Peers
    from trunkline.directory.view import AgentListing
    from trunkline.transfer.engine import Engine

REASONS = {
    LeaveReason.WITHDRAWN: "it withdrew what it had published",
    LeaveReason.EXPIRED: "its lease ran out",
    LeaveReason.SUPERSEDED: "superseded by a new incarnation",
}
"""Why a peer is gone, by why it left."""


class Departures:
    """Ends peers that left; one whose lease ran out and whose process may live has a second TTL to come back.

    Any thread may call any method.

    Args:
        peers: The agent's peers.
        engine: Its engine.
        membership: Its place in the phone book.
        enqueue: Has something done for an agent, after what is to be done for it already, and told then.
    """

    def __init__(
        self,
        peers: Peers,
        engine: Engine,
        membership: Membership,
        enqueue: Callable[[str, Callable[[], PeerEvent | None]], None],
    ) -> None:
        self._peers = peers
        self._engine = engine
        self._membership = membership
        self._enqueue = enqueue
        self._expiries = Reminders(membership.observer.upkeep)

    def leave(self, event: PeerLeft) -> PeerEvent:
        """Do with a peer what its departure means, and return what to tell of it. May wait for the peer to answer."""
        name, peer = event.name, self._peers.find(event.name)
        if peer is None or not is_listed(peer, event.agent):
            return event
        if event.reason is not LeaveReason.EXPIRED:
            self._peers.end(self._engine, peer, REASONS[event.reason])
            return event
        if peer.gone is not None:
            return event
        # The lease is no proof: whether the data path still answers is.
        try:
            self._peers.probe(peer)
        except PeerGoneError:
            self._peers.end(self._engine, peer, REASONS[event.reason])
            return event
        except TrunklineError:
            peer.lose("its lease ran out and it does not answer")
            self._schedule_expiry(name, event.agent)
            return event
        self._schedule_expiry(name, event.agent)
        return PeerSuspect(replace(event.agent, is_suspect=True))

    def call_off(self, name: str) -> None:
        """An agent came back, or is not followed any more: it has not to come back in time."""
        self._expiries.drop(name)

    def close(self) -> None:
        """End no peer later. Idempotent."""
        self._expiries.close()

    def _schedule_expiry(self, name: str, listing: AgentListing) -> None:
        def expire(expiry: Reminder) -> None:
            self._enqueue(name, partial(self._expire, expiry, listing))

        self._expiries.put(name, listing.ttl or self._membership.publisher.ttl, expire)

    def _expire(self, expiry: Reminder, listing: AgentListing) -> PeerLeft | None:
        """A lost or suspect peer had a second TTL to come back, and did not."""
        if not self._expiries.take(listing.name, expiry):  # it came back since
            return None
        peer = self._peers.find(listing.name)
        if peer is not None and is_listed(peer, listing):
            self._peers.end(self._engine, peer, REASONS[LeaveReason.EXPIRED])
        return PeerLeft(listing, LeaveReason.EXPIRED)
