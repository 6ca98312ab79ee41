"""Workers of one run as threads of this process."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from trunkline.bench.coordinator import Alone
from trunkline.bench.engine.trunkline import TrunklineEngine
from trunkline.bench.worker import Worker
from trunkline.errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from trunkline.bench.coordinator import Coordinator
    from trunkline.bench.engine.contract import Engine
    from trunkline.bench.options import Options
    from trunkline.bench.plan import Step
    from trunkline.bench.result import Row
    from trunkline.bench.roles import Roles
    from trunkline.bench.team import Introduction, Link

PATIENCE = 60.0


class Meeting:
    """Where the threads of a run meet."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.barrier = threading.Barrier(size)
        self.values: list[Any] = [None] * size


class ThreadGroup:
    """A group whose workers are threads; subsets of ranks are not for it."""

    def __init__(self, meeting: Meeting, rank: int) -> None:
        self._meeting = meeting
        self.rank = rank
        self.size = meeting.size

    def barrier(self, *, ranks: Iterable[int] | None = None, timeout: float = PATIENCE) -> None:
        assert ranks is None
        try:
            self._meeting.barrier.wait(timeout)
        except threading.BrokenBarrierError:
            raise ClosedError("another worker gave up") from None

    def allgather(self, value: bytes, *, timeout: float = PATIENCE) -> list[Any]:
        self._meeting.values[self.rank] = value
        self.barrier(timeout=timeout)
        found = list(self._meeting.values)
        self.barrier(timeout=timeout)
        return found

    def gather(self, value: bytes, *, timeout: float = PATIENCE) -> list[Any] | None:
        found = self.allgather(value, timeout=timeout)
        return found if self.rank == 0 else None


class Recorder:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.links: list[Link] = []
        self.workers: list[Introduction] = []
        self.warnings: list[str] = []
        self.steps: list[Step] = []

    def introduced(self, rank: int, workers: list[Introduction], roles: Roles, links: list[Link]) -> None:
        self.workers, self.links = workers, links

    def stepping(self, step: Step, count: int) -> None:
        self.steps.append(step)

    def measured(self, row: Row) -> None:
        self.rows.append(row)

    def note(self, text: str) -> None:
        self.warnings.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def run_workers(*options: Options, wrap: Callable[[Engine], Engine] = lambda engine: engine) -> Recorder:
    """Run a worker for each of these options, and return what the first one's listener was told.

    Args:
        *options: Each worker's.
        wrap: Puts something around each engine.

    Raises:
        BaseException: The first failure of any worker.
    """
    meeting = Meeting(len(options))
    recorders = [Recorder() for _ in options]
    failures: list[BaseException] = []

    def work(rank: int) -> None:
        group: Coordinator = Alone() if len(options) == 1 else ThreadGroup(meeting, rank)

        def open_engine(kind: str, name: str) -> Engine:
            assert kind == "trunkline"
            return wrap(TrunklineEngine(name, None, "", options[rank]))

        try:
            Worker(group, options[rank], open_engine, recorders[rank]).run()
        except BaseException as error:
            failures.append(error)
            meeting.barrier.abort()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(len(options))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return recorders[0]
