"""Traffic matrices: how many bytes each rank sends to each other, in one pattern after another.

The files are those of KVBench's ``ct-perftest`` and ``sequential-ct-perftest``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from trunkline.bench.kv.document import read_mapping, read_text, refuse
from trunkline.bench.kv.split import MAX_RANKS
from trunkline.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from trunkline.bench.kv.access import OpType

MAX_PATTERNS = 1000
MAX_CELLS = 1 << 22
"""Of all matrices of a file together."""
MAX_BYTES = 1 << 44
"""Of one cell."""
MAX_ITERATIONS = 1_000_000
MAX_SLEEP = 3600.0
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*([KMG]?)i?B?", re.IGNORECASE)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_KINDS: dict[object, Literal["DRAM", "VRAM"]] = {"cpu": "DRAM", "dram": "DRAM", "cuda": "VRAM", "vram": "VRAM"}
_PATTERN_KEYS = {"matrix", "matrix_file", "mem_type", "xfer_op", "shards", "sleep_before_launch_sec", "metadata"}
_KEYS = {"traffic_pattern", "traffic_patterns", "iters", "warmup_iters", "isolation_iters"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """One pattern of traffic.

    Attributes:
        matrix: Bytes, from the rank of the row to the rank of the column.
        memory: The kind of memory on both sides.
        op_type: WRITE: the rank of the row posts; READ: that of the column.
        sleep: Seconds that the ranks wait before they begin, as if they computed.
    """

    matrix: NDArray[np.int64]
    memory: Literal["DRAM", "VRAM"] = "DRAM"
    op_type: OpType = "WRITE"
    sleep: float = 0.0

    @property
    def total_bytes(self) -> int:
        """Bytes that all ranks send."""
        return int(self.matrix.sum())

    @property
    def senders(self) -> int:
        """How many ranks send something."""
        return int(np.count_nonzero(self.matrix.any(axis=1)))

    def blocks(self) -> NDArray[np.int64]:
        """Return sender, receiver, bytes, and the offsets in the sender's and in the receiver's memory, a row each.

        A rank's memory holds what it sends, by receiver; another of its memories what it receives, by sender.
        """
        sender, receiver = np.nonzero(self.matrix)
        before = np.cumsum(self.matrix, axis=1) - self.matrix
        above = np.cumsum(self.matrix, axis=0) - self.matrix
        where = (sender, receiver)
        return np.stack([sender, receiver, self.matrix[where], before[where], above[where]], axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What a file asks for.

    Attributes:
        patterns: In their order; all have the same number of ranks.
        iterations: How often all are run, one after the other.
        warmup: How often each is run before that, unmeasured.
        isolated: How often each is run alone, to compare with.
    """

    patterns: tuple[Pattern, ...]
    iterations: int
    warmup: int
    isolated: int

    @property
    def ranks(self) -> int:
        """How many ranks take part."""
        return len(self.patterns[0].matrix)

    @property
    def rank_bytes(self) -> NDArray[np.int64]:
        """Bytes of memory that each rank needs: a row of what it sends, and one of what it receives."""
        return np.stack(
            [np.max([pattern.matrix.sum(axis=axis) for pattern in self.patterns], axis=0) for axis in (1, 0)]
        )


def read_traffic(path: Path) -> Traffic:
    """Return the patterns of a YAML (or JSON) file.

    Args:
        path: It has ``traffic_pattern``, or a list ``traffic_patterns``; each with ``matrix`` or ``matrix_file``
            (relative to the file), ``mem_type``, and maybe ``xfer_op`` and ``sleep_before_launch_sec``. Sizes are
            bytes, or have K, M or G behind them (powers of 1024).

    Raises:
        ConfigurationError: The file can't be read, or says something else: the message says where.
    """
    found = read_mapping(path)
    _only(found, _KEYS, path, "at its top")
    if ("traffic_pattern" in found) == ("traffic_patterns" in found):
        refuse(path, "must have either traffic_pattern or traffic_patterns")
    listed = found["traffic_patterns"] if "traffic_patterns" in found else [found["traffic_pattern"]]
    if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_PATTERNS:
        refuse(path, f"must have a list of 1 to {MAX_PATTERNS:,} traffic_patterns")
    patterns: list[Pattern] = []
    cells = 0
    for number, one in enumerate(listed, 1):
        patterns.append(_pattern(one, path, f"pattern {number}", MAX_CELLS - cells))
        ranks, cells = len(patterns[-1].matrix), cells + patterns[-1].matrix.size
        if ranks != len(patterns[0].matrix):
            refuse(path, f"has {ranks} ranks in pattern {number}, and {len(patterns[0].matrix)} in the first")
    return Traffic(
        patterns=tuple(patterns),
        iterations=_count(found, "iters", 3, path, least=1),
        warmup=_count(found, "warmup_iters", 30, path),
        isolated=_count(found, "isolation_iters", 30, path, least=1),
    )


