"""NVIDIA's NIXL as an engine, through the Python API of its wheel. A process that uses it loads no UCX of ours."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from trunkline.clock import Deadline
from trunkline.errors import BackendError, BackendUnavailableError, DeadlineError, TransferError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trunkline.backend.contract import Operation
    from trunkline.bench.options import Options
    from trunkline.memory.descriptor import DescriptorList

_LOOKS = 64
"""How often a transfer is looked at between two looks at the clock."""

_PAUSE = 50e-6 if (os.cpu_count() or 1) < 4 else 0.0
"""Seconds between two looks for notifications, which NIXL offers no way to wait for. On few processors a busy loop
would take them from who is measured."""

_KINDS = {"OBJECT": "OBJ"}


class NixlRequest:
    """A transfer of NIXL's."""

    __slots__ = ("_agent", "_handle", "_state")

    def __init__(self, agent: Any, handle: Any) -> None:
        self._agent = agent
        self._handle = handle
        self._state = "DONE"

    def post(self) -> None:
        try:
            self._state = self._agent.transfer(self._handle)
        except Exception as error:  # NIXL's classes have no base of their own; translated would be measured
            raise _failed("posting a transfer", error) from error

    def poll(self) -> bool:
        if self._state == "PROC":
            try:
                self._state = self._agent.check_xfer_state(self._handle)
            except Exception as error:  # as above
                raise _failed("a transfer", error) from error
        if self._state == "PROC":
            return False
        if self._state != "DONE":
            raise TransferError(f"a transfer of NIXL's ended as {self._state}; its log (NIXL_LOG_LEVEL) may say why")
        return True

    def wait(self, timeout: float) -> None:
        deadline = Deadline(timeout)
        while True:
            for _ in range(_LOOKS):
                if self.poll():
                    return
            if deadline.has_passed:
                raise DeadlineError(f"a transfer of NIXL's is still running after {timeout:g} s", timeout=timeout)


class Sides(NamedTuple):
    """Both sides of a transfer, as NIXL wants them."""

    peer: str
    near: Any
    far: Any
    block_count: int


