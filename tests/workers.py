"""Workers of a group as threads of one process."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from trunkline.coordination import Group

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.store.contract import Store

PATIENCE = 60.0
"""Seconds after which a test gives up; never an expected time."""


class Workers:
    """Opens groups on one store.

    Args:
        open_store: Gives each worker a handle of its own.
        name: The group's.
        **options: What each Group gets besides.
    """

    def __init__(self, open_store: Callable[[], Store], name: str = "workers", **options: Any) -> None:
        self.open_store = open_store
        self.name = name
        self.options = options

    def together(self, *works: Callable[[Group], Any], **options: Any) -> list[Any]:
        """Have a worker of each rank do its work; return what each returned, or the error that ended it."""
        return self.start(*works, **options)()

    def all(self, size: int, work: Callable[[Group], Any], **options: Any) -> list[Any]:
        """Have that many workers do the same; return what each returned, or the error that ended it."""
        return self.together(*[work] * size, **options)

    def start(
        self, *works: Callable[[Group], Any], size: int = 0, first: int = 0, **options: Any
    ) -> Callable[[], list[Any]]:
        """Start workers, the first of them of rank ``first``; return what waits for their results."""
        results: list[Any] = [None] * len(works)

        def run(place: int) -> None:
            chosen = {"rank": first + place, **self.options, **options}
            try:
                with self.open_store() as store, Group(self.name, size or len(works), store=store, **chosen) as group:
                    results[place] = works[place](group)
            except BaseException as error:
                results[place] = error

        threads = [threading.Thread(target=run, args=(place,), daemon=True) for place in range(len(works))]
        for thread in threads:
            thread.start()

        def wait() -> list[Any]:
            for thread in threads:
                thread.join(PATIENCE)
                assert not thread.is_alive(), results
            return results

        return wait
