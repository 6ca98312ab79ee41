"""Two sides of a transfer, fixed once and moved block by block as often as wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trunkline.agent.explanation import explain_work
from trunkline.agent.tensor import LocalTensor, RemoteTensor, TensorGroup, as_views, pair_views
from trunkline.backend.contract import Operation
from trunkline.backend.registry import canonical_name
from trunkline.errors import (
    ConfigurationError,
    ReadOnlyMemoryError,
    ShapeMismatchError,
    UnsupportedBufferError,
)
from trunkline.memory.descriptor import DescriptorList
from trunkline.transfer.plan import check_apart, check_pairs, join_plans, plan_transfer
from trunkline.transfer.route import Work, choose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trunkline.agent.explanation import Explanation
    from trunkline.memory.descriptor import Rows
    from trunkline.memory.kind import MemoryKind
    from trunkline.transfer.engine import Engine
    from trunkline.transfer.handle import TransferHandle
    from trunkline.transfer.plan import TransferPlan
    from trunkline.transfer.route import Route
    from trunkline.transfer.target import Target


class PreparedPair:
    """A local and a remote side that fit each other; made by ``Agent.prepare``. Any thread may call any method.

    It holds no resources; it is of no use once the agent is closed or the peer gone.
    """

    def __init__(
        self,
        engine: Engine,
        target: Target,
        sides: Sequence[tuple[Any, Any]],
        *,
        readonly: bool,
        backends: tuple[str, ...] = (),
    ) -> None:
        self._engine = engine
        self._backends = backends
        self._target = target
        self._sides = sides
        self._readonly = readonly

    def read(
        self,
        remote_blocks: Any = None,
        local_blocks: Any = None,
        *,
        notify: bytes | None = None,
        tag: Any = None,
        deadline: float | None = None,
    ) -> TransferHandle:
        """Start to read blocks of the remote side into blocks of the local side; returns at once.

        Args:
            remote_blocks: Which rows of the remote side's leading axis (or of its descriptor list, expanded);
                None for all.
            local_blocks: As many rows of the local side; None for the same numbers as ``remote_blocks``.
            notify: As for ``Agent.read``.
            tag: As for ``Agent.read``.
            deadline: As for ``Agent.read``.

        Raises:
            As ``Agent.read``; IndexError for a block that isn't there.
        """
        local_blocks = remote_blocks if local_blocks is None else local_blocks
        return self._start(Operation.READ, local_blocks, remote_blocks, notify, tag, deadline)

    def write(
        self,
        local_blocks: Any = None,
        remote_blocks: Any = None,
        *,
        notify: bytes | None = None,
        tag: Any = None,
        deadline: float | None = None,
    ) -> TransferHandle:
        """Start to write blocks of the local side into blocks of the remote side; returns at once.

        Arguments and errors mirror those of :meth:`read`.
        """
        remote_blocks = local_blocks if remote_blocks is None else remote_blocks
        return self._start(Operation.WRITE, local_blocks, remote_blocks, notify, tag, deadline)

    def _start(
        self,
        operation: Operation,
        local_blocks: Any,
        remote_blocks: Any,
        notify: bytes | None,
        tag: Any,
        deadline: float | None,
    ) -> TransferHandle:
        if operation is Operation.READ and self._readonly:
            raise ReadOnlyMemoryError(
                "the local side is read-only memory (bytes, or a read-only array): it can be written to a peer, "
                "but nothing can be read into it"
            )
        if deadline is not None and not deadline > 0:
            raise ConfigurationError(f"deadline={deadline!r}: give seconds greater than 0, or None")
        pairs = [(_select(local, local_blocks), _select(remote, remote_blocks)) for local, remote in self._sides]
        wholes = _join([_pair(local, remote) for local, remote in pairs])
        if len(wholes) > 1 or len(self._backends) > 1:
            _check_parts(operation, wholes)
        plans = [
            self._plan(operation, route, near, far) for whole in wholes for route, near, far in self._routed(*whole)
        ]
        handle = self._engine.prepare(join_plans(plans), self._target, notify=notify, deadline=deadline, tag=tag)
        return handle.post()

    def explain(self) -> Explanation:
        """Say which backend would move all blocks, and why. Of several kinds of memory the first is explained."""
        near, far = _join([_pair(local, remote) for local, remote in self._sides])[0]
        return explain_work(self._engine, self._target, _work(near, far), only=self._backends)

    def _routed(self, near: DescriptorList, far: DescriptorList) -> list[tuple[Route, DescriptorList, DescriptorList]]:
        """Choose a backend; where several were asked for, cut the blocks into one run for each."""
        work = _work(near, far)
        if len(self._backends) < 2:
            return [(choose(self._engine, self._target, work, self._backends or None), near, far)]
        routes = [choose(self._engine, self._target, work, (name,)) for name in self._backends]
        rates = np.array([self._engine.capabilities[route.backend].cost.rate for route in routes])
        length = near.rows[:, 1].astype(np.float64)
        middle = np.cumsum(length) - length / 2  # a block goes to whose share holds more of it
        cuts = np.searchsorted(middle, length.sum() * np.cumsum(rates) / rates.sum())
        cuts[-1] = near.count
        starts = np.concatenate([[0], cuts[:-1]])
        return [
            (route, _rows(near, start, end), _rows(far, start, end))
            for route, start, end in zip(routes, starts, cuts, strict=True)
            if start < end
        ]

    def _plan(self, operation: Operation, route: Route, near: DescriptorList, far: DescriptorList) -> TransferPlan:
        home, target = self._engine.home.section, self._target
        return plan_transfer(
            operation,
            near,
            far,
            route=route,
            local_table=home.lookup(route.near, near.kind),
            remote_table=(home if route.is_own else target.section).lookup(route.far, far.kind),
            peer=None if route.is_own else target.name,
            former=target.former(route.far, far.kind),
        )

    def __repr__(self) -> str:
        return f"<PreparedPair with {self._target.name!r}: {', '.join(f'{a!r} / {b!r}' for a, b in self._sides)}>"


def prepare_pair(
    engine: Engine,
    local: Any,
    remote: Any,
    target: Target | None,
    *,
    backend: str | Sequence[str] | None = None,
) -> PreparedPair:
    """Check what a caller gave as two sides, find the peer, and fix them as a pair.

    Args:
        engine: The agent's engine.
        local: A local view or group, a DescriptorList, or with ``remote`` None a list of (local, remote) pairs.
        remote: A remote view or group, a DescriptorList, or None.
        target: The peer, where only descriptors are given.
        backend: The backend to take, or several to split the blocks over; None for the one that suits best.

    Raises:
        UnsupportedBufferError: A side is not registered memory.
        ShapeMismatchError: Sides of one transfer belong to different peers.
        ConfigurationError: A descriptor list without a peer, an empty list of pairs, or a backend that is not open.
        PeerGoneError: The peer is gone.
    """
    backends = _names(engine, backend)
    given = [(local, remote)]
    if remote is None and isinstance(local, list):
        given = local
        if not given:
            raise ConfigurationError("an empty list of pairs: there is nothing to transfer")
    sides: list[tuple[Any, Any]] = []
    targets: list[Target] = []
    readonly = False
    for mine, theirs in given:
        if isinstance(mine, DescriptorList) or isinstance(theirs, DescriptorList):
            if not (isinstance(mine, DescriptorList) and isinstance(theirs, DescriptorList)):
                raise UnsupportedBufferError("a DescriptorList pairs with a DescriptorList, not with a view")
            if target is None:
                raise ConfigurationError("whose memory? A transfer by DescriptorList needs peer=")
            targets.append(target)
        else:
            readonly |= any(view.readonly for view in as_views(mine, LocalTensor, "the local side").values())
            targets.extend(_targets_of(theirs, engine))
        sides.append((mine, theirs))
    first = targets[0]
    if any(other is not first for other in targets):
        raise ShapeMismatchError(f"one transfer has one peer, not {sorted({other.name for other in targets})}")
    first.check()
    return PreparedPair(engine, first, sides, readonly=readonly, backends=backends)


def _names(engine: Engine, backend: str | Sequence[str] | None) -> tuple[str, ...]:
    given = [backend] if isinstance(backend, str) else backend or ()
    names = tuple(dict.fromkeys(canonical_name(name) for name in given))
    missing = [name for name in names if name not in engine.backends]
    if missing:
        raise ConfigurationError(
            f"agent {engine.name!r} has no backend {missing[0]!r} open, only {list(engine.backends)}",
            backend=missing[0],
        )
    return names


def _check_parts(operation: Operation, wholes: Sequence[tuple[DescriptorList, DescriptorList]]) -> None:
    """Refuse what no part shows alone: lists of different length that are cut, and destinations that overlap."""
    destinations: dict[MemoryKind, list[tuple[Rows, Rows]]] = {}
    for near, far in wholes:
        check_pairs(near.rows, far.rows)
        kind = near.kind if operation is Operation.READ else far.kind
        destinations.setdefault(kind, []).append((near.rows, far.rows))
    for sides in destinations.values():
        check_apart(operation, *(np.concatenate(rows) for rows in zip(*sides, strict=True)))


def _work(near: DescriptorList, far: DescriptorList) -> Work:
    return Work(near.kind, far.kind, near.count, near.total_bytes)


def _rows(descriptors: DescriptorList, start: int, end: int) -> DescriptorList:
    return DescriptorList.of(descriptors.kind, descriptors.rows[start:end])


def _targets_of(side: Any, engine: Engine) -> list[Target]:
    if isinstance(side, LocalTensor) or (
        isinstance(side, TensorGroup) and all(isinstance(view, LocalTensor) for _, view in side.items())
    ):
        return [engine.home]
    views = as_views(side, RemoteTensor, "the remote side").values()
    return [view.target for view in views if view.target is not None]


def _select(side: Any, blocks: Any) -> Any:
    if blocks is None:
        return side
    if isinstance(side, DescriptorList):
        return side.select(blocks)
    return side[blocks]


def _pair(local: Any, remote: Any) -> tuple[DescriptorList, DescriptorList]:
    if isinstance(local, DescriptorList):
        return local.expand(), remote.expand()
    return pair_views(_views(local), _views(remote))


def _views(side: Any) -> dict[str, Any]:
    return dict(side.items()) if isinstance(side, TensorGroup) else {"": side}


def _join(pairs: list[tuple[DescriptorList, DescriptorList]]) -> list[tuple[DescriptorList, DescriptorList]]:
    """Return one pair of lists for each pair of kinds of memory."""
    if len(pairs) == 1:
        return pairs
    by_kinds: dict[tuple[MemoryKind, MemoryKind], list[tuple[DescriptorList, DescriptorList]]] = {}
    for near, far in pairs:
        by_kinds.setdefault((near.kind, far.kind), []).append((near, far))
    return [
        (
            DescriptorList.of(local_kind, np.concatenate([near.rows for near, _ in those])),
            DescriptorList.of(remote_kind, np.concatenate([far.rows for _, far in those])),
        )
        for (local_kind, remote_kind), those in by_kinds.items()
    ]
