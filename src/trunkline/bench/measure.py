"""The loops that are measured: one transfer after the other, several under way, or so many a second."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from trunkline.bench.statistics import Samples
from trunkline.errors import ClosedError, DeadlineError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trunkline.bench.engine.contract import Request

_now = time.perf_counter_ns

SPIN_NS = 200_000
"""How long before the time of a transfer in an open loop a thread stops sleeping."""


class Pace(NamedTuple):
    """How transfers follow each other.

    Attributes:
        is_recreated: Whether requests are made anew for each transfer.
        rate: Transfers a second of each thread; 0 for one as soon as another ended.
        timeout: Seconds that one transfer may take.
    """

    is_recreated: bool
    rate: float
    timeout: float


class Lane:
    """A place for one transfer under way: one request for each peer.

    Args:
        make: Makes the requests.
    """

    def __init__(self, make: Callable[[], Sequence[Request]]) -> None:
        self.make = make
        began = _now()
        self.requests: Sequence[Request] = make()
        self.prepare_ns = _now() - began
        self.started = 0

    def post(self) -> None:
        """Start the transfer."""
        for request in self.requests:
            request.post()

    def poll(self) -> bool:
        """Return whether it is done."""
        are_done = True
        for request in self.requests:  # each of them is to be driven
            are_done = request.poll() and are_done
        return are_done

    def wait(self, timeout: float) -> None:
        """Wait until it is done."""
        for request in self.requests:
            request.wait(timeout)


def measure(threads: Sequence[Sequence[Lane]], iterations: int, pace: Pace) -> Samples:
    """Move ``iterations`` transfers on each thread's lanes and return what the clocks said.

    The first thread is the caller's own.

    Raises:
        TrunklineError: A transfer failed or took too long; the other threads have ended then.
    """
    stop = threading.Event()
    results: list[Samples | None] = [None] * len(threads)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            results[number] = _Loop(threads[number], iterations, pace, stop).run()
        except BaseException as error:  # whatever it is, the caller gets it
            failures.append(error)
            stop.set()

    others = [
        threading.Thread(target=work, args=(number,), name=f"trunkline-bench-{number}", daemon=True)
        for number in range(1, len(threads))
    ]
    for each in others:
        each.start()
    try:
        work(0)
        for each in others:
            each.join()
    except BaseException:
        stop.set()
        for each in others:
            each.join()
        raise
    if failures:
        raise failures[0]
    return Samples.join([each for each in results if each is not None])


class _Loop:
    """One thread's."""

    def __init__(self, lanes: Sequence[Lane], iterations: int, pace: Pace, stop: threading.Event) -> None:
        self._lanes = lanes
        self._iterations = iterations
        self._pace = pace
        self._stop = stop
        self._began: list[int] = []
        self._prepare: list[int] = [] if pace.is_recreated else [lane.prepare_ns for lane in lanes]
        self._post: list[int] = []
        self._transfer: list[int] = []
        self._ended: list[int] = []

    def run(self) -> Samples:
        if self._pace.rate:
            self._run_open()
        else:
            self._run_closed()
        return Samples.of((self._began, self._prepare, self._post, self._transfer, self._ended))

    def _run_closed(self) -> None:
        lanes, depth, timeout = self._lanes, len(self._lanes), self._pace.timeout
        for number in range(self._iterations + depth):
            if self._stop.is_set():
                raise ClosedError("another thread's transfer failed")
            lane = lanes[number % depth]
            if number >= depth:
                lane.wait(timeout)
                self._end(lane)
            if number < self._iterations:
                self._begin(lane, 0)

    def _run_open(self) -> None:
        """Start each transfer at its time, or as soon as a lane is free; its latency counts from its time."""
        interval = 1e9 / self._pace.rate
        free, busy = deque(self._lanes), deque[Lane]()
        first = _now()
        begun = 0
        while begun < self._iterations or busy:
            if self._stop.is_set():
                raise ClosedError("another thread's transfer failed")
            due = first + int(begun * interval)
            if begun < self._iterations and free and _now() >= due:
                lane = free.popleft()
                self._begin(lane, due)
                busy.append(lane)
                begun += 1
            elif not busy:
                spare = due - _now()
                if spare > SPIN_NS:
                    time.sleep((spare - SPIN_NS) / 1e9)
            elif begun == self._iterations:
                busy[0].wait(self._pace.timeout)
            if busy and busy[0].poll():
                lane = busy.popleft()
                self._end(lane)
                free.append(lane)
            elif busy and _now() - busy[0].started > self._pace.timeout * 1e9:
                raise DeadlineError(f"a transfer is still running after {self._pace.timeout:g} s (--timeout)")

    def _begin(self, lane: Lane, due: int) -> None:
        began = posting = _now()
        if self._pace.is_recreated:
            lane.requests = ()  # they end before what they were made of
            lane.requests = lane.make()
            posting = _now()
            self._prepare.append(posting - began)
        lane.post()
        posted = _now()
        self._began.append(due or began)
        self._post.append(posted - posting)
        lane.started = posting

    def _end(self, lane: Lane) -> None:
        ended = _now()
        self._transfer.append(ended - lane.started)
        self._ended.append(ended)
