"""Which backend moves a transfer: what each of an agent's could do, and the rules by which one is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from trunkline.errors import NoBackendError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from trunkline.memory.kind import MemoryKind
    from trunkline.memory.section import SegmentTable
    from trunkline.transfer.engine import Engine
    from trunkline.transfer.target import Target


_UNREGISTERED = "no such memory is registered with it"


class Route(NamedTuple):
    """A backend, and whose account of segments it goes by.

    Attributes:
        backend: The backend that moves the bytes.
        near: The backend that registered the local memory: itself, unless it is keyless.
        far: Likewise for the far side.
        is_own: Whether the far side is the agent's own, registered here, and not reached by a link.
        rival: A backend that takes less and goes by the same account, but whose link had an obstacle; None if there
            is none.
    """

    backend: str
    near: str
    far: str
    is_own: bool = False
    rival: str | None = None

    @classmethod
    def direct(cls, backend: str) -> Route:
        """Return the route of a backend that goes by its own account."""
        return cls(backend, backend, backend)


class Candidate(NamedTuple):
    """What one backend could do for a transfer.

    Attributes:
        backend: Its name.
        route: How; None if it can't be, whatever becomes of its link.
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
        route, obstacle = _look(engine, target, work, name, only)
        found.append(Candidate(name, route, obstacle, _seconds(engine, name, work)))
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
    able: list[Route] = []
    blocked: list[Route] = []
    excluded: Route | None = None
    for name in list(engine.backends):
        route, obstacle = _look(engine, target, work, name, only)
        if route is not None:
            if obstacle is None:
                able.append(route)
            elif obstacle is not _UNREGISTERED:
                blocked.append(route)
            elif excluded is None:
                excluded = route
    best = cheapest(engine, work, able)
    if best is not None:
        return best._replace(rival=_rival(engine, work, best, blocked)) if blocked else best
    if excluded is not None:
        return excluded
    found = candidates(engine, target, work, only)
    reasons = "; ".join(f"{each.backend}: {each.obstacle}" for each in found) or "it has no backend"
    raise NoBackendError(
        f"no backend of agent {engine.name!r} moves {work.near.name} here to or from {work.far.name} of "
        f"{target.name!r}: {reasons}",
        agent=target.name,
    )


def cheapest(engine: Engine, work: Work, able: Sequence[Route]) -> Route | None:
    """Return the route that costs least, of equal ones the first; None if there is none."""
    if len(able) < 2:
        return able[0] if able else None
    return min(able, key=lambda route: _seconds(engine, route.backend, work))


def _rival(engine: Engine, work: Work, best: Route, blocked: Sequence[Route]) -> str | None:
    """Return which backend would be taken, with the same plan, if its link had no obstacle."""
    most = _seconds(engine, best.backend, work)
    quicker = [route for route in blocked if route[1:] == best[1:] and _seconds(engine, route.backend, work) < most]
    route = cheapest(engine, work, quicker)
    return None if route is None else route.backend


def _seconds(engine: Engine, name: str, work: Work) -> float:
    return engine.capabilities[name].cost.seconds(work.rows, work.nbytes)


def _look(
    engine: Engine, target: Target, work: Work, name: str, only: Collection[str] | None
) -> tuple[Route | None, str | None]:
    """Return how a backend could do it, if at all, and why it is not taken now, if so."""
    capabilities = engine.capabilities[name]
    near, far = work.near, work.far
    if only is not None and name not in only:
        return None, "it was not asked for"
    if near not in capabilities.local_kinds:
        return None, f"it does not move {near.name} of this side"
    link, is_own = target.links.get(name), False
    obstacle: str | None = None
    home = engine.home.section.tables
    if link is not None and far in capabilities.remote_kinds:
        tables = target.section.tables
        obstacle = link.obstacle
    elif target.is_self and far in capabilities.own_kinds:
        tables, is_own = home, True
    elif not target.is_self and far in capabilities.remote_kinds:
        return None, "the peer does not have it"
    else:
        return None, f"it does not reach {far.name} {'within an agent' if target.is_self else 'of a peer'}"
    if not capabilities.keyless:
        is_held = (name, near) in home and (name, far) in tables
        return Route(name, name, name, is_own), obstacle or (None if is_held else _UNREGISTERED)
    near_holder, far_holder = _holder(engine, home, near), _holder(engine, tables, far)
    if near_holder is None or far_holder is None:
        return None, "no such memory is registered with another backend"
    return Route(name, near_holder, far_holder, is_own), obstacle


def _holder(engine: Engine, tables: Mapping[tuple[str, MemoryKind], SegmentTable], kind: MemoryKind) -> str | None:
    """Return the first backend that has segments of a kind, in the agent's order."""
    for name in list(engine.backends):
        if (name, kind) in tables:
            return name
    return None
