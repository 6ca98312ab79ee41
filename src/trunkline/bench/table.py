"""The table on standard output: NIXLBench's columns, and after them ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trunkline.bench.result import Row

_GAP = "  "
_NOISY = " !"


class Column(NamedTuple):
    """One column.

    Attributes:
        title: Its heading, which gives it its width.
        text: What stands there.
    """

    title: str
    text: Callable[[Row], str]


def _number(name: str, digits: int) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        value = getattr(row, name)
        return "-" if value is None else f"{value:.{digits}f}"

    return text


NAMES = (
    Column("Block Size (B)", lambda row: str(row.block_size)),
    Column("Batch Size", lambda row: str(row.batch_size)),
    Column("B/W (GB/Sec)", _number("bandwidth_gb_s", 6)),
)
OF_SEVERAL = (
    Column("Aggregate B/W (GB/Sec)", _number("aggregate_gb_s", 6)),
    Column("Network Util (%)", _number("utilisation_percent", 1)),
)
TIMES = (
    Column("Avg Lat. (us)", _number("latency_avg_us", 1)),
    Column("Avg Prep (us)", _number("prepare_avg_us", 1)),
    Column("P99 Prep (us)", _number("prepare_p99_us", 1)),
    Column("Avg Post (us)", _number("post_avg_us", 1)),
    Column("P99 Post (us)", _number("post_p99_us", 1)),
    Column("Avg Tx (us)", _number("transfer_avg_us", 1)),
    Column("P99 Tx (us)", _number("transfer_p99_us", 1)),
)
OURS = (
    Column("% of limit", _number("limit_percent", 1)),
    Column("P50 Lat. (us)", _number("latency_p50_us", 1)),
    Column("P90 Lat. (us)", _number("latency_p90_us", 1)),
    Column("P99.9 Lat. (us)", _number("latency_p99_9_us", 1)),
    Column("CV", _number("variation", 2)),
)
OPERATION = Column("Operation", lambda row: row.op_type)
ENGINE = Column("Engine   ", lambda row: row.engine)
WRONG = Column("Wrong", lambda row: "-" if row.wrong is None else str(row.wrong))

_LEAST_NEEDED = (
    "P90 Lat. (us)", "P99.9 Lat. (us)", "P50 Lat. (us)", "P99 Prep (us)", "P99 Post (us)", "CV", "Avg Prep (us)",
    "Avg Post (us)", "P99 Tx (us)", "Avg Tx (us)",
)  # fmt: skip
"""Columns that a terminal that is too narrow is spared, in this order."""

LEGEND = """\
Lat   from the beginning of a transfer (Prep, or Post where the request was made before) to its end; with --rate from
      the time at which it was to begin
Prep  making the request: the lists of blocks are checked and matched to registered memory
Post  the call that starts the transfer
Tx    from the start of that call until the end was seen
CV    standard deviation over mean of the bandwidth of the measurement's parts; ! marks more than 0.25: too noisy"""


class Table:
    """Lines of one width for each column, so that each row can be printed as soon as it is there.

    Args:
        has_pairs: Whether several pairs move blocks at once.
        has_engines: Whether several engines are compared.
        has_operations: Whether rows are of several operations.
        is_checked: Whether blocks are checked.
        width: Characters that a line may have; None for as many as it takes.

    Attributes:
        columns: What is shown.
        missing: Titles of the columns for which there is no room.
    """

    def __init__(
        self,
        *,
        has_pairs: bool = False,
        has_engines: bool = False,
        has_operations: bool = False,
        is_checked: bool = False,
        width: int | None = None,
    ) -> None:
        self.columns: Sequence[Column] = (
            *((ENGINE,) if has_engines else ()),
            *((OPERATION,) if has_operations else ()),
            *NAMES,
            *(OF_SEVERAL if has_pairs else ()),
            *TIMES,
            *OURS,
            *((WRONG,) if is_checked else ()),
        )
        self.missing: list[str] = []
        for title in _LEAST_NEEDED:
            if width is None or len(self.header) + len(_NOISY) <= width:
                break
            self.missing.append(title)
            self.columns = [column for column in self.columns if column.title != title]

    @property
    def header(self) -> str:
        """The first line."""
        return _GAP.join(column.title for column in self.columns).rstrip()

    def line(self, row: Row) -> str:
        """Return a row's line."""
        mark = _NOISY if row.is_noisy else ""
        return _GAP.join(column.text(row).ljust(len(column.title)) for column in self.columns).rstrip() + mark
