"""Telling agents of this process what happens to their own keys."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeAlias

from trunkline.store.contract import Changed, Interrupted, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.store.contract import Watch, WatchEvent

_log = logging.getLogger(__name__)

Owner: TypeAlias = "Callable[[str, WatchEvent], None]"
"""Who is told what happens to keys of its own, and which keys an event selects."""


class Listening:
    """An agent of this process that is told of its keys.

    Args:
        prefix: What its keys start with, but for the record.
        record: The key of its presence record.
        tell: Called with one of these two, and an event of the keys it selects.
        watch: A watch of the prefix.
    """

    def __init__(self, prefix: str, record: str, tell: Owner, watch: Watch) -> None:
        self.prefix = prefix
        self.record = record
        self.tell = tell
        self.watch = watch


class Listeners:
    """The agents of this process that are told. One thread at a time."""

    def __init__(self) -> None:
        self._by_record: dict[str, list[Listening]] = {}  # of one name there may be several for a while

    def add(self, listening: Listening) -> None:
        """Tell an agent from now on."""
        self._by_record.setdefault(listening.record, []).append(listening)

    def drop(self, listening: Listening) -> None:
        """Tell it no more. Idempotent."""
        listeners = self._by_record.get(listening.record, [])
        if listening in listeners:
            listeners.remove(listening)
            if not listeners:
                del self._by_record[listening.record]

    def drop_watch(self, watch: Watch) -> None:
        """Tell the agent whose watch this is no more, if it is one's."""
        for listening in self._all():
            if listening.watch is watch:
                self.drop(listening)

    def watches(self) -> list[Watch]:
        """Return the watches of all."""
        return [listening.watch for listening in self._all()]

    def tell(self, listening: Listening, event: WatchEvent) -> None:
        """Tell an agent what happened to its keys but for the record, unless it was dropped."""
        if listening in self._by_record.get(listening.record, ()):
            call_safely(listening.tell, listening.prefix, event)

    def tell_of_records(self, source: str, event: WatchEvent) -> None:
        """Tell each agent what happened to its record.

        Args:
            source: What keys of records the event selects start with.
            event: What happened to all of these.
        """
        if isinstance(event, Interrupted) or not self._by_record:
            return
        if isinstance(event, Snapshot):
            entries = {entry.key: entry for entry in event.entries}
            for record in list(self._by_record):
                if record.startswith(source):
                    own = (entries[record],) if record in entries else ()
                    self._tell_of(record, Snapshot(own, event.revision))
            return
        for entry in event.put:
            self._tell_of(entry.key, Changed((entry,), (), event.revision))
        for key in event.deleted:
            self._tell_of(key, Changed((), (key,), event.revision))

    def _tell_of(self, record: str, event: WatchEvent) -> None:
        for listening in self._by_record.get(record, ())[:]:
            call_safely(listening.tell, record, event)

    def _all(self) -> list[Listening]:
        return [listening for listeners in self._by_record.values() for listening in listeners]


def call_safely(tell: Callable[..., None], *arguments: object) -> None:
    """Call somebody who must not keep the others from being told, whatever goes wrong there."""
    try:
        tell(*arguments)
    except Exception:
        _log.exception("%r could not be told of %r", tell, arguments)
