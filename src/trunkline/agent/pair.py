"""Two sides of a transfer, fixed once and moved block by block as often as wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trunkline.agent.tensor import LocalTensor, RemoteTensor, TensorGroup, as_views, pair_views
from trunkline.backend.contract import Operation
from trunkline.errors import (
    ConfigurationError,
    NoBackendError,
    ReadOnlyMemoryError,
    ShapeMismatchError,
    UnsupportedBufferError,
)
from trunkline.memory.descriptor import DescriptorList
from trunkline.transfer.plan import plan_transfer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trunkline.memory.kind import MemoryKind
    from trunkline.transfer.engine import Engine
    from trunkline.transfer.handle import TransferHandle
    from trunkline.transfer.target import Target


class PreparedPair:
    """A local and a remote side that fit each other; made by ``Agent.prepare``. Any thread may call any method.

    It holds no resources; it is of no use once the agent is closed or the peer gone.
    """

    def __init__(self, engine: Engine, target: Target, sides: Sequence[tuple[Any, Any]], *, readonly: bool) -> None:
        self._engine = engine
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
        near, far = _join([_pair(local, remote) for local, remote in pairs])
        backend = choose_backend(self._engine, self._target, near.kind, far.kind)
        plan = plan_transfer(
            operation,
            near,
            far,
            backend=backend,
            local_table=self._engine.home.section.lookup(backend, near.kind),
            remote_table=self._target.section.lookup(backend, far.kind),
            peer=self._target.name,
            former=self._target.former(backend, far.kind),
        )
        return self._engine.prepare(plan, self._target, notify=notify, deadline=deadline, tag=tag).post()

    def __repr__(self) -> str:
        return f"<PreparedPair with {self._target.name!r}: {', '.join(f'{a!r} / {b!r}' for a, b in self._sides)}>"


def prepare_pair(engine: Engine, local: Any, remote: Any, target: Target | None) -> PreparedPair:
    """Check what a caller gave as two sides, find the peer, and fix them as a pair.

    Args:
        engine: The agent's engine.
        local: A local view or group, a DescriptorList, or with ``remote`` None a list of (local, remote) pairs.
        remote: A remote view or group, a DescriptorList, or None.
        target: The peer, where only descriptors are given.

    Raises:
        UnsupportedBufferError: A side is not registered memory.
        ShapeMismatchError: Sides of one transfer belong to different peers.
        ConfigurationError: A descriptor list without a peer, or an empty list of pairs.
        PeerGoneError: The peer is gone.
    """
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
    return PreparedPair(engine, first, sides, readonly=readonly)


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


def _join(pairs: list[tuple[DescriptorList, DescriptorList]]) -> tuple[DescriptorList, DescriptorList]:
    if len(pairs) == 1:
        return pairs[0]
    kinds = {(near.kind, far.kind) for near, far in pairs}
    if len(kinds) != 1:
        raise ShapeMismatchError("all parts of one transfer must lie in the same kind of memory on each side")
    ((local_kind, remote_kind),) = kinds
    near = np.concatenate([near.rows for near, _ in pairs])
    far = np.concatenate([far.rows for _, far in pairs])
    return DescriptorList.of(local_kind, near), DescriptorList.of(remote_kind, far)


def choose_backend(engine: Engine, target: Target, near: MemoryKind, far: MemoryKind) -> str:
    """Return the first backend that reaches both kinds of memory, in the agent's order of preference."""
    able = []
    for name, backend in list(engine.backends.items()):
        capabilities = backend.capabilities
        if target.links:
            reaches = name in target.links and far in capabilities.remote_kinds
        else:
            reaches = far in capabilities.own_kinds
        if reaches and near in capabilities.local_kinds:
            able.append(name)
    if not able:
        raise NoBackendError(
            f"no backend moves {near.name} here to or from {far.name} of {target.name!r}: "
            f"this agent has {list(engine.backends)}, the peer is reached by {list(target.links) or 'none'}",
            agent=target.name,
        )
    registered = [name for name in able if len(engine.home.section.lookup(name, near))]
    return (registered or able)[0]
