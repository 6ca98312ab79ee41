"""NIXLBench's text: a block of options, a line of column names, a line of figures for each block and batch size.

Its columns differ from ours in what they mean: the average latency is the elapsed time over iterations × batch size; of
several pairs the bandwidth is that of one of them, and the utilisation is against 50 GB/s for each.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trunkline.bench.result import Row, Run
from trunkline.errors import ResultError

if TYPE_CHECKING:
    from collections.abc import Iterator

COLUMNS = {
    "Block Size (B)": "block_size",
    "Batch Size": "batch_size",
    "B/W (GB/Sec)": "bandwidth_gb_s",
    "Aggregate B/W (GB/Sec)": "aggregate_gb_s",
    "Network Util (%)": "utilisation_percent",
    "Avg Lat. (us)": "latency_avg_us",
    "Avg Prep (us)": "prepare_avg_us",
    "P99 Prep (us)": "prepare_p99_us",
    "Avg Post (us)": "post_avg_us",
    "P99 Post (us)": "post_p99_us",
    "Avg Tx (us)": "transfer_avg_us",
    "P99 Tx (us)": "transfer_p99_us",
    "B/W (MiB/Sec)": None,  # of older versions, beside the same in GB
    "B/W (GiB/Sec)": None,
}
"""Its column names, and ours."""

_NEEDED = {"block_size", "batch_size", "bandwidth_gb_s", "latency_avg_us"}
_LIMIT_OF_PAIR_GB_S = 50.0
_LARGE_BLOCK = 1 << 20
_UNKNOWN = "unknown"

_header = re.compile("|".join(re.escape(name) for name in sorted(COLUMNS, key=len, reverse=True)))
_option = re.compile(r"\(--(\w+)=[^)]*\)\s*: ?(.*)")
_number = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?(e[+-]?[0-9]{1,2})?")
_size = re.compile("[1-9][0-9]{0,17}")
_secret = re.compile("_key$|secret|token|password|connection_string")


@dataclass
class _Section:
    """One run in the text: a table, and the options that were printed since the one before."""

    options: dict[str, str]
    rows: list[Row] = field(default_factory=list)


def import_nixlbench(text: str, source: str) -> Run:
    """Return what NIXLBench printed, as a run: the rows of all its runs that the text holds, in their order.

    Lines of logs and progress between are passed over, as is what stands before each line (a launcher's tag). What the
    text doesn't tell is ``unknown``, an unknown number of iterations 0; options that may be secrets are left out.

    Args:
        text: Its standard output.
        source: Where it is from, for messages.

    Raises:
        ResultError: No line of figures under a line of column names is there.
    """
    sections: list[_Section] = []
    options: dict[str, str] = {}  # of the run whose table is yet to come
    names: list[str | None] = []
    start = cut = failed_checks = 0
    for line in text.splitlines():
        if option := _option.search(line):
            options[option[1]] = option[2].rstrip()
        elif len(found := list(_header.finditer(line))) > 1:
            sections.append(_Section(options))
            options = {}
            names, start = [COLUMNS[each[0]] for each in found], found[0].start()
            if not set(names) >= _NEEDED:
                raise ResultError(f"{source}: its table has no columns for block, batch, GB/s and average latency")
        elif "Consistency check failed" in line:
            failed_checks += 1
        elif names:
            words = line[start:].split()
            if not all(map(_size.fullmatch, words[:2])):
                continue
            if len(words) == len(names) and all(map(_number.fullmatch, words)):
                sections[-1].rows.append(_make_row(dict(zip(names, words, strict=True)), sections[-1].options))
            elif len(words) > 1:
                cut += 1
    sections = [each for each in sections if each.rows]
    if not sections:
        raise ResultError(
            f"{source} holds no results of NIXLBench: no line of figures under a line that begins with "
            "'Block Size (B)'. Give what it printed on standard output (only the first initiator prints figures)",
            path=source,
        )
    return Run(
        rows=tuple(row for each in sections for row in each.rows),
        workload="nixlbench",
        options={name: value for name, value in _shared(sections).items() if not _secret.search(name)},
        notes=tuple(_notes(sections, cut=cut, failed_checks=failed_checks)),
    )


def _shared(sections: list[_Section]) -> dict[str, str]:
    """Return the options that all runs have alike."""
    first, *others = (each.options for each in sections)
    return {name: value for name, value in first.items() if all(each.get(name) == value for each in others)}


def _make_row(words: dict[str | None, str], options: dict[str, str]) -> Row:
    figures: dict[str, Any] = {name: float(word) for name, word in words.items() if name is not None}
    block_size, batch_size = int(figures.pop("block_size")), int(figures.pop("batch_size"))
    iterations = _whole(options, "num_iter", 0)
    if block_size > _LARGE_BLOCK:
        iterations //= max(1, _whole(options, "large_blk_iter_ftr", 1))
    return Row(
        engine="nixl",
        backend=options.get("backend", _UNKNOWN),
        transport=_UNKNOWN,
        op_type=options.get("op_type", _UNKNOWN),
        scheme=options.get("scheme", _UNKNOWN),
        mode=options.get("mode", _UNKNOWN),
        initiator_seg_type=options.get("initiator_seg_type", _UNKNOWN),
        target_seg_type=options.get("target_seg_type", _UNKNOWN),
        pairs=_count_pairs(figures),
        num_threads=_whole(options, "num_threads", 1),
        pipeline_depth=_whole(options, "pipeline_depth", 1),
        block_size=block_size,
        batch_size=batch_size,
        iterations=iterations,
        **figures,
    )


def _whole(options: dict[str, str], name: str, default: int) -> int:
    word = options.get(name, "")
    return int(word) if word.isascii() and word.isdigit() and len(word) < 16 else default


def _count_pairs(figures: dict[str, float]) -> int:
    """Return how many pairs there were, which only the utilisation tells: it is against 50 GB/s for each."""
    aggregate, utilisation = figures.get("aggregate_gb_s"), figures.get("utilisation_percent")
    if not aggregate or not utilisation:
        return 1
    return max(1, round(aggregate * 100 / (utilisation * _LIMIT_OF_PAIR_GB_S)))


def _notes(sections: list[_Section], *, cut: int, failed_checks: int) -> Iterator[str]:
    rows = [row for each in sections for row in each.rows]
    yield "imported from NIXLBench's text: its average latency is the elapsed time over iterations × batch size"
    if len(sections) > 1:
        yield f"the text held {len(sections)} runs; the options are those that all have alike"
    if any(row.pairs > 1 for row in rows):
        yield "of several pairs, GB/s is that of one of them, and utilisation is against 50 GB/s for each pair"
    if any(not each.options for each in sections):
        yield "the text did not say what was measured: settings are unknown"
    if cut:
        yield f"{cut} lines of figures were broken and left out"
    if failed_checks:
        yield f"NIXLBench's consistency check failed; its text says so in {failed_checks} lines"
