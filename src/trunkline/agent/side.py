"""One side of transfers, matched to registered memory once, of which blocks are picked again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from trunkline.errors import (
    DescriptorError,
    NoBackendError,
    NotRegisteredError,
    SegmentNotFoundError,
    ShapeMismatchError,
)
from trunkline.memory.section import NO_SLOT
from trunkline.transfer.plan import Blocks, plan_blocks
from trunkline.transfer.route import Work, choose

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import ArrayLike, NDArray

    from trunkline.backend.contract import Addresses, Operation, Slots
    from trunkline.memory.descriptor import DescriptorList
    from trunkline.memory.section import Section, SegmentTable
    from trunkline.transfer.engine import Engine
    from trunkline.transfer.handle import TransferHandle
    from trunkline.transfer.target import Target


class _Match(NamedTuple):
    """Which segment holds each row of a side.

    Attributes:
        table: The segments when that was looked up.
        slots: One for each row.
    """

    table: SegmentTable
    slots: Slots


class PreparedSide:
    """Blocks of one agent's memory; what they lie in is looked up again only when its registrations change.

    Any thread may call any method. It holds no resources, and is of no use once the agent is closed or the peer gone.

    Args:
        target: Whose memory it is.
        descriptors: The blocks; those of a strided list are expanded only where they are picked.
        is_local: Whether it is the initiator's own side of a transfer.
    """

    def __init__(self, target: Target, descriptors: DescriptorList, *, is_local: bool) -> None:
        self.target = target
        self.kind = descriptors.kind
        self.is_local = is_local
        self._descriptors = descriptors
        self._mean: float | None = None
        self._matches: dict[str, _Match] = {}
        # One array for each column: picking from it takes a third of what it takes from rows.
        self._address: Addresses = np.ascontiguousarray(descriptors.rows[:, 0])
        self._length: Addresses = np.ascontiguousarray(descriptors.rows[:, 1])

    @property
    def count(self) -> int:
        """How many blocks there are."""
        return self._descriptors.count

    def match(self, section: Section, backend: str) -> _Match:
        """Return in which of the segments that a section has of a backend the rows lie.

        Raises:
            NotRegisteredError, SegmentNotFoundError: One lies in none.
        """
        table = section.lookup(backend, self.kind)
        known = self._matches.get(backend)
        if known is None or known.table is not table:
            known = self._matches[backend] = _Match(table, self._look_up(table))
        return known

    def size_of(self, indices: ArrayLike | None) -> tuple[int, int]:
        """Return how many blocks some indices pick (None: all), and about how many bytes: as many times the mean."""
        if self._mean is None:
            self._mean = int(self._length.sum()) / len(self._length)
        picked = self.count if indices is None else np.size(indices)
        return picked, int(self._mean * picked)

    def pick(self, slots: Slots, indices: ArrayLike | None) -> Blocks:
        """Return some blocks, in the order of the indices (None: all), with the slots that :meth:`match` gave.

        Raises:
            DescriptorError: An index is no integer, or there is no such block; or there are no indices.
        """
        descriptors = self._descriptors
        if descriptors.is_strided:
            chosen = np.arange(descriptors.count) if indices is None else self._checked(indices)
            rows = descriptors.select(chosen).rows
            row = descriptors.row_of(chosen)
            return Blocks(np.ascontiguousarray(rows[:, 0]), np.ascontiguousarray(rows[:, 1]), slots[row])
        blocks = Blocks(self._address, self._length, slots)
        return blocks if indices is None else blocks.take(self._checked(indices))

    def _checked(self, indices: ArrayLike) -> NDArray[np.intp]:
        try:
            chosen = np.asarray(indices).astype(np.intp, casting="same_kind", copy=False)
        except (TypeError, ValueError, OverflowError) as error:
            raise DescriptorError(f"blocks are picked by a 1-D array of integers: {error}") from error
        if chosen.ndim != 1 or not chosen.size:
            raise DescriptorError(
                f"blocks are picked by a 1-D array with at least one index, not by shape {chosen.shape}"
            )
        # A negative one is a large one, seen without its sign.
        if int(chosen.view(np.uintp).max()) >= self.count:
            at = int(np.argmax((chosen < 0) | (chosen >= self.count)))
            raise DescriptorError(
                f"index {chosen[at]} (at position {at}) is outside this side of {self.count} blocks",
                position=at,
                index=int(chosen[at]),
                count=self.count,
            )
        return chosen

    def _look_up(self, table: SegmentTable) -> Slots:
        slots = table.covering(self._descriptors.spans())
        missing = slots == NO_SLOT
        if missing.any():
            row = int(np.argmax(missing))
            address, length, device = self._descriptors.rows[row, :3].tolist()
            error = NotRegisteredError if self.is_local else SegmentNotFoundError
            raise error(
                f"row {row} ({length} bytes of {self.kind.name} at {address:#x}, device {device}) lies in no segment "
                + ("that is registered here" if self.is_local else f"that peer {self.target.name!r} offers"),
                row=row,
                address=address,
                length=length,
                device=device,
            )
        return slots

    def __repr__(self) -> str:
        return f"<PreparedSide of {self.target.name!r}: {self.count} blocks of {self.kind.name}>"


def prepare_side(engine: Engine, descriptors: DescriptorList, target: Target | None = None) -> PreparedSide:
    """Match blocks to the agent's own memory, or to that of a peer.

    Args:
        engine: The agent's engine.
        descriptors: The blocks.
        target: The peer; None for the local side of transfers.

    Raises:
        NotRegisteredError, SegmentNotFoundError: A block lies in no segment of a backend that could move it.
        PeerGoneError: The peer is gone.
    """
    engine.check_open()
    if target is not None:
        target.check()
    whose, home = target or engine.home, engine.home.section
    sections = [whose.section, home] if whose.is_self and whose is not engine.home else [whose.section]
    failure: Exception | None = None
    # A strided row may reach over several segments, with no block across two of them: then each block is looked up.
    for is_expanded in (False, True) if descriptors.is_strided else (False,):
        rows = descriptors.expand() if is_expanded else descriptors
        side = PreparedSide(whose, rows, is_local=target is None)
        for section in sections:
            for backend in list(engine.backends):
                try:
                    side.match(section, backend)
                except (NotRegisteredError, SegmentNotFoundError) as error:
                    failure = failure or error
                else:
                    return side
    raise failure or NoBackendError(f"agent {engine.name!r} has no backend: {descriptors!r} can't be moved")


def prepare_transfer(
    engine: Engine,
    operation: Operation,
    local: PreparedSide,
    remote: PreparedSide,
    *,
    local_blocks: ArrayLike | None = None,
    remote_blocks: ArrayLike | None = None,
    notify: bytes | None = None,
    backends: Collection[str] | None = None,
) -> TransferHandle:
    """Bind blocks of two sides to each other, ready to be posted; nothing moves yet.

    Unlike in ``Agent.read`` and ``write`` destinations may overlap; what they then hold is not defined.

    Args:
        engine: The agent's engine.
        operation: What is done with the remote side.
        local: Own memory.
        remote: A peer's.
        local_blocks: Which blocks of it; None for all.
        remote_blocks: As many of the remote side.
        notify: A message for the peer, delivered after the data.
        backends: Names of those that may move it; None for all.

    Raises:
        DescriptorError: There is no such block.
        ShapeMismatchError: The two sides don't fit, or are not one of each.
        NotRegisteredError, SegmentNotFoundError: The memory is gone.
        NoBackendError: Nothing moves these kinds of memory.
        PeerGoneError: The peer is gone.
    """
    target = remote.target
    if not local.is_local or remote.is_local:
        raise ShapeMismatchError("a transfer has a local and a remote side, not two of one", agent=target.name)
    route = choose(engine, target, Work(local.kind, remote.kind, *local.size_of(local_blocks)), backends)
    home = engine.home.section
    mine = local.match(home, route.near)
    theirs = remote.match(home if route.is_own else target.section, route.far)
    plan = plan_blocks(
        operation,
        local.pick(mine.slots, local_blocks),
        remote.pick(theirs.slots, remote_blocks),
        route=route,
        tables=(mine.table, theirs.table),
        kinds=(local.kind, remote.kind),
    )
    return engine.prepare(plan, target, notify=notify)
