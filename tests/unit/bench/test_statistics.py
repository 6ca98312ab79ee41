from __future__ import annotations

import numpy as np
import pytest

from trunkline.bench.statistics import (
    MOST_SAMPLES,
    Readings,
    Samples,
    condense,
    mean,
    part_rates,
    percentile,
    variation,
)


def steady(count: int, interval: int, duration: int) -> Samples:
    began = np.arange(count) * interval
    empty = np.array([], np.int64)
    return Samples(began, empty, np.full(count, 100), np.full(count, duration), began + duration)


def test_percentiles_are_those_of_all_workers_together() -> None:
    generator = np.random.default_rng(1)
    times = [generator.integers(1_000, 1_000_000, count) for count in (100, 300)]
    readings = [Readings.of(each) for each in times]
    together = np.concatenate(times) / 1e3
    for which in (50, 90, 99, 99.9):
        assert percentile(readings, which) == pytest.approx(np.percentile(together, which), rel=1e-6)
    assert mean(readings) == pytest.approx(together.mean())


def test_many_readings_are_sent_as_a_selection_with_the_same_percentiles_and_the_exact_mean() -> None:
    times = np.random.default_rng(2).exponential(1e6, 10 * MOST_SAMPLES).astype(np.int64)
    readings = Readings.of(times)
    assert len(readings.ordered) == 4 * MOST_SAMPLES
    assert readings.count == len(times)
    assert mean([readings]) == pytest.approx(times.mean() / 1e3)
    for which in (50, 90, 99, 99.9):
        assert percentile([readings], which) == pytest.approx(np.percentile(times, which) / 1e3, rel=1e-2)


def test_of_nothing_there_is_no_mean() -> None:
    nothing = Readings.of(np.array([], np.int64))
    assert mean([nothing]) is None
    assert percentile([nothing], 50) is None


def test_bandwidth_is_bytes_over_the_time_from_the_first_beginning_to_the_last_end() -> None:
    found = condense([steady(10, 1_000, 1_000)], 4_000)
    assert found.rate == pytest.approx(4e9)
    assert found.parts == pytest.approx([4e9] * 10)
    assert found.latency.count == 10
    assert mean([found.transfer]) == pytest.approx(1.0)


def test_rounds_that_took_longer_weigh_more() -> None:
    found = condense([steady(10, 1_000, 1_000), steady(10, 3_000, 3_000)], 1_000)
    assert found.rates == pytest.approx((1e9, 1e9 / 3))
    assert found.rate == pytest.approx(20 * 1_000 / 40e-6)


def test_a_part_that_was_slow_shows_in_the_variation() -> None:
    even, uneven = steady(100, 1_000, 1_000), steady(100, 1_000, 1_000)
    uneven.began[50:] += 400_000
    uneven.ended[50:] += 400_000
    assert variation(part_rates(even)) == pytest.approx(0, abs=1e-9)
    assert (variation(part_rates(uneven)) or 0) > 0.25


def test_one_part_has_no_variation() -> None:
    assert variation([1.0]) is None
    assert len(part_rates(steady(3, 10, 10))) == 3
