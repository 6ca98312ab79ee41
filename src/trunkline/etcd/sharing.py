"""One client per cluster and credentials in a process, however many stores use it."""

from __future__ import annotations

import atexit
import os
import threading
from typing import TYPE_CHECKING

from trunkline.etcd.client import EtcdClient

if TYPE_CHECKING:
    from trunkline.etcd.config import EtcdConfig


class _Registry:
    """The open clients of one process, with the number of their users."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: dict[EtcdConfig, tuple[EtcdClient, int]] = {}

    def open(self, config: EtcdConfig) -> EtcdClient:
        with self._lock:
            client, users = self._clients.get(config) or (EtcdClient(config), 0)
            self._clients[config] = client, users + 1
            return client

    def close(self, client: EtcdClient) -> None:
        with self._lock:
            shared, users = self._clients.get(client.config, (None, 0))
            if shared is not client:
                return
            if users > 1:
                self._clients[client.config] = client, users - 1
                return
            del self._clients[client.config]
        client.close()

    def close_all(self) -> None:
        with self._lock:
            clients = [client for client, _ in self._clients.values()]
            self._clients.clear()
        for client in clients:
            client.close()


_registry = _Registry()


def open_client(config: EtcdConfig) -> EtcdClient:
    """Return this process's client for ``config``; every call needs its :func:`close_client`."""
    return _registry.open(config)


def close_client(client: EtcdClient) -> None:
    """Give a client back; its last user's call closes it. Does nothing in a forked child for the parent's clients."""
    _registry.close(client)


def _close_all() -> None:
    _registry.close_all()


def _start_afresh() -> None:
    """In a forked child: its parent's clients are not its own, and its parent's lock may be held for ever here."""
    global _registry  # noqa: PLW0603 - what it keeps is per process by nature
    _registry = _Registry()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_start_afresh)
