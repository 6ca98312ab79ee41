"""A peer reached by cross-memory attach: from its connection info to the proof that it is who it says."""

from __future__ import annotations

import errno
import os
import threading
import time
from typing import TYPE_CHECKING

import numpy as np

from trunkline.backend.plugins.cma.greeting import decode_greeting, decode_info, socket_name
from trunkline.errors import BackendError, DeadlineError, PeerGoneError
from trunkline.memory.kind import MemoryKind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trunkline.backend.contract import ConnectionInfo, Slots
    from trunkline.backend.plugins.cma._native import Engine
    from trunkline.metadata.model import RemoteKeys

RETRY = 1.0
"""Seconds until a connection is tried again that could not be made, for a reason that may pass."""

_UNANSWERED = "the peer has not answered yet"


class CmaPeer:
    """One loaded peer. Any thread may call any method.

    ``obstacle`` is None once the peer is proved: a socket that the connection info names took our connection; the
    kernel says which process made it, and that it is of our own user; over it came the agent's name, a nonce and its
    address; and the nonce was read there, in that process's memory. From then on the connection is kept. It hangs up
    when the process ends, executes another program or closes its agent, and that is looked for before each call that
    reads or writes its memory.

    A process that the target forked has its sockets too, but closes them before ``fork`` returns there, and sees zeros
    in the place of the nonce; so the target's end is seen even if its children live on. For children made without
    the C library's ``fork`` there is, from Linux 5.3, the target's process descriptor, which is looked at as well.
    Between that look and the call itself lie some 100 ns in which the process could end and its number be given away.

    Args:
        name: The peer's agent name.
        engine: Our native half.
        info: The peer's connection info.

    Raises:
        MetadataDecodeError: The connection info is none.
    """

    def __init__(self, name: str, engine: Engine, info: ConnectionInfo) -> None:
        from trunkline.backend.plugins.cma._native import Link

        self.name = name
        self.link = Link(engine, self)
        self._lock = threading.Lock()
        self._pid = 0
        self._is_connected = False
        self._retry_at = 0.0
        self._is_closed = False
        key = decode_info(name, info)
        self._socket = b"" if key is None else socket_name(key)
        self._obstacle: str | None = _UNANSWERED
        self._is_final = key is None  # no use in trying again
        if key is None:
            self._obstacle = (
                f"the peer speaks version {info[4]} of this backend's connection info, and we only an earlier one"
            )
        else:
            self._advance()

    def load_segments(self, kind: MemoryKind, segments: NDArray[np.uint64], keys: RemoteKeys) -> Slots:  # noqa: ARG002  there are none
        """Return slots, which mean nothing: no keys are needed.

        Raises:
            BackendError: It is not DRAM.
        """
        if kind is not MemoryKind.DRAM:
            raise BackendError(f"cross-memory attach reaches no {kind.name} memory of peer {self.name!r}, only DRAM")
        return np.zeros(len(segments), np.int32)

    def unload_segments(self, slots: Slots) -> None:
        """Nothing is kept of segments."""

    def connect(self, timeout: float) -> None:
        """Wait for the peer's answer, and prove that it is the one; returns at once where the backend can't be used.

        An obstacle that lasts (another host, another user) says nothing about the peer's life, so it is no error here:
        ``obstacle`` tells.

        Raises:
            PeerGoneError: It has hung up: it ended, or closed its agent.
            DeadlineError: No answer in time: it is stopped, or does not drive its progress.
        """
        started = time.monotonic()
        while self.obstacle is not None:
            failure = self.failure
            if failure is not None:
                raise PeerGoneError(
                    f"peer {self.name!r} is gone: {failure}; fetch it again", peer=self.name, reason=failure
                )
            if self._is_final or self._is_closed or not self._is_connected:
                return
            remaining = started + timeout - time.monotonic()
            if remaining <= 0:
                raise DeadlineError(
                    f"peer {self.name!r}, process {self._pid} of this host, did not answer within {timeout:g} s; "
                    "it is stopped, or does not drive its progress",
                    peer=self.name,
                    timeout=timeout,
                )
            self.link.wait(remaining)  # without the lock: others may ask for the obstacle meanwhile

    def abort(self, reason: str) -> None:
        """Fail everything posted to this peer, and wait for what is being copied (at most 1 MiB a thread).

        The connection stays: nothing is kept in it.
        """
        self.link.abort(reason)

    @property
    def failure(self) -> str | None:
        """Why the peer is gone, or None."""
        return self.link.reason if self.link.is_broken else None

    @property
    def obstacle(self) -> str | None:
        """Why cross-memory attach can't be used to reach the peer now, or None."""
        if self.link.is_ready:
            return None
        with self._lock:
            self._advance()
            return self._obstacle

    @property
    def transports(self) -> tuple[str, ...]:
        """``("process_vm",)`` once it is proved."""
        return ("process_vm",) if self.link.is_ready else ()

    def close(self) -> None:
        """Hang up; what is still posted becomes FAILED. Idempotent."""
        with self._lock:
            self._is_closed = True
            self.link.close()

    def _advance(self) -> None:
        """Take a step towards the proof, without waiting, and say in ``_obstacle`` where it stands."""
        if self._is_closed:
            self._obstacle = "the peer was closed"
        elif self.link.reason:  # what the native half found out later
            self._obstacle, self._is_final = self.link.reason, True
        elif not self._is_final:
            if not self._is_connected:
                self._connect()
            if self._is_connected:
                self._receive()

    def _connect(self) -> None:
        if time.monotonic() < self._retry_at:
            return
        self._retry_at = time.monotonic() + RETRY
        error = self.link.connect(self._socket)
        if error == errno.ECONNREFUSED:
            self._give_up(
                "the peer is on another host or in another network namespace, or has ended: no such socket here"
            )
        elif error:
            self._obstacle = (
                f"the peer could not be connected to: {os.strerror(error)} ({errno.errorcode.get(error, error)})"
            )
        else:
            self._pid, uid = self.link.process()
            if uid != os.geteuid():
                self._give_up(f"the peer belongs to another user (uid {uid}; we are {os.geteuid()})")
            elif self._pid == 0:
                self._give_up("the peer is in another process namespace")
            else:
                self._is_connected = True
                self._obstacle = _UNANSWERED

    def _receive(self) -> None:
        data = self.link.receive()
        if data is None:
            return
        self._is_connected = False
        if not data:
            self._obstacle = f"process {self._pid} hung up: it serves as many others as it may, or has ended"
            return
        greeting = decode_greeting(data)
        if greeting is None:
            self._give_up(f"process {self._pid} gave an answer of {len(data)} bytes that is none of ours")
        elif greeting.agent != self.name:
            self._give_up(f"process {self._pid} is agent {greeting.agent!r}, whose socket the peer's metadata names")
        else:
            self._prove(greeting.address, greeting.nonce)

    def _prove(self, address: int, nonce: bytes) -> None:
        error = self.link.prove(self._pid, address, nonce)
        if error == 0:
            self._is_connected = True
            self._obstacle = None
        elif error == errno.EPERM:
            self._give_up(
                f"the kernel refuses to read the memory of process {self._pid} (EPERM): Yama's "
                "kernel.yama.ptrace_scope, a seccomp filter, or privileges that we lack and it has"
            )
        elif error in (errno.EFAULT, -1):
            self._give_up(f"process {self._pid} does not hold the nonce that it sent: it is another than it says")
        elif error == errno.ESRCH:
            self._give_up(f"process {self._pid} has ended, or is in another process namespace")
        else:
            self._obstacle = f"the peer could not be proved: {os.strerror(error)} ({errno.errorcode.get(error, error)})"

    def _give_up(self, obstacle: str) -> None:
        self._obstacle, self._is_final = obstacle, True
        self.link.hang_up()

    def __repr__(self) -> str:
        return f"<CmaPeer {self.name!r}: {self.obstacle or f'process {self._pid}'}>"