def check_memory(traffic: Traffic) -> None:
    """Check that all patterns are in memory of the host, which is all that can be moved here.

    Raises:
        ConfigurationError: One is not.
    """
    for number, pattern in enumerate(traffic.patterns, 1):
        if pattern.memory != "DRAM":
            raise ConfigurationError(
                f"pattern {number} wants memory of GPUs, which can't be used here; "
                "--mem-type cpu moves it in the host's memory"
            )


def parse_size(text: object) -> int | None:
    """Return bytes as ``1048576``, ``1M`` or ``1.5K`` say them; None for what says none."""
    if isinstance(text, bool) or not isinstance(text, (int, float, str)):
        return None
    match = _SIZE.fullmatch(str(text).strip())
    if match is None:
        return None
    unit = _UNITS[match[2].upper()]
    size = round(float(match[1]) * unit) if "." in match[1] else int(match[1]) * unit
    if unit == 1 and size != float(match[1]):
        return None
    return size if size <= MAX_BYTES else None


def _pattern(found: object, path: Path, where: str, most_cells: int) -> Pattern:
    if not isinstance(found, dict):
        refuse(path, f"has no mapping as {where}")
    _only(found, _PATTERN_KEYS, path, f"in {where}")
    if ("matrix" in found) == ("matrix_file" in found):
        refuse(path, f"must have either matrix or matrix_file in {where}")
    memory = _KINDS.get(str(found.get("mem_type", "cpu")).lower())
    if memory is None:
        refuse(path, f"has {found['mem_type']!r} as mem_type in {where}; it must be cpu, dram, cuda or vram")
    op_type = str(found.get("xfer_op", "WRITE")).upper()
    if op_type not in ("READ", "WRITE"):
        refuse(path, f"has {found['xfer_op']!r} as xfer_op in {where}; it must be READ or WRITE")
    if found.get("shards", 1) != 1:
        refuse(path, f"has {found['shards']!r} shards in {where}; only 1 can be")
    sleep = found.get("sleep_before_launch_sec") or 0
    if isinstance(sleep, bool) or not isinstance(sleep, (int, float)) or not 0 <= sleep <= MAX_SLEEP:
        refuse(path, f"has {sleep!r} as sleep_before_launch_sec in {where}; it must be 0 to {MAX_SLEEP:g} seconds")
    return Pattern(
        matrix=_matrix(found["matrix"], path, where, most_cells)
        if "matrix" in found
        else _matrix_file(found["matrix_file"], path, most_cells),
        memory=memory,
        op_type="READ" if op_type == "READ" else "WRITE",
        sleep=float(sleep) if math.isfinite(sleep) else 0.0,
    )


def _matrix_file(name: object, beside: Path, most_cells: int) -> NDArray[np.int64]:
    if not isinstance(name, str):
        refuse(beside, f"has {name!r} as matrix_file; it must be the name of a file")
    path = beside.parent / name
    return _matrix([line.split() for line in read_text(path).splitlines() if line.strip()], path, "it", most_cells)


def _matrix(rows: object, path: Path, where: str, most_cells: int) -> NDArray[np.int64]:
    if not isinstance(rows, list) or not 2 <= len(rows) <= MAX_RANKS:
        refuse(path, f"has no matrix of 2 to {MAX_RANKS:,} rows in {where}")
    if len(rows) ** 2 > most_cells:
        refuse(path, f"has more than {MAX_CELLS:,} cells in its matrices")
    matrix = np.zeros((len(rows), len(rows)), np.int64)
    for sender, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(rows):
            said = f"{len(row)} columns" if isinstance(row, list) else "no list of columns"
            refuse(path, f"has {said} in row {sender} of {where}, and {len(rows)} rows; the matrix must be square")
        for receiver, cell in enumerate(row):
            if cell == 0 and type(cell) is int:  # most of a large matrix
                continue
            size = parse_size(cell)
            if size is None:
                refuse(
                    path,
                    f"has {cell!r} in row {sender}, column {receiver} of {where}; it must be bytes, as 0, 4K or 1.5M",
                )
            if size and sender == receiver:
                refuse(path, f"has rank {sender} send {cell!r} to itself in {where}")
            matrix[sender, receiver] = size
    if not matrix.any():
        refuse(path, f"has nothing but zeros in {where}")
    return matrix


def _only(found: dict[str, Any], known: set[str], path: Path, where: str) -> None:
    unknown = sorted(str(key) for key in found if key not in known)
    if unknown:
        refuse(path, f"has {', '.join(unknown)} {where}, which can't be used; there may be {', '.join(sorted(known))}")


def _count(found: dict[str, Any], key: str, default: int, path: Path, *, least: int = 0) -> int:
    value = found.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_ITERATIONS:
        refuse(path, f"has {value!r} as {key}; it must be {least} to {MAX_ITERATIONS:,}")
    return value
