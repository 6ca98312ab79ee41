"""From a posting to system calls: sorted by file and offset, merged, and cut to size. Pure and vectorised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trunkline.backend.contract import Posting

CALL_BYTES = 1 << 20
"""Most bytes of one system call: what threads divide among themselves, and what is still done after ``stop``."""

CALL_PIECES = 1024
"""Most pieces of memory of one system call: IOV_MAX of Linux."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What is to be done, call by call.

    Attributes:
        file: Per call its file; int32.
        offset: Per call where in the file; int64.
        length: Per call how many bytes; int64.
        first: Per call its first piece, and at the end how many pieces there are; int64.
        bounce: Per call whether it needs an aligned buffer; uint8.
        pieces: Address and length of memory; uint64, shape (N, 2).
        row_calls: For each row of the posting its first call and the one after its last; shape (2, rows).
    """

    file: NDArray[np.int32]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    first: NDArray[np.int64]
    bounce: NDArray[np.uint8]
    pieces: NDArray[np.uint64]
    row_calls: NDArray[np.int64]

    def completed(self, done: NDArray[np.uint8]) -> int:
        """Return how many leading rows are in calls that are all done."""
        passed = np.concatenate([np.zeros(1, np.int64), np.cumsum(done, dtype=np.int64)])
        first, end = self.row_calls
        missing = passed[end] - passed[first] != end - first
        return int(np.argmax(missing)) if missing.any() else len(first)


def lay_out(
    posting: Posting,
    file: NDArray[np.int32],
    block: NDArray[np.int64],
    memory_alignment: NDArray[np.int64],
    call_bytes: int = CALL_BYTES,
) -> Layout:
    """Lay a posting out.

    Args:
        posting: The posting.
        file: Per row, its file.
        block: Per file, what direct transfers are aligned to in the file; 0 for a file that is not direct.
        memory_alignment: Per file, likewise in memory; 1 or more.
        call_bytes: Most bytes of one call; a multiple of every block.
    """
    offset, length = posting.remote_address.view(np.int64), posting.length.view(np.int64)
    order = np.lexsort((offset, file))
    order = order[length[order] > 0]
    file, offset, length = file[order], offset[order], length[order]
    address = posting.local_address[order].view(np.int64)
    # Where a run of adjacent bytes of one file begins, and which of them are adjacent in memory too.
    follows = np.zeros(len(order), bool)
    follows[1:] = (file[1:] == file[:-1]) & (offset[1:] == offset[:-1] + length[:-1])
    joined = follows.copy()
    joined[1:] &= address[1:] == address[:-1] + length[:-1]
    heads = np.flatnonzero(~joined)
    row_block, row_start, row_length = np.cumsum(~joined) - 1, offset, length
    file, offset, address, follows = file[heads], offset[heads], address[heads], follows[heads]
    length = np.add.reduceat(length, heads) if len(heads) else length[:0]

    # Cut at every multiple of call_bytes from the run's beginning.
    run_heads = np.flatnonzero(~follows)
    run = np.cumsum(~follows) - 1
    run_start = offset[run_heads][run]
    begin = (offset - run_start) // call_bytes
    cuts = (offset - run_start + length - 1) // call_bytes - begin + 1
    source = np.repeat(np.arange(len(cuts)), cuts)
    first_piece = np.cumsum(cuts) - cuts
    chunk = begin[source] + np.arange(len(source)) - first_piece[source]
    piece_start = np.maximum(offset[source], run_start[source] + chunk * call_bytes)
    piece_end = np.minimum(offset[source] + length[source], run_start[source] + (chunk + 1) * call_bytes)
    piece_address = address[source] + piece_start - offset[source]
    piece_length = piece_end - piece_start
    piece_file, piece_run = file[source], run[source]

    # One call per chunk of a run; those that need no buffer are cut once more, at CALL_PIECES.
    is_new = np.ones(len(source), bool)
    is_new[1:] = (piece_run[1:] != piece_run[:-1]) | (chunk[1:] != chunk[:-1])
    first = np.flatnonzero(is_new)
    group = np.cumsum(is_new) - 1
    unit, memory_unit = block[piece_file], memory_alignment[piece_file]
    safe = np.maximum(unit, 1)
    crooked = (unit > 0) & ((piece_start % safe != 0) | (piece_length % safe != 0) | (piece_address % memory_unit != 0))
    bounce = np.logical_or.reduceat(crooked, first) if len(first) else crooked[:0]
    is_new |= ~bounce[group] & ((np.arange(len(source)) - first[group]) % CALL_PIECES == 0)
    bounce = bounce[group[is_new]]
    first = np.flatnonzero(is_new)
    call = np.cumsum(is_new) - 1

    def call_at(position: NDArray[np.int64]) -> NDArray[np.intp]:
        """Return the call that moves each row's byte at that offset."""
        chunk = (position - run_start[row_block]) // call_bytes
        found: NDArray[np.intp] = call.take(first_piece[row_block] + chunk - begin[row_block])
        return found

    row_calls = np.zeros((2, len(posting.length)), np.int64)
    row_calls[0, order] = call_at(row_start)
    row_calls[1, order] = call_at(row_start + row_length - 1) + 1
    return Layout(
        piece_file[first],
        piece_start[first],
        np.add.reduceat(piece_length, first) if len(first) else piece_length,
        np.append(first, len(source)),
        bounce.astype(np.uint8),
        np.ascontiguousarray(np.stack([piece_address, piece_length], axis=1)).view(np.uint64),
        row_calls,
    )
