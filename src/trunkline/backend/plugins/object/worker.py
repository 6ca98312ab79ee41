"""The thread that talks to the store: an event loop that carries rounds out, a bounded number of requests at once."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from trunkline.backend.contract import Operation, Status
from trunkline.backend.plugins.object.failure import explain
from trunkline.errors import BackendError, ClosedError, ForkedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from trunkline.backend.plugins.object.config import Location
    from trunkline.backend.plugins.object.plan import Plan
    from trunkline.backend.plugins.object.request import ObjectRequest

DRAIN = 5.0
"""Seconds that writes which were stopped may take to end, and their uploads to be aborted at the store."""


class Round:
    """One posting of a request, as the event loop sees it: it does not refer to the request."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.done = np.zeros(len(plan.part_object), np.bool_)
        self.is_stopping = False
        self.failure = ""
        self.tasks: list[asyncio.Task[None]] = []
        self.next_job = 0
        self.tags: dict[int, str | None] = {}
        """The entity tag of each object that was read."""

    def take(self) -> int | None:
        """Return the next job, None if there is none or no more may begin."""
        if self.is_stopping or self.next_job == len(self.plan.jobs) - 1:
            return None
        self.next_job += 1
        return self.next_job - 1

    @property
    def progress(self) -> str:
        """How many bytes of how many have arrived."""
        return f"{int(self.plan.part_bytes[self.done].sum()):,} of {self.plan.total:,} bytes had arrived"


class _StoppedError(Exception):
    """Ends an upload from within, so that obstore aborts it at the store."""


