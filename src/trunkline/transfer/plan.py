"""From two descriptor lists to what a backend posts: checked, matched to segments, coalesced. Pure and vectorised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trunkline.backend.contract import Operation, Posting
from trunkline.errors import DescriptorError, NotRegisteredError, SegmentNotFoundError, ShapeMismatchError
from trunkline.memory.descriptor import DescriptorList, coalesce

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from trunkline.memory.section import SegmentTable


@dataclass(frozen=True, slots=True)
class TransferPlan:
    """A request matched to one backend.

    Attributes:
        backend: Name of the backend.
        posting: What it posts; rows are coalesced blocks.
        first_block: For each row of the posting, the first block (row of the lists as given) in it; intp, shape (M,).
        block_count: How many blocks were asked for.
        total_bytes: Their size.
    """

    backend: str
    posting: Posting
    first_block: NDArray[np.intp]
    block_count: int
    total_bytes: int

    def blocks_after(self, completed_rows: int) -> NDArray[np.intp]:
        """Return the indices of the blocks that are not among the first ``completed_rows`` rows."""
        if completed_rows >= len(self.first_block):
            return np.empty(0, np.intp)
        return np.arange(self.first_block[completed_rows], self.block_count, dtype=np.intp)


def plan_transfer(
    operation: Operation,
    local: DescriptorList,
    remote: DescriptorList,
    *,
    backend: str,
    local_table: SegmentTable,
    remote_table: SegmentTable,
    peer: str,
    owner: Any = None,
) -> TransferPlan:
    """Check two lists against registered memory and each other, and coalesce them.

    Args:
        operation: READ fills ``local`` from ``remote``; WRITE the other way.
        local: Blocks of this agent's memory.
        remote: As many blocks of the peer's memory, each as long as its partner.
        backend: The backend that will post it.
        local_table: This agent's segments on that backend.
        remote_table: The peer's segments on that backend.
        peer: The peer's name, for messages.
        owner: Kept alive until the transfer is quiet.

    Raises:
        ShapeMismatchError: The lists differ in count, or two partners in length.
        NotRegisteredError: A local block is not inside one registered segment.
        SegmentNotFoundError: A remote block is not inside one segment that the peer offers.
        DescriptorError: Two destination blocks overlap.
    """
    near, far = local.expand().rows, remote.expand().rows
    _check_pairs(near, far)
    local_slot = local_table.covering(near)
    _check_covered(local_slot, near, NotRegisteredError, "local", "register it first (a block must lie in one segment)")
    remote_slot = remote_table.covering(far)
    _check_covered(remote_slot, far, SegmentNotFoundError, f"peer {peer!r}'s", "it offers no segment that holds it")
    _check_overlap(near if operation is Operation.READ else far, "local" if operation is Operation.READ else "remote")
    (near, far), first_block = coalesce([near, far], [local_slot, remote_slot])
    posting = Posting(
        operation=operation,
        local_address=np.ascontiguousarray(near[:, 0]),
        remote_address=np.ascontiguousarray(far[:, 0]),
        length=np.ascontiguousarray(near[:, 1]),
        local_slot=np.ascontiguousarray(local_slot[first_block]),
        remote_slot=np.ascontiguousarray(remote_slot[first_block]),
        owner=owner,
    )
    return TransferPlan(backend, posting, first_block, local.count, local.total_bytes)


def _check_pairs(near: NDArray[np.uint64], far: NDArray[np.uint64]) -> None:
    if len(near) != len(far):
        raise ShapeMismatchError(
            f"{len(near)} local blocks against {len(far)} remote blocks: the lists must pair up",
            local=len(near),
            remote=len(far),
        )
    different = near[:, 1] != far[:, 1]
    if different.any():
        row = int(np.argmax(different))
        raise ShapeMismatchError(
            f"block {row} is {near[row, 1]} bytes here and {far[row, 1]} bytes at the peer: partners must be equal",
            block=row,
        )


def _check_covered(
    slots: NDArray[np.int32],
    rows: NDArray[np.uint64],
    error: type[NotRegisteredError | SegmentNotFoundError],
    whose: str,
    advice: str,
) -> None:
    missing = slots < 0
    if missing.any():
        row = int(np.argmax(missing))
        address, length, device = (int(value) for value in rows[row])
        raise error(
            f"{whose} block {row} ({length} bytes at {address:#x}, device {device}) is not registered: {advice}",
            block=row,
            address=address,
            length=length,
            device=device,
        )


def _check_overlap(destination: NDArray[np.uint64], side: str) -> None:
    """Refuse destinations that overlap: which bytes would win is not defined on any transport."""
    start = destination[:, 0]
    end = start + destination[:, 1]
    device = destination[:, 2]
    order = None
    if (device != device[0]).any() or (start[1:] < end[:-1]).any():
        order = np.lexsort((start, device))
        start, end, device = start[order], end[order], device[order]
    clash = (start[1:] < end[:-1]) & (device[1:] == device[:-1])
    if order is not None and clash.any():
        row = int(np.argmax(clash))
        first, second = sorted((int(order[row]), int(order[row + 1])))
        raise DescriptorError(
            f"{side} blocks {first} and {second} overlap: a transfer's destination blocks must be apart",
            blocks=(first, second),
        )
