"""The agent for event loops: the same methods, awaited where they wait."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Self

from trunkline.agent.agent import Agent
from trunkline.agent.phone_book import DRAIN
from trunkline.clock import DEFAULT, Timeout
from trunkline.errors import ClosedError, DeadlineError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from trunkline.agent.explanation import BackendReport, Explanation
    from trunkline.agent.offer import MemoryPart
    from trunkline.agent.pair import PreparedPair
    from trunkline.agent.peer import Peer
    from trunkline.agent.phone_book import Health
    from trunkline.directory.view import DirectoryView
    from trunkline.directory.watch import DirectoryWatch
    from trunkline.transfer.handle import TransferHandle
    from trunkline.transfer.inbox import Notification


class AsyncAgent:
    """An :class:`Agent` whose waiting methods are coroutines; use it as an async context manager.

    Calls to the store run in a thread of the loop's default executor; transfers (whose handles can be awaited) and
    notifications wake the loop. Cancelling a coroutine stops the waiting, not what it waits for: a fetch goes on
    in its thread until its timeout.

    Args:
        name: As for Agent.
        **options: As for Agent. Nothing is opened before ``async with`` (or :meth:`open`).
    """

    def __init__(self, name: str, **options: Any) -> None:
        self.name = name
        self._options = options
        self._agent: Agent | None = None

    async def open(self) -> None:
        """Open it; raises what Agent's constructor raises. Idempotent."""
        if self._agent is None:
            self._agent = await asyncio.to_thread(Agent, self.name, **self._options)

    @property
    def agent(self) -> Agent:
        """The agent underneath, for its other methods.

        Raises:
            ClosedError: It was not opened.
        """
        if self._agent is None:
            raise ClosedError(f"agent {self.name!r} is not open: use `async with AsyncAgent(...)` or await open()")
        return self._agent

    async def create_backend(self, name: str, **options: Any) -> None:
        """As Agent.create_backend."""
        await asyncio.to_thread(self.agent.create_backend, name, **options)

    async def backends(self) -> Sequence[BackendReport]:
        """As Agent.backends."""
        return await asyncio.to_thread(self.agent.backends)

    def register(self, memory: Any, **options: Any) -> Any:
        """As Agent.register; doesn't wait."""
        return self.agent.register(memory, **options)

    async def deregister(
        self,
        memory: MemoryPart,
        *,
        drain: float = DRAIN,
        timeout: Timeout = DEFAULT,
    ) -> None:
        """As Agent.deregister."""
        await asyncio.to_thread(self.agent.deregister, memory, drain=drain, timeout=timeout)

    async def publish(self, *, timeout: Timeout = DEFAULT, **options: Any) -> int:
        """As Agent.publish."""
        return await asyncio.to_thread(self.agent.publish, timeout=timeout, **options)

    async def withdraw(self, *, label: str | None = None, timeout: Timeout = DEFAULT) -> int:
        """As Agent.withdraw."""
        return await asyncio.to_thread(self.agent.withdraw, label=label, timeout=timeout)

    async def update_attributes(self, attributes: Mapping[str, str], *, timeout: Timeout = DEFAULT) -> int:
        """As Agent.update_attributes."""
        return await asyncio.to_thread(self.agent.update_attributes, attributes, timeout=timeout)

    async def fetch(self, name: str, *, timeout: Timeout = DEFAULT, **options: Any) -> Peer:
        """As Agent.fetch."""
        return await asyncio.to_thread(self.agent.fetch, name, timeout=timeout, **options)

    async def fetch_many(self, names: Sequence[str], *, timeout: Timeout = DEFAULT, **options: Any) -> list[Peer]:
        """As Agent.fetch_many."""
        return await asyncio.to_thread(self.agent.fetch_many, names, timeout=timeout, **options)

    def watch(self, pattern: str = "*", /, **options: Any) -> DirectoryWatch:
        """As Agent.watch; use ``async for`` on it."""
        return self.agent.watch(pattern, **options)

    def peers(self) -> DirectoryView:
        """As Agent.peers."""
        return self.agent.peers()

    async def drain(self, timeout: Timeout = DEFAULT) -> None:
        """As Agent.drain."""
        await asyncio.to_thread(self.agent.drain, timeout)

    def health(self) -> Health:
        """As Agent.health."""
        return self.agent.health()

    @property
    def attributes(self) -> Mapping[str, str]:
        """As Agent.attributes."""
        return self.agent.attributes

    @property
    def lost(self) -> str | None:
        """As Agent.lost."""
        return self.agent.lost

    def card(self) -> bytes:
        """As Agent.card."""
        return self.agent.card()

    def local_metadata(self, segments: Any = None, **options: Any) -> bytes:
        """As Agent.local_metadata."""
        return self.agent.local_metadata(segments, **options)

    def load_peer(self, data: bytes, **options: Any) -> Peer:
        """As Agent.load_peer."""
        return self.agent.load_peer(data, **options)

    def peer(self, name: str) -> Peer:
        """As Agent.peer."""
        return self.agent.peer(name)

    def unload_peer(self, name: str) -> None:
        """As Agent.unload_peer."""
        self.agent.unload_peer(name)

    def read(self, remote: Any, **options: Any) -> TransferHandle:
        """As Agent.read; await the handle it returns."""
        return self.agent.read(remote, **options)

    def write(self, local: Any, **options: Any) -> TransferHandle:
        """As Agent.write; await the handle it returns."""
        return self.agent.write(local, **options)

    def prepare(self, local: Any, remote: Any, **options: Any) -> PreparedPair:
        """As Agent.prepare."""
        return self.agent.prepare(local, remote, **options)

    async def query(self, names: Sequence[str], **options: Any) -> list[Mapping[str, str] | None]:
        """As Agent.query."""
        return await asyncio.to_thread(self.agent.query, names, **options)

    def explain(self, request: PreparedPair | TransferHandle) -> Explanation:
        """As Agent.explain."""
        return self.agent.explain(request)

    def take_finished(self) -> list[TransferHandle]:
        """As Agent.take_finished."""
        return self.agent.take_finished()

    def notify(self, peer: str | Peer, payload: bytes) -> None:
        """As Agent.notify."""
        self.agent.notify(peer, payload)

    def take_notifications(self) -> list[Notification]:
        """As Agent.take_notifications."""
        return self.agent.take_notifications()

    async def wait_notification(
        self, *, matches: Callable[[Notification], bool] | None = None, timeout: Timeout = DEFAULT
    ) -> Notification:
        """As Agent.wait_notification; woken by the arrival, no thread is held."""
        agent = self.agent
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
                loop.call_soon_threadsafe(arrived.set)

        seconds = agent.timeout if timeout is DEFAULT else timeout
        agent.engine.inbox.add_listener(wake)
        try:
            async with asyncio.timeout(seconds):
                while True:
                    agent.engine.check_open()
                    found = agent.engine.inbox.pop(matches)
                    if found is not None:
                        return found
                    await arrived.wait()
                    arrived.clear()
        except TimeoutError:
            raise DeadlineError(f"agent {self.name!r} got no notification in {seconds} s", agent=self.name) from None
        finally:
            agent.engine.inbox.remove_listener(wake)

    async def close(self, timeout: Timeout = DEFAULT, *, drain: float = DRAIN) -> None:
        """As Agent.close. Idempotent."""
        if self._agent is not None:
            await asyncio.to_thread(self._agent.close, timeout, drain=drain)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<AsyncAgent {self.name!r}, {'not open' if self._agent is None else repr(self._agent)}>"
