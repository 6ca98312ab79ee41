"""NIXL's exchange of metadata through etcd, through the Python API of its wheel."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from trunkline.bench.engine.nixl import NixlEngine, translated
from trunkline.clock import Deadline
from trunkline.errors import DeadlineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.bench.options import Options
    from trunkline.memory.descriptor import DescriptorList

_LOOK = 0.0002
"""Seconds between two looks whether NIXL has loaded a peer, which it offers no way to wait for. A busy loop would take
the processor from its thread that loads."""

_GIVING_UP = 6.0
"""Seconds after which NIXL, which waits 5 for a key that is not there, is asked again."""

_HEARING = 1.0
"""Seconds in which a NIXL agent hears of a withdrawal, if it does: now and then it misses one."""


class NixlMetadata:
    """A NIXL agent that finds others through etcd.

    Args:
        name: The agent's name.
        options: The run's.
        endpoints: etcd's, as NIXL wants them: ``http://host:port``.
        namespace: What the keys begin with.

    Raises:
        BackendUnavailableError: The wheel is not installed, or can't be used here.
    """

    is_published_at_once = False
    """NIXL's call returns when its thread has been told to."""

    def __init__(self, name: str, options: Options, endpoints: str, namespace: str) -> None:
        os.environ["NIXL_ETCD_ENDPOINTS"] = endpoints
        os.environ["NIXL_ETCD_NAMESPACE"] = namespace
        # Both sides of the exchange have to look for what comes from the other, as the targets of transfers do.
        self._engine = NixlEngine(name, options, is_target=True)

    def register(self, regions: DescriptorList) -> None:
        self._engine.register(regions)

    def deregister(self, regions: DescriptorList) -> None:
        self._engine.deregister(regions)

    def encode(self) -> bytes:
        return self._engine.publish()

    def publish(self) -> None:
        with translated("publishing by NIXL"):
            self._engine.agent.send_local_metadata()

    def withdraw(self) -> None:
        with translated("withdrawing by NIXL"):
            self._engine.agent.invalidate_local_metadata()

    def fetch(self, name: str, timeout: float) -> None:
        agent, deadline = self._engine.agent, Deadline(timeout)
        with translated(f"fetching {name!r} by NIXL"):
            while not deadline.has_passed:
                agent.fetch_remote_metadata(name)
                if _becomes(lambda: bool(agent.check_remote_metadata(name)), min(timeout, _GIVING_UP)):
                    return
        raise DeadlineError(f"NIXL has not loaded {name!r} from etcd after {timeout:g} s", agent=name)

    def forget(self, name: str) -> None:
        agent = self._engine.agent
        with translated(f"forgetting {name!r} by NIXL"):
            if not _becomes(lambda: not agent.check_remote_metadata(name), _HEARING):
                agent.remove_remote_agent(name)

    def load(self, data: bytes) -> None:
        with translated("loading a worker's metadata into NIXL"):
            self._engine.agent.add_remote_agent(data)

    def unload(self, name: str) -> None:
        with translated(f"unloading {name!r} from NIXL"):
            self._engine.agent.remove_remote_agent(name)

    def notify(self, peer: str, payload: bytes) -> None:
        with translated(f"notifying {peer!r} by NIXL"):
            self._engine.notify(peer, payload)

    def wait_notification(self, timeout: float) -> bytes:
        return self._engine.wait_notification(timeout)

    def rest(self) -> None:
        self._engine.rest()

    def wake(self) -> None:
        self._engine.wake()

    def close(self) -> None:
        self._engine.close()


def _becomes(condition: Callable[[], bool], timeout: float) -> bool:
    """Wait until a condition holds; return whether it does."""
    deadline = Deadline(timeout)
    while not condition():
        if deadline.has_passed:
            return False
        time.sleep(_LOOK)
    return True
