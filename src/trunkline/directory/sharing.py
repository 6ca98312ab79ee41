"""One observer per place in the store and process, however many publishers and watches use it."""

from __future__ import annotations

import atexit
import os
import threading
from typing import TYPE_CHECKING

from trunkline.clock import SYSTEM_CLOCK, Clock
from trunkline.directory.observer import Observer

if TYPE_CHECKING:
    from collections.abc import Hashable

    from trunkline.store.contract import Store


class _Registry:
    """The open observers of one process, with the number of their users."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.observers: dict[tuple[Hashable, str], tuple[Observer, int]] = {}


_registry = _Registry()


def open_observer(store: Store, namespace: str, *, ttl: float = 30.0, clock: Clock = SYSTEM_CLOCK) -> Observer:
    """Return this process's observer of a namespace; every call needs its :func:`close_observer`.

    Args:
        store: Where; it stays the caller's, the observer has a handle of its own.
        namespace: The namespace.
        ttl: As for Observer, if this is the first user.
        clock: As for Observer, if this is the first user.
    """
    with _registry.lock:
        key = (store.identity, namespace)
        observer, users = _registry.observers.get(key) or (
            Observer(store.share(), namespace, ttl=ttl, clock=clock),
            0,
        )
        _registry.observers[key] = observer, users + 1
        return observer


def close_observer(observer: Observer) -> None:
    """Give an observer back; its last user's call closes it. Does nothing in a forked child."""
    with _registry.lock:
        for key, (shared, users) in list(_registry.observers.items()):
            if shared is observer:
                if users > 1:
                    _registry.observers[key] = observer, users - 1
                    return
                del _registry.observers[key]
                break
        else:
            return
    observer.close()


def close_all() -> None:
    """Close every observer of this process, whoever uses it."""
    with _registry.lock:
        observers = [observer for observer, _ in _registry.observers.values()]
        _registry.observers.clear()
    for observer in observers:
        observer.close()


def _start_afresh() -> None:
    """In a forked child: its parent's observers are not its own, and their threads are not here."""
    global _registry  # noqa: PLW0603 - what it keeps is per process by nature
    _registry = _Registry()


atexit.register(close_all)
os.register_at_fork(after_in_child=_start_afresh)
