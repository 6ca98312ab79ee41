from __future__ import annotations

from trunkline.demo.run import Report


def test_a_report_is_good_only_if_it_ran_to_its_end_and_all_checks_held() -> None:
    assert Report(checks={"a": True, "b": True}).ok
    assert not Report(checks={"a": True, "b": False}).ok
    assert not Report(checks={"a": True}, failure="prefill ended").ok
