"""A real NIXL agent behind our phone book, in a process of its own, driven as ``nixl_process.py`` is.

Arguments: the agent's name, the store, the namespace, its attribute ``role``. It reads its watch only when it is asked
to, in the thread that also calls NIXL.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from tests.integration.nixl.nixl_process import NixlProcess, serve

from trunkline.directory.event import PeerJoined, PeerLeft, PeerUpdated, StoreBack, StoreLost, Synced
from trunkline.nixl import adapt

TTL = 4.0
PATIENCE = 40.0


class AdaptedProcess(NixlProcess):
    """What NixlProcess does, and the adapter's methods."""

    def __init__(self, name: str, wheel: Any) -> None:
        super().__init__(name, wheel)
        _, _, store, namespace, role = sys.argv
        self._adapter = adapt(
            self._agent, store=store, namespace=namespace, attributes={"role": role}, ttl=TTL, timeout=PATIENCE
        )
        self._watch = self._adapter.watch(include_nixl=True)

    def publish(self) -> None:
        self._adapter.publish()

    def withdraw(self) -> None:
        self._adapter.withdraw()

    def fetch(self, name: str) -> bool:
        self._adapter.fetch(name)
        return bool(self._agent.check_remote_metadata(name))

    def loads(self, name: str) -> int:
        return self._adapter.peer(name).load

    def is_loaded(self, name: str) -> bool:
        return bool(self._agent.check_remote_metadata(name))

    def event(self, kind: str, name: str) -> bool:
        """Take events up to one of a kind (of an agent); return whether there was one."""
        kinds = {each.__name__: each for each in (PeerJoined, PeerLeft, PeerUpdated, StoreLost, StoreBack)}
        while (event := self._watch.next(PATIENCE)) is not None:
            if isinstance(event, kinds[kind]) and getattr(event, "name", name) == name:
                return True
        return False

    def found(self, role: str) -> list[str]:
        """Return who has a role, by a watch that selects it."""
        with self._adapter.watch(role=role) as watch:
            seen = []
            while not isinstance(event := watch.next(PATIENCE), Synced):
                assert isinstance(event, PeerJoined)
                seen.append(event.name)
            return seen

    def set_role(self, role: str) -> None:
        self._adapter.update_attributes({"role": role})

    def sessions(self) -> int:
        publisher = self._adapter._membership.publisher
        return 0 if publisher.lost else publisher.sessions

    def register_more(self) -> int:
        """Register other memory beside the first, and publish both."""
        address = self.extend()
        self._adapter.publish()
        return address

    def close(self) -> None:
        self._adapter.close()


serve(lambda: AdaptedProcess(sys.argv[1], importlib.import_module("nixl_cu12._api")))
