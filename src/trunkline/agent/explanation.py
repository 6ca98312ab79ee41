"""Which backend a transfer takes, and why; which backends an agent has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trunkline.backend.registry import available_backends
from trunkline.transfer.route import candidates, cheapest

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        backends: Those that move it, or would if it were made now; several where it is split; none if none can.
        seconds: What it takes: by what the last transfers to this target made, else by the backend's figures; None
            where there is no saying.
        is_measured: Whether it is by what was measured.
        candidates: What each backend of the agent could do now, in the agent's order.
    """

    work: Work
    target: str
    backends: tuple[str, ...]
    seconds: float | None
    is_measured: bool
    candidates: tuple[Candidate, ...]

    @property
    def backend(self) -> str | None:
        """The name of the backend; of several, joined by a plus sign; None if there is none."""
        return "+".join(self.backends) or None

    def __str__(self) -> str:
        work = self.work
        lines = [
            f"{work.nbytes:,} bytes in {work.rows:,} blocks, {work.near.name} here, {work.far.name} of {self.target!r}"
        ]
        longest = max((each.seconds for each in self.candidates if each.backend in self.backends), default=0.0)
        for each in self.candidates:
            if each.backend in self.backends:
                verdict = "taken"
            elif each.obstacle is not None:
                lines.append(f"  {each.backend}: {each.obstacle}")
                continue
            else:
                verdict = "could, but takes longer" if each.seconds > longest else "could as well"
            lines.append(f"  {each.backend}: {verdict}, about {each.seconds * 1e6:,.0f} us by its figures")
        if self.is_measured and self.seconds is not None:
            lines.append(f"  about {self.seconds * 1e6:,.0f} us at the rate of the last transfer")
        return "\n".join(lines)


def explain_work(
    engine: Engine, target: Target, work: Work, *, only: tuple[str, ...] = (), taken: tuple[str, ...] | None = None
) -> Explanation:
    """Say which backend moves some bytes, and why.

    Args:
        engine: The agent's engine.
        target: The far side.
        work: What is to be moved.
        only: The backends that the caller named; several for a transfer that is split over them.
        taken: The backends of a transfer that was made already.
    """
    found = tuple(candidates(engine, target, work, only or None))
    if taken is None:
        route = cheapest(engine, work, [each.route for each in found if each.route and each.obstacle is None])
        taken = () if route is None else (route.backend,)
        if len(only) > 1:
            able = [each.backend for each in found if each.obstacle is None]
            taken = only if set(only) <= set(able) else ()
    seconds = next((each.seconds for each in found if (each.backend,) == taken), None)
    rate = target.rates.get("+".join(taken))
    if rate is not None:
        least = max(engine.capabilities[name].cost.start for name in taken)
        seconds = max(least, work.nbytes / rate)
    return Explanation(work, target.name, taken, seconds, rate is not None, found)


def report_backends(engine: Engine) -> Sequence[BackendReport]:
    """Return the open backends in the agent's order, then the others that are installed, with what they lack."""
    reports = [BackendReport(name, True, engine.capabilities[name], None) for name in list(engine.backends)]
    left_out: dict[str, str | None] = dict(engine.unavailable)
    for name, reason in available_backends(but={*engine.backends, *left_out}).items():
        left_out[name.upper()] = reason
    return reports + [BackendReport(name, False, None, left_out[name]) for name in sorted(left_out)]
