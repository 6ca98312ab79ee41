"""Which backend moves a transfer: what each of an agent's could do, and the rules by which one is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from trunkline.errors import NoBackendError

if TYPE_CHECKING:
    from collections.abc import Collection

    from trunkline.memory.kind import MemoryKind
    from trunkline.memory.section import Section
    from trunkline.transfer.engine import Engine
    from trunkline.transfer.target import Target


_UNREGISTERED = "no such memory is registered with it"


class Route(NamedTuple):
    """A backend, and whose account of segments it goes by.

    Attributes:
        backend: The backend that moves the bytes.
        near: The backend that registered the local memory: itself, unless it is keyless.
        far: Likewise for the far side.
        rival: A backend that takes less and goes by the same account, but whose link had an obstacle; None if there
            is none.
    """

    backend: str
    near: str
    far: str
    rival: str | None = None

    @classmethod
    def direct(cls, backend: str) -> Route:
        """Return the route of a backend that goes by its own account."""
        return cls(backend, backend, backend)


class Candidate(NamedTuple):
    """What one backend could do for a transfer.

    Attributes:
        route: How; None if it can't be, whatever becomes of its link.
        backend: Its name.
        obstacle: Why it is not taken now, in words; None if it can be.
        seconds: What the transfer would take on it, by :class:`trunkline.backend.contract.Cost`.
    """

    backend: str
    route: Route | None
    obstacle: str | None
    seconds: float


class Work(NamedTuple):
    """What a transfer moves, as far as the choice of a backend depends on it.

    Attributes:
        near: Kind of memory here.
        far: Kind of memory on the far side.
        rows: How many blocks.
        nbytes: Their size.
    """

    near: MemoryKind
    far: MemoryKind
    rows: int
    nbytes: int


def candidates(engine: Engine, target: Target, work: Work, only: Collection[str] | None = None) -> list[Candidate]:
    """Return what each backend of an agent could do for a transfer, in the agent's order."""
    found = []
    for name in list(engine.backends):
        seconds = engine.capabilities[name].cost.seconds(work.rows, work.nbytes)
        if only is not None and name not in only:
            found.append(Candidate(name, None, "it was not asked for", seconds))
        else:
            found.append(_candidate(engine, target, work, name, seconds))
    return found


def choose(engine: Engine, target: Target, work: Work, only: Collection[str] | None = None) -> Route:
    """Return the route of a transfer.

    The rules, in this order:

    1. The backend moves both kinds of memory, between this agent and the target.
    2. It is among those in ``only``, where the caller named some.
    3. Memory of both kinds is registered and offered through it; for a keyless one, through any.
    4. Nothing is in its way: its link to the peer has no ``obstacle``.
    5. Of those that are left, the one whose :class:`~trunkline.backend.contract.Cost` is least; of equal ones the
       first in the agent's order.

    One that costs less still, and that only its link keeps from it, becomes the route's ``rival`` if it goes by the
    same account: a handle changes over to it at the first ``post`` that finds the link free.

    If only the third rule leaves none, the first that it excluded is returned: the plan then says which block is
    not registered.

    Raises:
        NoBackendError: There is none; it says why of each.
    """
    found = candidates(engine, target, work, only)
    able = [each for each in found if each.obstacle is None]
    if able:
        best = min(able, key=_seconds) if len(able) > 1 else able[0]
        assert best.route is not None
        return best.route if len(able) == len(found) else best.route._replace(rival=_rival(found, best, best.route))
    for each in found:
        if each.route is not None and each.obstacle is _UNREGISTERED:
            return each.route
    reasons = "; ".join(f"{each.backend}: {each.obstacle}" for each in found) or "it has no backend"
    raise NoBackendError(
        f"no backend of agent {engine.name!r} moves {work.near.name} here to or from {work.far.name} of "
        f"{target.name!r}: {reasons}",
        agent=target.name,
    )


def _rival(found: list[Candidate], best: Candidate, route: Route) -> str | None:
    """Return which backend would be taken, with the same plan, if its link had no obstacle."""
    quicker = [
        each
        for each in found
        if each.seconds < best.seconds
        and each.route is not None
        and (each.route.near, each.route.far) == (route.near, route.far)
    ]
    return min(quicker, key=_seconds).backend if quicker else None


def _seconds(candidate: Candidate) -> float:
    return candidate.seconds


def _candidate(engine: Engine, target: Target, work: Work, name: str, seconds: float) -> Candidate:
    capabilities = engine.capabilities[name]
    if work.near not in capabilities.local_kinds:
        return Candidate(name, None, f"it does not move {work.near.name} of this side", seconds)
    link = target.links.get(name)
    obstacle: str | None = None
    if link is not None and work.far in capabilities.remote_kinds:
        section = target.section
        obstacle = link.obstacle
    elif target.is_self and work.far in capabilities.own_kinds:
        section = engine.home.section
    elif not target.is_self and work.far in capabilities.remote_kinds:
        return Candidate(name, None, "the peer does not have it", seconds)
    else:
        what = f"{work.far.name} within an agent" if target.is_self else f"{work.far.name} of a peer"
        return Candidate(name, None, f"it does not reach {what}", seconds)
    if not capabilities.keyless:
        route = Route.direct(name)
        is_held = len(engine.home.section.lookup(name, work.near)) and len(section.lookup(name, work.far))
        return Candidate(name, route, obstacle or (None if is_held else _UNREGISTERED), seconds)
    near, far = _holder(engine, engine.home.section, work.near), _holder(engine, section, work.far)
    if near is None or far is None:
        return Candidate(name, None, obstacle or "no such memory is registered with another backend", seconds)
    return Candidate(name, Route(name, near, far), obstacle, seconds)


def _holder(engine: Engine, section: Section, kind: MemoryKind) -> str | None:
    """Return the first backend that has segments of a kind, in the agent's order."""
    return next((name for name in list(engine.backends) if len(section.lookup(name, kind))), None)
