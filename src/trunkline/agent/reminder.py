"""Things to be done for agents later."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.directory.upkeep import Upkeep


class Reminder:
    """Something to be done for an agent, when the upkeep says so."""

    def __init__(self, remind: Callable[[Reminder], None]) -> None:
        self._remind = remind

    def mend(self) -> None:
        self._remind(self)


class Reminders:
    """One reminder at most for each agent. Any thread may call any method.

    Args:
        upkeep: Says when it is time.
    """

    def __init__(self, upkeep: Upkeep) -> None:
        self._upkeep = upkeep
        self._lock = threading.Lock()  # guards the two below
        self._reminders: dict[str, Reminder] = {}
        self._is_closed = False

    def put(self, name: str, delay: float, remind: Callable[[Reminder], None]) -> None:
        """Have ``remind`` called in ``delay`` seconds, instead of what was put before; not once closed."""
        with self._lock:
            self._drop(name)
            if not self._is_closed:
                reminder = self._reminders[name] = Reminder(remind)
                self._upkeep.request(reminder, delay)

    def drop(self, name: str) -> None:
        """Take back what was put for an agent."""
        with self._lock:
            self._drop(name)

    def take(self, name: str, reminder: Reminder) -> bool:
        """Return whether a reminder has been neither dropped nor replaced by the time it is acted upon; it is now."""
        with self._lock:
            if self._reminders.get(name) is not reminder:
                return False
            del self._reminders[name]
            return True

    def close(self) -> None:
        """Take back all, and put none any more. Idempotent."""
        with self._lock:
            self._is_closed = True
            for name in list(self._reminders):
                self._drop(name)

    def _drop(self, name: str) -> None:
        reminder = self._reminders.pop(name, None)
        if reminder is not None:
            self._upkeep.forget(reminder)
