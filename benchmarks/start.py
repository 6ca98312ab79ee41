"""What it takes to have an agent: import, creation, memory, threads, idle processor time."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.figure import Measurement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.run import Run

IDLE = 5.0
"""Seconds of idleness that are watched in a full run."""


def measure(run: Run, side: str) -> Iterator[Measurement]:
    """Start a fresh process, and for ours another one without Trunkline."""
    seen = _probe(side, run)
    yield Measurement("import", "ms", seen["import"])
    yield Measurement("import and agent creation, with etcd", "ms", seen["import"] + seen["creation"])
    yield Measurement("resident memory of an agent's process", "MB", seen["memory"], "≤ 1.3")
    yield Measurement("threads", "", seen["threads"])
    yield Measurement("processor time of an idle agent", "%", seen["idle"], "about 0")
    if side == "ours":
        share = seen["memory"] - _probe("bare", run)["memory"]
        yield Measurement("our part of it, over numpy + grpcio + UCX", "MB", share, "≤ 10 MB")


def _probe(subject: str, run: Run) -> dict[str, float]:
    arguments = [sys.executable, "-m", "benchmarks.probe", subject, run.store, str(IDLE * run.effort)]
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed: {ended.stderr}")
    seen: dict[str, float] = json.loads(ended.stdout.rpartition("\n\n")[2])
    return seen
