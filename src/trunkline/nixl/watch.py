"""A watch whose reader brings the NIXL agent's peers up to date: what an event tells of has been done by then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trunkline.directory.watch import DirectoryWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trunkline.clock import Clock
    from trunkline.directory.event import DirectoryEvent
    from trunkline.nixl.follower import Follower


class NixlWatch(DirectoryWatch):
    """A :class:`DirectoryWatch` of an adapter: whoever waits for its events also does the adapter's work.

    Args:
        pattern: As for DirectoryWatch.
        attributes: As for DirectoryWatch.
        include_nixl: As for DirectoryWatch.
        except_name: As for DirectoryWatch.
        clock: As for DirectoryWatch.
        on_close: As for DirectoryWatch.
        follower: Does the work.
    """

    def __init__(
        self,
        pattern: str,
        attributes: Mapping[str, str],
        *,
        include_nixl: bool,
        except_name: str,
        clock: Clock,
        on_close: Callable[[DirectoryWatch], None],
        follower: Follower,
    ) -> None:
        super().__init__(
            pattern, attributes, include_nixl=include_nixl, except_name=except_name, clock=clock, on_close=on_close
        )
        self._follower = follower

    def wake(self) -> None:
        """There is something to do, of which this watch may not tell."""
        with self._lock:
            self._wake()

    def _take(self) -> DirectoryEvent | None:
        while True:
            self._check_process()
            if not self.is_closed:
                self._follower.catch_up()
            event = super()._take()
            if event is not None or not self._follower.is_behind:
                break
        if event is not None:
            self._follower.catch_up()
        return event
