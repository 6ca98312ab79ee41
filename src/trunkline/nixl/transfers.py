"""The low-level agent's transfers: prepared lists, requests, their states."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any

from trunkline.agent.side import PreparedSide, prepare_side, prepare_transfer
from trunkline.backend.contract import Operation
from trunkline.errors import DescriptorError, TrunklineError, UnknownPeerError
from trunkline.memory.descriptor import DescriptorList
from trunkline.memory.kind import MemoryKind
from trunkline.nixl.descriptor_list import nixlXferDList, strided_rows
from trunkline.nixl.enumeration import (
    NIXL_IN_PROG,
    NIXL_INIT_AGENT,
    NIXL_SUCCESS,
    nixl_mem_t,
    nixl_status_t,
    nixl_xfer_op_t,
)
from trunkline.nixl.exception import (
    nixl_error,
    nixlInvalidParamError,
    nixlNoTelemetryError,
    nixlNotFoundError,
    nixlNotPostedError,
    nixlRemoteDisconnectError,
    translated,
)
from trunkline.nixl.telemetry import nixlXferTelemetry
from trunkline.transfer.state import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from trunkline.agent.agent import Agent
    from trunkline.transfer.handle import TransferHandle
    from trunkline.transfer.target import Target

_DONE, _PREPARED = State.DONE, State.PREPARED


class _Transfer:
    """A request.

    Attributes:
        handle: Trunkline's handle.
        is_merged: Whether NIXL would have merged neighbouring descriptors.
        posted_us: When it was posted last, in microseconds; None before.
        refusal: Why the last post was refused.
    """

    __slots__ = ("handle", "is_merged", "posted_us", "refusal")

    def __init__(self, handle: TransferHandle, *, is_merged: bool) -> None:
        self.handle = handle
        self.is_merged = is_merged
        self.posted_us: int | None = None
        self.refusal: TrunklineError | None = None


class Transfers:
    """What ``nixlAgent`` inherits. Any thread may call any method.

    Args:
        name: The agent's name.
        captures_telemetry: Whether telemetry can be asked for.
    """

    def __init__(self, name: str, *, captures_telemetry: bool) -> None:
        self._agent: Agent | None = None
        self._name = name
        self._captures_telemetry = captures_telemetry
        self._numbers = itertools.count(1)
        self._sides: dict[int, PreparedSide] = {}
        self._transfers: dict[int, _Transfer] = {}

    @translated
    def prepXferDlist(self, agent_name: Any, *given: Any, **named: Any) -> int:
        """Prepare one side of transfers; return its number.

        The forms are NIXL's: ``(agent_name, descs, backend=[])``; ``(descs, backend=[])`` for the local side; and
        ``(agent_name, mem_type, descs, backend=[])`` with an N×5 array of address, length, device, stride and count.

        Raises:
            nixlNotFoundError: No such agent is loaded, a range is not registered or offered, or there is none.
            nixlRemoteDisconnectError: The agent is gone.
        """
        if isinstance(agent_name, nixlXferDList):
            agent_name, given = NIXL_INIT_AGENT, (agent_name, *given)
        names = (
            ("descs", "backend")
            if "mem_type" not in named and not _is_kind(given)
            else ("mem_type", "descs", "backend")
        )
        values = dict(zip(names, given, strict=False)) | named
        self._check_backends(values.get("backend") or ())
        descs: Any = values.get("descs")
        try:
            if "mem_type" in names:
                rows = DescriptorList.of(MemoryKind(int(values["mem_type"])), strided_rows(descs))
            else:
                self._check(descs, nixlXferDList)
                rows = descs.checked()
        except DescriptorError as error:
            raise nixlNotFoundError(str(error)) from error
        target = None if text_of(agent_name) == NIXL_INIT_AGENT else self._target(agent_name)
        number = next(self._numbers)
        self._sides[number] = prepare_side(self._opened().engine, rows, target)
        return number

    @translated
    def makeXferReq(
        self,
        operation: nixl_xfer_op_t,
        local_side: int,
        local_indices: ArrayLike,
        remote_side: int,
        remote_indices: ArrayLike,
        notif_msg: bytes | str = b"",
        backend: Sequence[int] = (),
        skip_desc_merg: bool = False,
    ) -> int:
        """Bind blocks of two prepared sides to each other; return the request's number.

        Raises:
            nixlInvalidParamError: There is no such side or block, or the two don't fit.
            nixlNotFoundError: The memory is gone.
        """
        only = self._check_backends(backend) or None if backend else None
        if any(getattr(indices, "ndim", 1) != 1 for indices in (local_indices, remote_indices)):
            raise ValueError("arrays of indices must be 1-D")
        handle = prepare_transfer(
            self._opened().engine,
            Operation(int(operation)),
            self._side(local_side),
            self._side(remote_side),
            local_blocks=local_indices,
            remote_blocks=remote_indices,
            notify=payload_of(notif_msg) or None,
            backends=only,
        )
        return self._keep(_Transfer(handle, is_merged=not skip_desc_merg))

    @translated
    def createXferReq(
        self,
        operation: nixl_xfer_op_t,
        local_descs: nixlXferDList,
        remote_descs: nixlXferDList,
        remote_agent: str | bytes,
        notif_msg: bytes | str = b"",
        backend: Sequence[int] = (),
    ) -> int:
        """Bind two lists to each other; return the request's number.

        Raises:
            nixlInvalidParamError: The two don't fit, or a range can't be.
            nixlNotFoundError: No such agent is loaded, or a range is not registered or offered.
            nixlRemoteDisconnectError: The agent is gone.
        """
        self._check(local_descs, nixlXferDList)
        self._check(remote_descs, nixlXferDList)
        only = self._check_backends(backend) or None if backend else None
        engine = self._opened().engine
        target = self._target(remote_agent)
        handle = prepare_transfer(
            engine,
            Operation(int(operation)),
            prepare_side(engine, local_descs.checked()),
            prepare_side(engine, remote_descs.checked(), target),
            notify=payload_of(notif_msg) or None,
            backends=only,
        )
        return self._keep(_Transfer(handle, is_merged=False))

    def postXferReq(self, reqh: int, notif_msg: bytes | str = b"") -> nixl_status_t:
        """Start a request, or start it again; a message replaces the one it has, also for later rounds.

        Raises:
            nixlRepostActiveError: It still runs.
            nixlNotFoundError: The peer was removed, or memory of the request was taken back.
            nixlRemoteDisconnectError: The peer is gone, or went while this call ran.
        """
        transfer = self._transfer(reqh)
        started = time.monotonic_ns() // 1000
        try:
            transfer.handle.post(payload_of(notif_msg) or None)
        except TrunklineError as error:
            refusal = self._explain(transfer, error)
            if transfer.handle.state is _PREPARED and isinstance(refusal, nixlRemoteDisconnectError):
                transfer.refusal = refusal
            raise refusal from error
        transfer.posted_us, transfer.refusal = started, None
        return self._status(transfer, transfer.handle.state)

    def getXferStatus(self, reqh: int) -> nixl_status_t:
        """Drive a request once and return how it stands.

        Raises:
            nixlNotPostedError: It was not posted yet.
            nixlRemoteDisconnectError, nixlCancelledError: It failed, or was cancelled.
        """
        try:
            transfer = self._transfers[reqh]
        except (KeyError, TypeError):
            transfer = self._transfer(reqh)
        state = transfer.handle.poll()
        if state is _DONE:
            return NIXL_SUCCESS
        return self._status(transfer, state)

    @translated
    def getXferTelemetry(self, reqh: int) -> nixlXferTelemetry:
        """Return what the last round of a request cost.

        Raises:
            nixlNoTelemetryError: The agent was made without telemetry.
            nixlNotPostedError: It was not posted yet.
        """
        transfer = self._transfer(reqh)
        if not self._captures_telemetry:
            raise nixlNoTelemetryError(
                "make the agent with nixl_agent_config(capture_telemetry=True), and without NIXL_TELEMETRY_ENABLE=no"
            )
        if transfer.posted_us is None:
            raise nixlNotPostedError(f"{transfer.handle!r} was not posted yet")
        figures = transfer.handle.telemetry
        return nixlXferTelemetry(
            startTime=transfer.posted_us,
            postDuration=round(figures.post_us),
            xferDuration=round(figures.total_us),
            totalBytes=figures.bytes,
            descCount=figures.descriptors if transfer.is_merged else figures.blocks,
            backendName=figures.backend,
        )

    def estimateXferCost(self, req_handle: int) -> tuple[int, int, int]:
        """Return (duration in microseconds, its error, method).

        It goes by the last transfer of 64 KiB or more to the same agent on the same backend; before there was one the
        method is "unknown", as NIXL says with UCX on most hosts. The error is not known.
        """
        found = self._opened().explain(self._transfer(req_handle).handle)
        if not found.is_measured or found.seconds is None:
            return 0, 0, 1
        return round(found.seconds * 1e6), 0, 0

    def queryXferBackend(self, reqh: int) -> int:
        """Return the number of the backend that moves a request."""
        [name] = self._transfer(reqh).handle.backends
        return self._backend_number(name)

    def releaseXferReq(self, reqh: int) -> nixl_status_t:
        """Let go of a request. One that runs is cancelled; until it is quiet its memory is kept in use."""
        self._transfer(reqh)
        handle = self._transfers.pop(reqh).handle
        if not handle.state.is_quiet:
            handle.cancel()
        return NIXL_SUCCESS

    def releasedDlistH(self, dlist: int) -> nixl_status_t:
        """Let go of a prepared side; requests that were made from it don't need it."""
        self._side(dlist)
        del self._sides[dlist]
        return NIXL_SUCCESS

    def _status(self, transfer: _Transfer, state: State) -> nixl_status_t:
        if state is _DONE:
            return NIXL_SUCCESS
        if not state.is_quiet:
            return NIXL_IN_PROG
        if state is _PREPARED:
            raise transfer.refusal or nixlNotPostedError(f"{transfer.handle!r} was not posted yet")
        error = transfer.handle.error
        assert error is not None
        raise self._explain(transfer, error) from error

    def _explain(self, transfer: _Transfer, error: TrunklineError) -> TrunklineError:
        """Return NIXL's exception; a peer that was removed counts as unknown, not as gone."""
        if transfer.handle.target.gone is not None:
            try:
                self._opened().peer(transfer.handle.peer)
            except UnknownPeerError:
                return nixlNotFoundError(str(error))
            except TrunklineError:
                pass  # it is known, and this says why it could not be loaded again
        return nixl_error(error)

    def _keep(self, transfer: _Transfer) -> int:
        number = next(self._numbers)
        self._transfers[number] = transfer
        return number

    def _target(self, name: str | bytes) -> Target:
        return self._opened().peer(text_of(name)).target

    def _opened(self) -> Agent:
        if self._agent is None:
            raise nixlNotFoundError(f"agent {self._name!r} has no backend yet: create one first")
        return self._agent

    def _side(self, number: int) -> PreparedSide:
        try:
            return self._sides[number]
        except KeyError:
            raise nixlInvalidParamError(f"there is no prepared list {number!r}, or it was released") from None

    def _transfer(self, number: int) -> _Transfer:
        try:
            return self._transfers[number]
        except KeyError:
            raise nixlInvalidParamError(f"there is no transfer {number!r}, or it was released") from None

    def _backend_number(self, name: str) -> int:
        raise NotImplementedError

    def _check_backends(self, numbers: Sequence[int]) -> frozenset[str]:
        raise NotImplementedError

    @staticmethod
    def _check(descs: Any, kind: type) -> None:
        if not isinstance(descs, kind):
            raise TypeError(f"this call takes a {kind.__name__}, not {descs!r}")


def payload_of(message: bytes | str) -> bytes:
    """Return a notification's bytes."""
    if isinstance(message, bytes):
        return message
    if isinstance(message, str):
        return message.encode()
    raise TypeError(f"a notification is bytes or str, not a {type(message).__name__}")


def text_of(name: str | bytes) -> str:
    """Return a name as text. NIXL takes bytes for strings, and clients pass on what ``add_remote_agent`` returned.

    Raises:
        TypeError: It is neither.
        nixlInvalidParamError: It is not UTF-8.
    """
    if isinstance(name, str):
        return name
    if not isinstance(name, bytes | bytearray):
        raise TypeError(f"a name is a str (or its bytes), not a {type(name).__name__}")
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise nixlInvalidParamError(f"the name {bytes(name)!r} is not UTF-8") from error


def _is_kind(given: tuple[Any, ...]) -> bool:
    return bool(given) and isinstance(given[0], nixl_mem_t)
