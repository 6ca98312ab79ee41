from __future__ import annotations

import pytest

from trunkline.bench.result import Row
from trunkline.bench.table import Table

ROW = Row(
    engine="trunkline", backend="UCX", transport="tcp/lo", op_type="WRITE", scheme="pairwise", mode="SG",
    initiator_seg_type="DRAM", target_seg_type="DRAM", pairs=2, num_threads=1, pipeline_depth=1, block_size=4096,
    batch_size=2, iterations=10, bandwidth_gb_s=1.5, aggregate_gb_s=3.0, utilisation_percent=75.0,
    latency_avg_us=12.34, transfer_avg_us=5.0, variation=0.5, is_noisy=True, wrong=0,
)  # fmt: skip
NIXLBENCH = [
    "Block Size (B)", "Batch Size", "B/W (GB/Sec)", "Aggregate B/W (GB/Sec)", "Network Util (%)", "Avg Lat. (us)",
    "Avg Prep (us)", "P99 Prep (us)", "Avg Post (us)", "P99 Post (us)", "Avg Tx (us)", "P99 Tx (us)",
]  # fmt: skip


def test_the_first_columns_are_nixlbenchs() -> None:
    table = Table(has_pairs=True)
    assert [column.title for column in table.columns][: len(NIXLBENCH)] == NIXLBENCH
    assert [column.title for column in Table().columns][:3] == NIXLBENCH[:3]
    assert "Aggregate B/W (GB/Sec)" not in Table().header


def test_cells_stand_under_their_titles() -> None:
    table = Table(has_pairs=True, has_engines=True, is_checked=True)
    line = table.line(ROW)
    for title, text in (
        ("Engine", "trunkline"), ("Block Size (B)", "4096"), ("B/W (GB/Sec)", "1.500000"), ("Network Util", "75.0"),
        ("Avg Lat.", "12.3"), ("Avg Prep", "-"), ("Avg Tx", "5.0"), ("Wrong", "0"),
    ):  # fmt: skip
        at = table.header.index(title)
        assert line[at:].split()[0] == text, title


def test_a_noisy_row_is_marked() -> None:
    assert Table().line(ROW).endswith(" !")


@pytest.mark.parametrize("width", [100, 120, 150, 400])
def test_a_narrow_terminal_is_spared_the_columns_that_are_needed_least(width: int) -> None:
    table, whole = Table(is_checked=True, width=width), Table(is_checked=True)
    assert len(table.header) <= width
    shown = [column.title for column in table.columns]
    assert [*NIXLBENCH[:3], "Avg Lat. (us)", "% of limit", "Wrong"] == [
        title for title in shown if title in (*NIXLBENCH[:3], "Avg Lat. (us)", "% of limit", "Wrong")
    ]
    assert sorted(shown + table.missing) == sorted(column.title for column in whole.columns)
