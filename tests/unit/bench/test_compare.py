from __future__ import annotations

import msgspec
import pytest
from tests.unit.bench.sample import SIZES, make_row, make_run

from trunkline.bench.compare import by_engine, compare
from trunkline.bench.result import Run


def test_ratio_and_spread_of_each_tuple_of_settings() -> None:
    before = Run(rows=(make_row(bandwidth_gb_s=4.0, variation=0.03), make_row(batch_size=2, bandwidth_gb_s=2.0)))
    after = Run(rows=(make_row(bandwidth_gb_s=5.0, variation=0.04), make_row(batch_size=2, bandwidth_gb_s=2.1)))
    first, second = compare(before, after).pairs
    assert first.settings["batch_size"] == 1
    assert first.ratio == pytest.approx(1.25)
    assert first.spread == pytest.approx(0.05)
    assert first.is_different
    assert second.ratio == pytest.approx(1.05)
    assert not second.is_different


def test_several_rows_with_the_same_settings_give_their_own_variation() -> None:
    rows = tuple(make_row(bandwidth_gb_s=bandwidth, variation=0.5) for bandwidth in (9.0, 10.0, 11.0))
    (pair,) = compare(Run(rows=rows), Run(rows=(make_row(bandwidth_gb_s=20.0, variation=0.0),))).pairs
    assert pair.before.bandwidth_gb_s == pytest.approx(10)
    assert pair.before.variation == pytest.approx(0.1)
    assert pair.ratio == pytest.approx(2)


def test_without_a_variation_nothing_is_said_of_noise() -> None:
    (pair,) = compare(Run(rows=(make_row(variation=None),)), Run(rows=(make_row(bandwidth_gb_s=99.0),))).pairs
    assert pair.spread is None
    assert not pair.is_different


def test_pairs_of_workers_are_compared_by_what_they_move_together() -> None:
    before = Run(rows=(make_row(pairs=4, bandwidth_gb_s=5.0, aggregate_gb_s=10.0),))
    after = Run(rows=(make_row(pairs=4, bandwidth_gb_s=5.0, aggregate_gb_s=20.0),))
    assert compare(before, after).pairs[0].ratio == pytest.approx(2)


def test_medians_are_compared_with_medians_only() -> None:
    first = make_row(latency_avg_us=20.0, latency_p50_us=10.0)
    second = make_row(latency_avg_us=10.0, latency_p50_us=20.0)
    third = make_row(latency_avg_us=10.0, latency_p50_us=None)
    assert compare(Run(rows=(first,)), Run(rows=(second,))).pairs[0].latency_ratio == pytest.approx(2)
    assert compare(Run(rows=(first,)), Run(rows=(third,))).pairs[0].latency_ratio == pytest.approx(0.5)


def test_what_one_run_alone_measured_is_named() -> None:
    before, after = make_run(batch_sizes=(1, 16)), make_run(batch_sizes=(16, 32))
    found = compare(before, after)
    assert len(found.pairs) == 2 * len(SIZES)
    assert {settings["batch_size"] for settings in found.only_before} == {1}
    assert {settings["batch_size"] for settings in found.only_after} == {32}
    assert found.differing == {}


def test_settings_that_differ_are_named_and_may_be_ignored() -> None:
    before, after = make_run(), make_run(engine="nixl")
    found = compare(before, after)
    assert found.pairs == ()
    assert found.differing == {"engine": (["trunkline"], ["nixl"])}
    found = compare(before, after, ignored=["engine"])
    assert [pair.ratio for pair in found.pairs] == [1] * 32
    assert "engine" not in found.pairs[0].settings


def test_nothing_is_divided_by_nothing() -> None:
    nothing = make_row(bandwidth_gb_s=0.0, latency_avg_us=0.0, latency_p50_us=0.0)
    (pair,) = compare(Run(rows=(nothing, nothing)), Run(rows=(nothing,))).pairs
    assert (pair.ratio, pair.spread, pair.latency_ratio) == (None, None, None)
    assert not pair.is_different
    assert compare(Run(rows=()), Run(rows=())).pairs == ()


def test_a_run_of_two_engines_is_two_runs() -> None:
    ours, theirs = make_run(), make_run(engine="nixl")
    parts = by_engine(msgspec.structs.replace(ours, rows=ours.rows + theirs.rows))
    assert list(parts) == ["nixl", "trunkline"]
    assert parts["trunkline"] == ours
    assert parts["nixl"].rows == theirs.rows
