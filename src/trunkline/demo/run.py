"""The demo: two lives of prefill, one decode, and what was measured on the way."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trunkline.demo.model import MODELS
from trunkline.demo.process import RoleProcess
from trunkline.demo.role import PREFILL, Task
from trunkline.directory.event import LeaveReason
from trunkline.errors import TrunklineError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trunkline.etcd.keeper import Keeper

STEP_TIMEOUT = 60.0
"""Seconds within which each step has to happen."""


@dataclass(slots=True)
class Report:
    """What the demo saw.

    Attributes:
        figures: What was measured, in order: name and value with its unit.
        checks: Which claims held, in order.
        failure: Why the demo broke off, or None.
    """

    figures: dict[str, str] = field(default_factory=dict)
    checks: dict[str, bool] = field(default_factory=dict)
    failure: str | None = None

    @property
    def ok(self) -> bool:
        """Whether it ran to its end and every check held."""
        return self.failure is None and all(self.checks.values())


def run_demo(
    store: str,
    keeper: Keeper,
    *,
    model: str,
    blocks: int,
    devices: str,
    environment: Mapping[str, str],
    credentials: str | None = None,
    ttl: float | None = None,
) -> Report:
    """Run the demo to its end, good or bad; no process outlives it.

    Args:
        store: URL of the store; the demo keeps to a namespace of its own there.
        keeper: Ends its processes if this one is killed.
        model: Name of a model of :data:`~trunkline.demo.model.MODELS`.
        blocks: How many blocks prefill's cache has, at least 2; decode reads half of them.
        devices: Network interfaces that UCX may use.
        environment: More environment variables for the two roles.
        credentials: A credentials file for the store, empty for none; None leaves that to the environment.
        ttl: Seconds that the roles' keys outlive them.
    """
    task = Task(
        store=store,
        credentials=credentials,
        namespace=f"/trunkline/demo/{uuid.uuid4().hex}",
        model=model,
        blocks=blocks,
        devices=devices,
        step_timeout=STEP_TIMEOUT,
        ttl=ttl,
    )
    report = Report()
    try:
        with RoleProcess("decode", task, environment, keeper) as decode:
            decode.wait_event("ready")
            killed_at = _first_life(decode, task, environment, keeper, report)
            _second_life(decode, task, environment, keeper, report, killed_at)
    except TrunklineError as error:
        report.failure = str(error)
    return report


def _first_life(decode: RoleProcess, task: Task, environment: Mapping[str, str], keeper: Keeper, report: Report) -> int:
    with RoleProcess("prefill", task, environment, keeper) as prefill:
        published = prefill.wait_event("published")
        report.figures["publish"] = _milliseconds(published["began"], published["at"])
        loaded = decode.wait_event("loaded")
        report.checks[f"decode found {PREFILL} by name"] = True
        report.figures["publish → loaded by decode"] = _milliseconds(published["began"], loaded["at"])
        connected = decode.wait_event("connected")
        report.figures["connect"] = _milliseconds(connected["began"], connected["at"])
        decode.wait_event("checked")
        report.checks["names, shapes and element types are as expected"] = True
        _describe(decode.wait_event("read"), task, report)
        decode.wait_event("verified")
        report.checks["every byte is what prefill wrote"] = True
        report.checks["prefill was notified of the read"] = bool(prefill.wait_event("notified")["ok"])
        killed_at = time.monotonic_ns()
        prefill.kill()
    gone = decode.wait_event("gone")
    report.checks["decode's watch told that prefill was killed"] = gone["reason"] == LeaveReason.UNREACHABLE
    report.figures["death → noticed by decode"] = _milliseconds(killed_at, gone["at"])
    return killed_at


def _second_life(
    decode: RoleProcess, task: Task, environment: Mapping[str, str], keeper: Keeper, report: Report, killed_at: int
) -> None:
    import msgspec

    again = msgspec.structs.replace(task, life=2)
    with RoleProcess("prefill", again, environment, keeper) as prefill:
        published = prefill.wait_event("published")
        loaded = decode.wait_event("loaded")
        report.checks["prefill's return was loaded by itself"] = True
        report.figures["return → loaded by decode"] = _milliseconds(published["began"], loaded["at"])
        decode.wait_event("connected")
        decode.wait_event("checked")
        read = decode.wait_event("read")
        report.figures["death → reading again (with prefill's start)"] = _milliseconds(killed_at, read["at"])
        decode.wait_event("verified")
        report.checks["after its return, decode read the new bytes"] = True
        report.checks["prefill was notified again"] = bool(prefill.wait_event("notified")["ok"])


def _describe(read: Mapping[str, Any], task: Task, report: Report) -> None:
    shape = MODELS[task.model]
    seconds = read["total_us"] / 1e6
    report.figures["blocks"] = f"{task.read_blocks} of {task.blocks}, shuffled, in {shape.layers} layers"
    report.figures["bytes"] = f"{read['bytes']:,}"
    report.figures["read"] = f"{seconds * 1e3:.2f} ms"
    report.figures["rate"] = f"{read['bytes'] / seconds / 1e9:.2f} GB/s"
    report.figures["transport"] = ", ".join(read["transports"]) or "unknown"
    report.checks["one transfer moved all blocks"] = read["bytes"] == task.read_blocks * shape.block_bytes


def _milliseconds(began: int, ended: int) -> str:
    return f"{(ended - began) / 1e6:.2f} ms"
