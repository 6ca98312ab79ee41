"""Processes with publishers and watches, and the etcd that they use, under fault control."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.fault.directory.model import Model, new_incarnation, replay

from trunkline.directory import Directory
from trunkline.errors import StoreRequestError
from trunkline.etcd.client import EtcdClient
from trunkline.etcd.config import EtcdConfig
from trunkline.metadata.key import MetadataKey
from trunkline.store import open_store
from trunkline.store.contract import Delete, Transaction
from trunkline.testing.proxy import TcpProxy
from trunkline.testing.waiting import stop_process

if TYPE_CHECKING:
    from types import TracebackType

    from trunkline.testing.etcd import EtcdServer

TTL = 2.0
"""Of every publisher here; the least that etcd grants."""

PATIENCE = 40.0
"""Seconds within which everything has to be as it should be after a fault; for busy machines, never an expected
time."""


class Member:
    """A process that runs ``participant.py``.

    Args:
        endpoint: The etcd.
        namespace: The namespace.
    """

    def __init__(self, endpoint: str, namespace: str) -> None:
        self.names: list[str] = []
        self._asked = "start"
        self._received = b""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it goes with the member
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("participant.py")), endpoint, namespace],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "GRPC_VERBOSITY": "NONE"},
        )

    def send(self, do: str, **arguments: Any) -> None:
        """Have something done; :meth:`answer` waits for it."""
        assert self._process.stdin is not None
        self._asked = f"{do} {arguments}"
        self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self, timeout: float = 2 * PATIENCE) -> Any:
        """Return the value that was answered, or raise what failed."""
        found = self.outcome(timeout)
        assert "error" not in found, f"{self.names}: {self._asked}: {found}"
        return found["value"]

    def outcome(self, timeout: float = 2 * PATIENCE) -> dict[str, Any]:
        """Return what was answered: ``value``, or ``error``, ``retryable`` and ``text``."""
        assert self._process.stdout is not None
        end = time.monotonic() + timeout
        while b"\n" not in self._received:
            left = max(0.0, end - time.monotonic())
            assert select.select([self._process.stdout], [], [], left)[0], f"{self.names}: {self._asked}: no answer"
            data = os.read(self._process.stdout.fileno(), 1 << 20)
            assert data, f"{self.names}: {self._asked}: the process has ended: {self._last_words()}"
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def _last_words(self) -> str:
        """Return the process's exit status and the end of what it wrote on its error stream."""
        status = self._process.wait(PATIENCE)
        self._errors.seek(0)
        return f"status {status}: {self._errors.read().decode(errors='replace')[-4000:]}"

    def ask(self, do: str, **arguments: Any) -> Any:
        """Have something done and return its value."""
        self.send(do, **arguments)
        return self.answer()

    def try_to(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Have something done that may fail, and return how it went."""
        self.send(do, **arguments)
        return self.outcome()

    def stop(self) -> None:
        """SIGSTOP; return when the process stands."""
        stop_process(self._process)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and close the pipes."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class Fleet:
    """Members of one namespace, a model of who of them lives, and what a meddler does to their keys.

    Args:
        endpoint: The etcd.
        namespace: The namespace; else one that nobody else uses.
    """

    def __init__(self, endpoint: str, namespace: str = "") -> None:
        self.endpoint = endpoint
        self.namespace = namespace or f"/faults/{uuid.uuid4().hex}"
        self.members: list[Member] = []
        self.model = Model()
        self._cleanup = contextlib.ExitStack()
        self._store = self._cleanup.enter_context(open_store(endpoint))
        self._published = 0

    def launch(self, *, endpoint: str = "") -> Member:
        """Start a process; it answers once when its watch is open."""
        member = Member(endpoint or self.endpoint, self.namespace)
        self._cleanup.callback(member.kill)
        self.members.append(member)
        return member

    def launch_proxied(self, port: int) -> tuple[Member, TcpProxy]:
        """Start a process whose way to etcd leads through a proxy."""
        proxy = self._cleanup.enter_context(TcpProxy(port))
        return self.launch(endpoint=proxy.endpoint), proxy

    def open(self, member: Member, *names: str, takeover: bool = False) -> None:
        """Have a member open publishers, and publish something under each name."""
        incarnations = [new_incarnation() for _ in names]
        member.ask("open", names=list(names), incarnations=incarnations, takeover=takeover)
        member.names.extend(names)
        for name, incarnation in zip(names, incarnations, strict=True):
            self.model.opened(name, incarnation)
        self.publish(member, *names)

    def start(self, *groups: tuple[str, ...]) -> list[Member]:
        """Start members at the same time, one for each group of names, and have them publish."""
        members = [self.launch() for _ in groups]
        for member in members:
            member.answer()
        for member, names in zip(members, groups, strict=True):
            self.open(member, *names)
        return members

    def publish(self, member: Member, *names: str, timeout: float = 30.0) -> dict[str, Any]:
        """Have a member publish something new; what fails for the store counts, for it will be made up for."""
        self._published += 1
        value = f"publication {self._published}"
        found = member.try_to("publish", value=value, names=list(names), timeout=timeout)
        if "error" not in found or found["error"] == "StoreUnavailableError":
            for name in names:
                self.model.published(name, value)
        return found

    def kill(self, member: Member) -> None:
        """SIGKILL: what it held is dead."""
        member.kill()
        self.forget(member)
        for name in member.names:
            self.model.ended(name)

    def forget(self, member: Member) -> None:
        """Ask this member no more."""
        self.members.remove(member)

    # -- what a meddler does -----------------------------------------------------------------------------------

    def delete_presence(self, name: str) -> None:
        self._delete(MetadataKey(self.namespace, name).presence)

    def delete_marker(self, name: str) -> None:
        self._delete(MetadataKey(self.namespace, name).marker)

    def delete_everything(self) -> None:
        """Delete all keys of the namespace."""
        self._delete(*(each.key for each in self._store.list(f"{self.namespace}/", keys_only=True, timeout=30).entries))

    def _delete(self, *keys: str) -> None:
        self._store.transact(Transaction((), tuple(map(Delete, keys))), timeout=30)

    def has_marker(self, name: str) -> bool:
        return self._store.get(MetadataKey(self.namespace, name).marker, timeout=30)[0] is not None

    def lease_of(self, name: str) -> int:
        """Return the lease of an agent's record; 0 if it has none."""
        entry, _ = self._store.get(MetadataKey(self.namespace, name).presence, timeout=30)
        return entry.lease if entry is not None else 0

    def revoke(self, name: str) -> None:
        """Revoke an agent's lease, if it has one now."""
        lease = self.lease_of(name)
        if lease:
            self._store.revoke(lease, timeout=30)

    def compact(self) -> None:
        """Have etcd forget all of its history so far."""
        with (
            EtcdClient(EtcdConfig.parse(self.endpoint, environment={})) as client,
            contextlib.suppress(StoreRequestError),  # nothing has happened since the last time
        ):
            client.compact(self._store.get("/", timeout=30)[1], timeout=30)

    def names(self) -> list[str]:
        """Return the names that a one-shot listing finds."""
        return Directory(self._store, namespace=self.namespace).names(timeout=30)

    # -- what must be true -------------------------------------------------------------------------------------

    def check_seen(self) -> None:
        """Everybody sees exactly those that live, and finds what each published last."""
        for member in self.members:
            member.send("expect", listed=self.model.listed, timeout=PATIENCE)
        differences = {str(member.names): member.answer() for member in self.members}
        assert not any(differences.values()), f"expected {self.model.listed}, found {differences}"
        expected = self.model.contents
        found: dict[str, str] = {}
        end = time.monotonic() + PATIENCE
        for member in self.members:  # a publication that failed for the store may still be about to be made up for
            while (found := member.ask("fetch", names=list(expected))) != expected:
                assert time.monotonic() < end, f"expected {expected}, {member.names} found {found}"
                time.sleep(0.02)

    def check_told(self) -> None:
        """What each watch told from its beginning is consistent, and leads to those that live."""
        for member in self.members:
            events = member.ask("events")
            assert replay(events) == self.model.listed, f"{member.names} was told {events}"

    def check_closed(self) -> None:
        """Everything is closed: nothing is left in the processes and in etcd."""
        for member in self.members:
            member.send("close")
        left = {str(member.names): member.answer() for member in self.members}
        assert not any(left.values()), f"left behind: {left}"
        assert self.names() == []

    def check(self) -> None:
        """All of that; the members can't be used any more."""
        self.check_seen()
        self.check_told()
        self.check_closed()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()


def wipe(server: EtcdServer) -> None:
    """Kill etcd and start it with nothing: another cluster, whose revisions start again."""
    server.kill()
    shutil.rmtree(server.directory / "data", ignore_errors=True)  # there is none if it ended before it wrote any
    server.start()
