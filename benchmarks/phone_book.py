"""Publishing and fetching through etcd."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

from benchmarks.figure import Measurement
from benchmarks.run import open_pair
from trunkline.store import open_store
from trunkline.store.contract import Put, Transaction

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.run import Run
    from trunkline.store.contract import Store

MEMORY = 4096
EXCHANGES = 8
SETTLE = 0.3
"""Seconds for a fetch to begin to wait, and for NIXL to be done with what went before."""

HEAD_START = 0.02
"""Seconds for a wait to begin that has nothing to prepare."""

SPREAD = 0.013
"""Seconds by which each wait is longer than the one before, a few times over: NIXL's threads look around at intervals,
and a publication should not meet them always at the same point."""


def measure(run: Run, side: str) -> Iterator[Measurement]:
    """Let ``b`` wait for ``a``, and ``a`` publish and withdraw; then let ``b`` fetch what is there. Several times."""
    waited, calls, forgotten, existing, puts = [], [], [], [], []
    with open_store(run.store) as store, open_pair(side, store=run.store) as (a, b):
        name = f"{side}-a"
        for process in (a, b):
            process.call("register", 1, MEMORY)
        _put(store)
        time.sleep(SETTLE)
        for exchange in range(run.repeat(EXCHANGES)):
            # NIXL watches from the revision of its own last look: keys between keep its past out of it.
            puts.append(_put(store))
            time.sleep(SETTLE)
            b.start("fetch", name)
            time.sleep(SETTLE + SPREAD * (exchange % 7))
            published, returned = a.call("publish")
            _, loaded = b.result()
            waited.append(loaded - published)
            calls.append(returned - published)
            time.sleep(SETTLE + SPREAD * (exchange % 7))
            b.start("wait_forgotten", name)
            time.sleep(HEAD_START)
            withdrawn = a.call("withdraw")
            gone = b.result()
            if gone is not None:
                forgotten.append(gone - withdrawn)
            b.call("forget", name)
            time.sleep(SETTLE)
            _put(store)
            a.call("publish")
            time.sleep(SETTLE)
            began, loaded = b.call("fetch", name)
            existing.append(loaded - began)
            a.call("withdraw")
            b.call("forget", name)
            time.sleep(SETTLE)
    yield Measurement("publish → loaded at a waiting peer", "ms", statistics.median(waited) * 1e3, "≤ 0.25")
    if forgotten:
        yield Measurement("withdraw → forgotten by a peer", "ms", statistics.median(forgotten) * 1e3, "≤ 0.05")
    yield Measurement("fetch of what is there → loaded", "ms", statistics.median(existing) * 1e3)
    yield Measurement("publish call (NIXL's returns unanswered)", "ms", statistics.median(calls) * 1e3)
    if side == "ours":
        put = statistics.median(puts)
        yield Measurement("one put in etcd, for reference", "ms", put * 1e3)
        yield Measurement("publish call / one put", "×", statistics.median(calls) / put, "one round trip")


def _put(store: Store) -> float:
    began = time.perf_counter()
    store.transact(Transaction((), (Put("/benchmark", bytes(512)),)), timeout=10)
    return time.perf_counter() - began
