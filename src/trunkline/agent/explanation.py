"""Which backend a transfer takes, and why; which backends an agent has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trunkline.backend.registry import available_backends
from trunkline.errors import NoBackendError
from trunkline.transfer.route import candidates, choose

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from trunkline.backend.contract import Capabilities
    from trunkline.transfer.engine import Engine
    from trunkline.transfer.route import Candidate, Work
    from trunkline.transfer.target import Target


@dataclass(frozen=True, slots=True)
class BackendReport:
    """One way to move bytes, as ``Agent.backends`` returns it.

    Attributes:
        name: Its name.
        is_open: Whether the agent has opened it.
        capabilities: What it can do; None for one that is not open.
        reason: Why it can't be used on this machine, in words; None if it can, or is open.
    """

    name: str
    is_open: bool
    capabilities: Capabilities | None
    reason: str | None

    def __str__(self) -> str:
        if self.capabilities is None:
            return f"{self.name}: {'not open' if self.reason is None else f'unavailable: {self.reason}'}"
        parts = {
            "here": self.capabilities.local_kinds,
            "at peers": self.capabilities.remote_kinds,
            "within the agent": self.capabilities.own_kinds,
        }
        reach = (f"{'+'.join(sorted(kind.name for kind in kinds))} {where}" for where, kinds in parts.items() if kinds)
        return f"{self.name}: open: {', '.join(reach)}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What ``Agent.explain`` returns; ``str`` of it is for people.

    Attributes:
        work: Kinds of memory, blocks and bytes.
        target: The name of the agent on the far side.
        backend: The backend that the transfer takes if it is made now; None if there is none.
        seconds: What it will take: by what the last transfers to this target made, else by the backend's figures.
        is_measured: Whether it is by what was measured.
        candidates: What each backend of the agent could do, in the agent's order.
    """

    work: Work
    target: str
    backend: str | None
    seconds: float | None
    is_measured: bool
    candidates: tuple[Candidate, ...]

    def __str__(self) -> str:
        work = self.work
        lines = [
            f"{work.nbytes:,} bytes in {work.rows:,} blocks, {work.near.name} here, {work.far.name} of {self.target!r}"
        ]
        for each in self.candidates:
            if each.obstacle is not None:
                lines.append(f"  {each.backend}: {each.obstacle}")
            else:
                taken = "taken" if each.backend == self.backend else "could, but takes longer"
                lines.append(f"  {each.backend}: {taken}, about {each.seconds * 1e6:,.0f} us by its figures")
        if self.is_measured and self.seconds is not None:
            lines.append(f"  about {self.seconds * 1e6:,.0f} us at the rate of the last transfer")
        return "\n".join(lines)


def explain_work(engine: Engine, target: Target, work: Work, only: Collection[str] | None) -> Explanation:
    """Say which backend moves some bytes, and why."""
    found = candidates(engine, target, work, only)
    try:
        backend: str | None = choose(engine, target, work, only).backend
    except NoBackendError:
        backend = None
    rate = target.rates.get(backend or "")
    seconds = next((each.seconds for each in found if each.backend == backend), None)
    if rate is not None and seconds is not None:
        seconds = work.nbytes / rate
    return Explanation(work, target.name, backend, seconds, rate is not None, tuple(found))


def report_backends(engine: Engine, failures: Mapping[str, str]) -> Sequence[BackendReport]:
    """Return the open backends in the agent's order, then the others that are installed, with what they lack.

    Args:
        engine: The agent's engine.
        failures: Why backends that should have been opened were not.
    """
    reports = [BackendReport(name, True, engine.capabilities[name], None) for name in list(engine.backends)]
    for name, reason in available_backends().items():
        if name.upper() not in engine.backends:
            reports.append(BackendReport(name.upper(), False, None, failures.get(name.upper(), reason)))
    return reports
