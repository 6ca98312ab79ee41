"""Bare UCX, which transfers are compared with: the backend alone, between the first pair's workers, without agents."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from trunkline.backend.contract import ConnectionInfo, Operation, Posting, Status
from trunkline.backend.registry import create_backend
from trunkline.bench.measure import Lane, Pace, measure
from trunkline.bench.statistics import condense
from trunkline.bench.team import decode_one
from trunkline.errors import DeadlineError, TransferError
from trunkline.memory.kind import MemoryKind
from trunkline.metadata.model import RemoteKeys

if TYPE_CHECKING:
    from trunkline.backend.contract import BackendPeer
    from trunkline.backend.contract import Request as BackendRequest
    from trunkline.bench.coordinator import Coordinator
    from trunkline.bench.memory import Buffers
    from trunkline.bench.options import Options
    from trunkline.bench.plan import Step
    from trunkline.bench.roles import Roles

_LONGEST_REST = 1.0


class Card(msgspec.Struct, frozen=True):
    """How the target's memory is reached."""

    info: bytes
    key: bytes
    segment: tuple[int, int, int]


_CARD = msgspec.msgpack.Decoder(Card)


class BareRequest:
    """A backend's request, as the measuring loop knows it."""

    __slots__ = ("_request",)

    def __init__(self, request: BackendRequest) -> None:
        self._request = request

    def post(self) -> None:
        self._request.post()

    def poll(self) -> bool:
        return self._is_done(self._request.poll())

    def wait(self, timeout: float) -> None:
        if not self._is_done(self._request.wait(time.monotonic() + timeout)):
            raise DeadlineError(f"a transfer of bare UCX is still running after {timeout:g} s", timeout=timeout)

    def _is_done(self, status: Status) -> bool:
        if status not in (Status.DONE, Status.IN_PROGRESS):
            raise TransferError(f"a transfer of bare UCX failed: {self._request.reason}")
        return status is Status.DONE


class BareUcx:
    """What bare UCX moves between the workers of the first pair, in one buffer each. Not for several threads at once.

    Args:
        group: All workers: each of them takes part in the meeting.
        options: The run's.
        roles: Who does what.
        near: This worker's memory as an initiator.
        far: As a target.
    """

    def __init__(self, group: Coordinator, options: Options, roles: Roles, near: Buffers, far: Buffers) -> None:
        self._options = options
        self._near = near
        self._thread: threading.Thread | None = None
        self._is_closing = False
        initiator, target = roles.pairs[0]
        is_target = group.rank == target
        devices = None if options.device_list == "all" else options.device_list
        self._backend: Any = None
        if group.rank in (initiator, target):
            self._backend = create_backend("ucx", f"bare-{group.rank}", devices=devices)
        try:
            cards = group.allgather(self._offer(far) if is_target else b"")
            if group.rank == initiator:
                self._load(decode_one(_CARD, cards[target], target, "how bare UCX reaches it"))
        except BaseException:
            self.close()
            raise

    def _offer(self, far: Buffers) -> bytes:
        backend = self._backend
        segments = far.descriptors.rows[:1]
        (key,) = backend.remote_keys(backend.register(MemoryKind.DRAM, segments))
        self._thread = threading.Thread(target=self._drive, name="trunkline-bench-bare", daemon=True)
        self._thread.start()
        return msgspec.msgpack.encode(Card(backend.connection_info(), bytes(key), tuple(segments[0].tolist())))

    def _drive(self) -> None:
        """Help transfers along that need the target's help."""
        while not self._is_closing:
            self._backend.run(time.monotonic() + _LONGEST_REST)
            self._backend.take_failed_peers()

    def _load(self, card: Card) -> None:
        self._peer: BackendPeer = self._backend.load_peer("bare", ConnectionInfo(card.info))
        segment = np.array([card.segment], np.uint64)
        self._far_slots = self._peer.load_segments(MemoryKind.DRAM, segment, RemoteKeys.of([card.key]))
        self._far_address = segment[:, 0].copy()
        segment = self._near.descriptors.rows[:1]
        self._near_slots = self._backend.register(MemoryKind.DRAM, segment)
        self._near_address = segment[:, 0].copy()
        self._peer.connect(self._options.timeout)

    def gb_s(self, step: Step) -> float:
        """Return what one transfer of a step's size after the other moves, in 10^9 bytes a second; at the initiator.

        Raises:
            TrunklineError: One failed.
        """
        posting = Posting(
            Operation[self._options.op_type],
            self._near_address,
            self._far_address,
            np.array([step.transfer_size], np.uint64),
            self._near_slots,
            self._far_slots,
        )
        lanes = [[Lane(lambda: [BareRequest(self._backend.prepare(posting, self._peer))])]]
        pace = Pace(is_recreated=False, rate=0.0, timeout=self._options.timeout)
        if step.warmup:
            measure(lanes, step.warmup, pace)
        return condense([measure(lanes, step.iterations, pace)], step.transfer_size).rate / 1e9

    def close(self) -> None:
        """Take everything back. Idempotent."""
        self._is_closing = True
        if self._thread is not None:
            self._backend.wake()
            self._thread.join()
            self._thread = None
        if self._backend is not None:
            self._backend.close()
