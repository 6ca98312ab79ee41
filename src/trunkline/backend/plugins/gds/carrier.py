"""How one worker has cuFile carry out pieces: in batches, or one call after the other."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from trunkline.backend.plugins.gds.cufile import (
    CANCELED,
    COMPLETE,
    IO_EVENTS,
    PENDING,
    READ,
    STATUS_NAMES,
    WAITING,
    CuFileError,
    explain,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trunkline.backend.plugins.gds.library import Library
    from trunkline.backend.plugins.gds.request import GdsRequest

BATCH_PATIENCE = 60.0
"""Seconds one call for a batch's events may take before it is made again."""


def explain_piece(request: GdsRequest, piece: Any, moved: int, end: str) -> str:
    """Say which call on what failed, and how."""
    call = "read" if int(piece["opcode"]) == READ else "write"
    size, at = int(piece["size"]) - moved, int(piece["file_offset"]) + moved
    return f"cuFile's {call} of {size:,} bytes at offset {at:,} of {request.file_name(piece)} failed: {end}"


class CallCarrier:
    """Calls cuFileRead or cuFileWrite for each piece."""

    def __init__(self, library: Library) -> None:
        self._cufile = library.cufile

    def carry(self, request: GdsRequest, params: NDArray[Any]) -> tuple[NDArray[np.uint64], str]:
        """Move pieces; return how many bytes of each went, and what failed, if anything did."""
        moved = np.zeros(len(params), np.uint64)
        columns: list[str] = ["opcode", "handle", "base", "size", "file_offset", "base_offset"]
        for row, piece in enumerate(params[columns].tolist()):
            opcode, handle, base, size, file_offset, base_offset = piece
            done = 0
            while done < size:
                if request.is_over:
                    return moved, ""
                got = self._cufile.move(opcode, handle, base, size - done, file_offset + done, base_offset + done)
                if got <= 0:
                    end = explain(got) if got else "the file ends there"
                    return moved, explain_piece(request, params[row], done, end)
                done += got
                moved[row] = done
        return moved, ""

    def cancel(self, request: GdsRequest) -> None:
        """Nothing to do: the call that runs is the last one."""

    def close(self) -> None:
        """Nothing to give back."""


class BatchCarrier:
    """Submits pieces as batches, on a batch handle of its own.

    Args:
        library: The open library.
        limit: Most entries of a batch.

    Raises:
        CuFileError: There is no such batch.
    """

    def __init__(self, library: Library, limit: int) -> None:
        self._cufile = library.cufile
        self._limit = limit
        self._batch = self._cufile.set_up_batch(limit)
        self._events = np.zeros(limit, IO_EVENTS)
        self._lock = threading.Lock()  # so that what is cancelled is the batch of that request
        self._submitted: GdsRequest | None = None

    def carry(self, request: GdsRequest, params: NDArray[Any]) -> tuple[NDArray[np.uint64], str]:
        """Move pieces; return how many bytes of each went, and what failed, if anything did."""
        moved = np.zeros(len(params), np.uint64)
        while True:
            left = np.flatnonzero(moved < params["size"])
            rest = params[left]
            for column in ("file_offset", "base_offset"):
                rest[column] += moved[left].astype(np.int64)
            rest["size"] -= moved[left]
            rest["cookie"] = left
            try:
                if not self._submit(request, rest):
                    return moved, ""
                failure = self._collect(request, params, moved, len(rest))
            except CuFileError as error:
                self._renew()
                return moved, explain_piece(request, rest[0], 0, f"{error} (batch of {len(rest)})")
            if failure or (moved == params["size"]).all():
                return moved, failure

    def _submit(self, request: GdsRequest, params: NDArray[Any]) -> bool:
        with self._lock:
            if request.is_over:
                return False
            if not self._batch:
                self._batch = self._cufile.set_up_batch(self._limit)
            self._cufile.submit_batch(self._batch, params)
            self._submitted = request
            return True

    def _collect(
        self,
        request: GdsRequest,
        params: NDArray[Any],
        moved: NDArray[np.uint64],
        outstanding: int,
    ) -> str:
        """Wait until every entry has ended; after a failure the others are cancelled."""
        failure = ""
        while outstanding:
            events = self._cufile.batch_events(
                self._batch, outstanding if failure else 1, self._events[:outstanding], BATCH_PATIENCE
            )
            events = events[(events["status"] & (WAITING | PENDING)) == 0]
            outstanding -= len(events)
            rows = events["cookie"].astype(np.int64)
            good = (events["status"] == COMPLETE) & (events["moved"] > 0)
            good &= events["moved"] <= (params["size"][rows] - moved[rows]).astype(np.int64)
            moved[rows[good]] += events["moved"][good].astype(np.uint64)
            bad = np.flatnonzero(~good & (events["status"] != CANCELED))
            if len(bad) and not failure:
                row = int(rows[bad[0]])
                failure = explain_piece(request, params[row], int(moved[row]), _end_of(events[bad[0]]))
                self.cancel(request)
            if len(events) and (events["status"] == CANCELED).any() and not failure and not request.is_over:
                failure = explain_piece(request, params[rows[0]], int(moved[rows[0]]), "CUFILE_CANCELED")
        with self._lock:
            self._submitted = None
        return failure

    def cancel(self, request: GdsRequest) -> None:
        """Cancel what is submitted, if it is this request's; it is still waited for."""
        with self._lock:
            if self._submitted is request:
                with contextlib.suppress(CuFileError):  # then it runs to its end
                    self._cufile.cancel_batch(self._batch)

    def _renew(self) -> None:
        """Give up a batch of which nothing is known."""
        with self._lock:
            self._submitted = None
            if self._batch:
                with contextlib.suppress(CuFileError):
                    self._cufile.cancel_batch(self._batch)
                self._cufile.destroy_batch(self._batch)
                self._batch = 0

    def close(self) -> None:
        """Give the handle back."""
        with self._lock:
            if self._batch:
                self._cufile.destroy_batch(self._batch)
                self._batch = 0


Carrier = CallCarrier | BatchCarrier


def _end_of(event: Any) -> str:
    status, moved = int(event["status"]), int(event["moved"])
    if status == COMPLETE:
        return "the file ends there" if moved == 0 else f"it returned {moved}"
    name = STATUS_NAMES.get(status, "CUFILE_FAILED" if status == 0x40 else f"status {status}")
    return f"{name}: {explain(moved)}" if moved < 0 else name