class NixlEngine:
    """A NIXL agent.

    Args:
        name: The agent's name.
        options: The run's.
        is_target: Whether others use its memory. Without a progress thread of NIXL's (--enable-pt) what needs this
            side's help would stand still while it waits for the others, so a thread then looks for notifications all
            the time, as NIXLBench's targets do.

    Raises:
        BackendUnavailableError: The wheel is not installed, or can't be used here.

    Attributes:
        agent: NIXL's; None once closed.
    """

    name = "nixl"

    def __init__(self, name: str, options: Options, *, is_target: bool) -> None:
        if options.device_list != "all":
            os.environ["UCX_NET_DEVICES"] = options.device_list
        try:
            from nixl_cu12._api import nixl_agent, nixl_agent_config, nixl_thread_sync_t
        except ImportError as error:
            raise BackendUnavailableError(
                f"--engine {options.engine} needs NVIDIA's wheel, which could not be imported ({error}): "
                "pip install --no-deps nixl-cu12"
            ) from error
        for handler in logging.getLogger("nixl").handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setStream(sys.stderr)  # standard output is for the table
                handler.setLevel(logging.WARNING)
        has_thread = options.enable_pt or options.progress_threads > 0
        is_shared = is_target or options.num_threads > 1
        config = nixl_agent_config(
            enable_prog_thread=has_thread,
            num_threads=options.progress_threads,
            backends=[options.backend],
            sync_mode=nixl_thread_sync_t.NIXL_THREAD_SYNC_RW if is_shared else None,
        )
        with translated(f"opening NIXL's agent with the backend {options.backend}"):
            self.agent: Any = nixl_agent(name, config)
        self._name = name
        self._backend = options.backend
        self._is_prepared = options.prepared_xfer
        self._received: deque[bytes] = deque()
        self._is_closing = False
        self._is_awake = threading.Event()
        self._is_awake.set()
        self._looking = threading.Lock()
        self._server: threading.Thread | None = None
        if is_target and not has_thread:
            self._server = threading.Thread(target=self._serve, name=f"trunkline-bench-nixl-{name}", daemon=True)
            self._server.start()

    def register(self, descriptors: DescriptorList, keys: Sequence[str] = ()) -> None:
        named = zip(descriptors.rows.tolist(), keys or [""] * descriptors.count, strict=True)
        with translated("registering memory with NIXL"):
            self.agent.register_memory([(*row, key) for row, key in named], _kind(descriptors))

    def deregister(self, descriptors: DescriptorList) -> None:
        agent = self.agent
        with translated("deregistering memory from NIXL"):
            agent.deregister_memory(agent.get_reg_descs(descriptors.rows, _kind(descriptors)))

    def publish(self) -> bytes:
        return bytes(self.agent.get_agent_metadata())

    def load(self, name: str, handed: bytes, timeout: float) -> None:  # noqa: ARG002 # NIXL waits as long as it likes
        if name != self._name:
            with translated(f"loading {name!r} into NIXL"):
                self.agent.add_remote_agent(handed)
                self.agent.make_connection(name)

    def match(self, peer: str, near: DescriptorList, far: DescriptorList) -> Sides:
        agent = self.agent
        with translated(f"matching blocks with those of {peer!r} in NIXL"):
            sides = agent.get_xfer_descs(near.rows, _kind(near)), agent.get_xfer_descs(far.rows, _kind(far))
            if self._is_prepared:
                sides = agent.prep_xfer_dlist("", sides[0]), agent.prep_xfer_dlist(peer, sides[1])
        return Sides(peer, *sides, near.count)

    def prepare(self, operation: Operation, sides: Sides) -> NixlRequest:
        with translated(f"making a request to {sides.peer!r} in NIXL"):
            if self._is_prepared:
                which = np.arange(sides.block_count, dtype=np.int32)
                handle = self.agent.make_prepped_xfer(operation.name, sides.near, which, sides.far, which)
            else:
                handle = self.agent.initialize_xfer(operation.name, sides.near, sides.far, sides.peer)
        return NixlRequest(self.agent, handle)

    def transport(self, peer: str) -> str:  # noqa: ARG002 # NIXL's API does not tell
        return self._backend.lower()

    def notify(self, peer: str, payload: bytes) -> None:
        self.agent.send_notif(peer, payload)

    def wait_notification(self, timeout: float) -> bytes:
        deadline = Deadline(timeout)
        while not self._received:
            if self._look() is None and deadline.has_passed:
                raise DeadlineError(f"no notification came to {self._name!r} in {timeout:g} s", agent=self._name)
        return self._received.popleft()

    def rest(self) -> None:
        self._is_awake.clear()

    def wake(self) -> None:
        self._is_awake.set()

    def close(self) -> None:
        self._is_closing = True
        self._is_awake.set()
        if self._server is not None:
            self._server.join()
            self._server = None
        self.agent = None

    def _serve(self) -> None:
        while not self._is_closing:
            self._is_awake.wait()
            self._look()

    def _look(self) -> bytes | None:
        """Take what arrived, and return the last of it; if there is nothing, pause."""
        with self._looking:
            found = [payload for those in self.agent.get_new_notifs().values() for payload in those]
            self._received += found
        if not found:
            time.sleep(_PAUSE)
        return found[-1] if found else None


def _kind(descriptors: DescriptorList) -> str:
    return _KINDS.get(descriptors.kind.name, descriptors.kind.name)


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn what NIXL raises into a BackendError that says what was tried."""
    try:
        yield
    except Exception as error:  # NIXL's classes have no base of their own
        raise _failed(what, error) from error


def _failed(what: str, error: Exception) -> BackendError:
    return BackendError(f"{what} failed: {type(error).__name__}: {error}; NIXL's log (NIXL_LOG_LEVEL) may say more")