class Worker:
    """Runs the event loop in a thread of its own, started when it is first needed.

    Args:
        agent_name: The agent's.
        location: The store.
        concurrency: Most requests to the store at once.
    """

    def __init__(self, agent_name: str, location: Location, concurrency: int) -> None:
        self.agent_name = agent_name
        self.lock = threading.RLock()  # guards what follows and the segments
        self.finished: dict[ObjectRequest, None] = {}
        """Ended and not yet reported, in order."""
        self.is_woken = False
        self.is_closed = False
        self._location = location
        self._concurrency = concurrency
        self._changed = threading.Condition(self.lock)
        self._running: dict[Round, ObjectRequest] = {}
        self._rounds: set[asyncio.Task[None]] = set()  # the loop's own
        self._closing = asyncio.Event()
        self._slots = asyncio.Semaphore(concurrency)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = os.getpid()

    def check_process(self) -> None:
        """Raise ForkedError in a child process: it has no such thread, and may have found the lock taken."""
        if self._process != os.getpid():
            raise ForkedError(
                f"the OBJ backend of agent {self.agent_name!r} was made before this process was forked; make a new "
                "agent in the child",
                agent=self.agent_name,
            )

    def check_open(self) -> None:
        """Raise ClosedError, or ForkedError in a child process."""
        self.check_process()
        if self.is_closed:
            raise ClosedError(f"the OBJ backend of agent {self.agent_name!r} is closed", agent=self.agent_name)

    def begin(self, request: ObjectRequest, round_: Round) -> None:
        """Have a round carried out (under the lock).

        Raises:
            BackendError: The thread could not be started.
        """
        loop = self._running_loop()
        self._running[round_] = request
        loop.call_soon_threadsafe(self._start, round_)

    def stop(self, round_: Round) -> None:
        """Begin nothing more of a round; reads end now, writes within DRAIN seconds."""
        self.check_process()
        with self.lock:
            if round_ in self._running and not self.is_closed:
                round_.is_stopping = True
                self._running_loop().call_soon_threadsafe(self._halt, round_)

    def query(self, keys: Sequence[str]) -> list[Any]:
        """Return what the store says of each object, None where there is none.

        Raises:
            BackendError: It could not be found out.
            ClosedError: The backend is closed, or was meanwhile.
        """
        self.check_process()
        with self.lock:
            self.check_open()
            loop = self._running_loop()
            answers = asyncio.run_coroutine_threadsafe(self._ask(keys), loop)
        try:
            return answers.result()
        except concurrent.futures.CancelledError:
            self.check_open()
            raise

    def wait(self, holds: Callable[[], object], until: float) -> None:
        """Sleep until something holds, or ``time.monotonic()`` reaches ``until``."""
        self.check_process()
        with self.lock:
            while not holds():
                left = until - time.monotonic()
                if left <= 0:
                    return
                self._changed.wait(min(left, threading.TIMEOUT_MAX))

    def wake(self) -> None:
        """Have who waits look again."""
        with self.lock:
            self._changed.notify_all()

    def close(self) -> None:
        """Stop everything and end the thread, within some DRAIN seconds. Idempotent."""
        if self._process != os.getpid():
            return
        with self.lock:
            if not self.is_closed:
                self.is_closed = True
                self._changed.notify_all()
                if self._loop is not None:
                    self._loop.call_soon_threadsafe(self._closing.set)
        if (
            self._thread is not None and self._thread is not threading.current_thread()
        ):  # a dropped agent's end may run here
            self._thread.join()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop, started if need be (under the lock)."""
        if self._loop is not None:
            return self._loop
        try:
            loop = asyncio.new_event_loop()
            thread = threading.Thread(
                target=self._run, args=(loop,), name=f"trunkline-obj-{self.agent_name}", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:
                loop.close()
                raise
        except (OSError, RuntimeError) as error:
            raise BackendError(
                f"the OBJ backend of agent {self.agent_name!r} can't start its thread ({error}): raise the limits of "
                "processes and open files",
                agent=self.agent_name,
            ) from error
        self._loop, self._thread = loop, thread
        return loop

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.run_until_complete(self._live())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    async def _live(self) -> None:
        await self._closing.wait()
        for round_ in list(self._running):
            self._halt(round_)
        if self._rounds:
            await asyncio.wait(list(self._rounds), timeout=DRAIN)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)

    def _start(self, round_: Round) -> None:
        task = asyncio.get_running_loop().create_task(self._carry(round_))
        self._rounds.add(task)
        task.add_done_callback(self._rounds.discard)

    def _halt(self, round_: Round) -> None:
        """Stop a round (on the loop)."""
        round_.is_stopping = True
        if round_.plan.operation is Operation.READ:
            _cancel(round_)
        else:
            asyncio.get_running_loop().call_later(DRAIN, _cancel, round_)

    async def _carry(self, round_: Round) -> None:
        try:
            if not self.is_closed:
                count = min(self._concurrency, len(round_.plan.jobs) - 1)
                round_.tasks = [asyncio.create_task(self._work(round_)) for _ in range(count)]
                await asyncio.gather(*round_.tasks, return_exceptions=True)
        finally:
            self._end(round_)

    def _end(self, round_: Round) -> None:
        round_.tasks = []
        with self.lock:
            request = self._running.pop(round_)
            if self.is_closed:
                request.end(
                    Status.FAILED, f"the OBJ backend of agent {self.agent_name!r} was closed; {round_.progress}"
                )
            elif round_.failure:
                request.end(Status.FAILED, round_.failure)
            else:
                request.end(Status.DONE if round_.done.all() else Status.STOPPED)
            self.finished[request] = None
            del request  # while nobody can look: who sees the end may count on nothing being kept here
            self._changed.notify_all()

    async def _work(self, round_: Round) -> None:
        plan = round_.plan
        while (job := round_.take()) is not None:
            first, last = int(plan.jobs[job]), int(plan.jobs[job + 1])
            async with self._slots:
                if round_.is_stopping:
                    return
                try:
                    if plan.operation is Operation.READ:
                        await self._read(round_, first)
                    else:
                        await self._write(round_, first, last, int(plan.chunk[job]))
                except _StoppedError:
                    return
                except Exception as error:  # whatever it is, the round has to end with it
                    self._fail(round_, first, last, error)
                    return

    def _fail(self, round_: Round, first: int, last: int, error: Exception) -> None:
        plan = round_.plan
        if round_.failure or (round_.is_stopping and isinstance(error, _StoppedError)):
            return
        said = str(error) if isinstance(error, BackendError) else explain(error, self._location.redaction)
        name = self._location.name(plan.keys[int(plan.part_object[first])])
        start, end = int(plan.part_start[first]), int(plan.part_end[last - 1])
        round_.failure = (
            f"{plan.operation.name} of bytes {start} to {end - 1} of {name} failed: {said}; {round_.progress}"
        )
        self._halt(round_)

    async def _read(self, round_: Round, part: int) -> None:
        plan = round_.plan
        number, start, end = int(plan.part_object[part]), int(plan.part_start[part]), int(plan.part_end[part])
        result = await self._location.store.get_async(plan.keys[number], options={"range": (start, end)})
        data = await result.bytes_async()
        meta = result.meta
        if len(data) != end - start:
            raise BackendError(f"the object is {meta['size']:,} bytes long: register and read no more than there is")
        tag = meta.get("e_tag")
        if round_.tags.setdefault(number, tag) != tag:
            raise BackendError("the object was replaced while it was read: read it again")
        plan.scatter(part, data)
        round_.done[part] = True

    async def _write(self, round_: Round, first: int, last: int, chunk: int) -> None:
        plan, store = round_.plan, self._location.store
        key = plan.keys[int(plan.part_object[first])]
        if last - first == 1:
            await store.put_async(key, plan.gather(first), use_multipart=False)
        else:
            taken = 1
            while taken < last - first and not self._slots.locked():
                await self._slots.acquire()
                taken += 1
            try:
                await store.put_async(
                    key, _parts(round_, first, last), use_multipart=True, chunk_size=chunk, max_concurrency=taken
                )
            except Exception as error:
                # What ended the upload from within comes back as it is, or wrapped by obstore.
                if round_.is_stopping and _StoppedError.__name__ in f"{type(error).__name__} {error}":
                    raise _StoppedError from error
                raise
            finally:
                for _ in range(taken - 1):
                    self._slots.release()
        round_.done[first:last] = True

    async def _ask(self, keys: Sequence[str]) -> list[Any]:
        async def ask(key: str) -> Any:
            async with self._slots:
                try:
                    return await self._location.store.head_async(key)
                except FileNotFoundError:
                    return None
                except Exception as error:
                    name, said = self._location.name(key), explain(error, self._location.redaction)
                    # Without its cause: that is printed with it, and may hold a signed URL.
                    raise BackendError(f"asking about {name} failed: {said}", key=key) from None

        tasks = [asyncio.create_task(ask(key)) for key in keys]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:  # once one has failed
                task.cancel()


async def _parts(round_: Round, first: int, last: int) -> AsyncIterator[Any]:
    for part in range(first, last):
        if round_.is_stopping:
            raise _StoppedError
        yield round_.plan.gather(part)


def _cancel(round_: Round) -> None:
    for task in round_.tasks:
        task.cancel()
