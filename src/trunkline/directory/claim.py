"""Claiming a name: marker and presence record appear together, under one lease, or not at all."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trunkline.clock import Clock, Deadline
from trunkline.errors import AgentNameInUseError, MetadataDecodeError, StoreUnavailableError
from trunkline.metadata.presence import Presence, ProcessRecord, decode_presence
from trunkline.process import is_gone
from trunkline.store.contract import (
    NO_LEASE,
    Changed,
    Delete,
    Entry,
    Get,
    Interrupted,
    KeyHasRevision,
    KeyIsAbsent,
    Put,
    Snapshot,
    Store,
    Transaction,
)

if TYPE_CHECKING:
    from trunkline.metadata.key import MetadataKey

_log = logging.getLogger(__name__)

EXPIRY_DELAY = 2.0
"""Seconds that etcd may take to delete the keys of a lease that ran out (it looks twice a second, then commits)."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A name to be claimed.

    Attributes:
        store: Where.
        key: Whose; its label does not matter.
        lease: The lease that marker and record will hang on.
        record: The encoded presence record.
        incarnation: The claimant's; its own older sessions are replaced.
        takeover: Replace a live holder.
        puts: What is written together with the record; all on the lease.
        is_patient: Whether a live holder is waited for.
        clock: Measures the wait for a holder to go.
    """

    store: Store
    key: MetadataKey
    lease: int
    record: bytes
    incarnation: str
    takeover: bool
    puts: tuple[Put, ...]
    is_patient: bool
    clock: Clock

    def run(self, deadline: Deadline) -> int:
        """Claim the name; return the revision at which it was.

        A holder that is gone (its process ended on this machine), that is an older session of the same
        incarnation, or that is to be taken over, loses its lease, and all its keys with it. (Overwriting them
        would leave NIXL's peers with what they had loaded.) Another one is waited for until its lease has had time
        to run out.

        Raises:
            AgentNameInUseError: The holder lives, or the deadline passed before it was gone.
            StoreError: The store failed, or could not be reached when the wait for the holder ended.
        """
        while True:
            result = self.store.transact(
                Transaction(
                    (KeyIsAbsent(self.key.presence), KeyIsAbsent(self.key.marker)),
                    (
                        Put(self.key.marker, b"", self.lease),
                        Put(self.key.presence, self.record, self.lease),
                        *self.puts,
                    ),
                    (Get(self.key.presence),),
                ),
                timeout=deadline.remaining(),
            )
            if result.succeeded:
                return result.revision
            holder = result.reads[0][0] if result.reads[0] else None
            if holder is not None and holder.lease == self.lease:
                return holder.mod_revision  # an attempt that succeeded and whose answer was lost
            if holder is None or holder.lease == NO_LEASE:
                self._delete_leavings(holder, deadline)
            elif self._may_revoke(holder):
                self.store.revoke(holder.lease, timeout=deadline.remaining())
            else:
                self._wait_until_gone(holder, result.revision, deadline)

    def _may_revoke(self, holder: Entry) -> bool:
        presence = _decode(holder)
        if self.takeover:
            reason = "takeover=True"
        elif presence is not None and presence.incarnation == self.incarnation:
            reason = "it is an older session of this agent"
        elif presence is not None and is_gone(presence.process):
            reason = f"its process {presence.process.pid} has ended"
        else:
            return False
        _log.info("taking over agent name %r: %s", self.key.agent, reason)
        return True

    def _delete_leavings(self, record: Entry | None, deadline: Deadline) -> None:
        """Delete what lies under the name without a live session: NIXL leaves keys behind that no lease ends.

        The marker is put again only by a later transaction: NIXL's peers must see it deleted. It sorts first and
        goes last, so if there is more than one transaction takes, the next attempt goes on. Keys further down
        belong to other namespaces and stay.
        """
        leavings = self.store.list(self.key.agent_prefix, keys_only=True, timeout=deadline.remaining())
        keys = [entry.key for entry in leavings.entries if "/" not in entry.key.removeprefix(self.key.agent_prefix)]
        _log.info("deleting what an earlier agent %r left: %s", self.key.agent, keys)
        self.store.transact(
            Transaction(
                (KeyHasRevision(self.key.presence, 0 if record is None else record.mod_revision),),
                tuple(Delete(key) for key in (*keys[-100:], self.key.presence)),
            ),
            timeout=deadline.remaining(),
        )

    def _wait_until_gone(self, holder: Entry, revision: int, deadline: Deadline) -> None:
        """Return when ``holder`` must be looked at again; raise if it stays.

        That is when its record is deleted or on another lease, and after an outage: an etcd that was restarted gives
        every lease its full TTL again.
        """
        left = self.store.time_to_live(holder.lease, timeout=deadline.remaining()) or 0.0
        if not self.is_patient:
            raise self._in_use(holder, left, deadline.elapsed)
        patience = Deadline(deadline.remaining(left + EXPIRY_DELAY), self.clock)
        outage = ""
        with self.store.watch(self.key.presence, after=revision) as watch:
            while (event := watch.next(patience.remaining())) is not None:
                if isinstance(event, Interrupted):
                    outage = event.reason
                elif outage or not _holds(holder, event):
                    return
        if outage:
            raise StoreUnavailableError(
                f"agent name {self.key.agent!r} is held by another agent; whether that still lives is not known, for "
                f"{self.store.url} can't be reached after {deadline.elapsed:.1f} s: {outage}",
                agent=self.key.agent,
                key=self.key.presence,
                url=self.store.url,
                elapsed=deadline.elapsed,
            )
        raise self._in_use(holder, max(0.0, left - patience.elapsed), deadline.elapsed)

    def _in_use(self, holder: Entry, lease_left: float, elapsed: float) -> AgentNameInUseError:
        presence = _decode(holder)
        process = ProcessRecord() if presence is None else presence.process
        who = f"pid {process.pid} on host {process.host}" if process.pid else "an agent that does not say where it runs"
        life = (
            f"unless it is refreshed, its lease ends in {lease_left:.0f} s: then the name is free"
            if lease_left
            else "it lives: it keeps refreshing its lease"
        )
        return AgentNameInUseError(
            f"agent name {self.key.agent!r} under {self.key.namespace} is held by {who}; waited {elapsed:.1f} s for it "
            f"to go ({self.store.url}), but {life}. Choose another name, end that agent, or replace it with "
            "takeover=True",
            agent=self.key.agent,
            key=self.key.presence,
            host=process.host,
            pid=process.pid,
            incarnation="" if presence is None else presence.incarnation,
            lease_left=lease_left,
            elapsed=elapsed,
        )


def _holds(holder: Entry, event: Changed | Snapshot) -> bool:
    """Return whether the name may still be on the holder's lease after this event."""
    if isinstance(event, Changed):
        return not event.deleted and all(entry.lease == holder.lease for entry in event.put)
    return any(entry.lease == holder.lease for entry in event.entries)


def _decode(holder: Entry) -> Presence | None:
    try:
        return decode_presence(holder.value)
    except MetadataDecodeError:
        return None
