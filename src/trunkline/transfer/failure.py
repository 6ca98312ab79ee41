"""What a transfer is, and why it ended other than DONE, in words: for its ``repr`` and its error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trunkline.backend.contract import Operation
from trunkline.errors import TransferCancelledError, TransferDeadlineError, TransferError
from trunkline.transfer.state import State

if TYPE_CHECKING:
    from trunkline.backend.contract import Request
    from trunkline.transfer.plan import TransferPlan
    from trunkline.transfer.target import Target


def describe(plan: TransferPlan, peer: str, state: State) -> str:
    """Return what is moved, where, and how it stands, on one line."""
    operation = plan.posting.operation
    direction = "from" if operation is Operation.READ else "to"
    size = f"{plan.total_bytes:,} bytes in {plan.block_count:,} blocks"
    return f"<{operation.name} {size} {direction} {peer!r}: {state.name}>"


def explain(
    plan: TransferPlan, request: Request, target: Target, state: State, *, expired: float | None
) -> TransferError:
    """Return the error of a round that is quiet, and not DONE.

    Args:
        plan: What was to be moved.
        request: Its request, which knows how far it came, and why no further.
        target: The peer.
        state: How it ended: FAILED or CANCELLED.
        expired: The deadline, in seconds, if that is what stopped it.
    """
    failed = plan.blocks_after(request.completed)
    reason = request.reason
    facts: dict[str, Any] = {"failed": failed, "reason": reason, "agent": target.name}
    what = f"{describe(plan, target.name, state)}: {len(failed)} of {plan.block_count} blocks may not have arrived"
    if state is State.CANCELLED:
        return TransferCancelledError(f"{what}; it was cancelled", **facts)
    if expired is not None:
        return TransferDeadlineError(f"{what}; its deadline of {expired:g} s passed", **facts)
    if not reason and target.gone is not None:
        reason = target.gone
    return TransferError(f"{what}; the transport says: {reason or 'nothing'}", **facts)
