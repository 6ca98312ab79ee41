from __future__ import annotations

from trunkline.inspection.finding import Severity, ok, problem, skipped, warning


def test_findings_say_how_bad_it_is() -> None:
    assert [
        each.severity for each in (ok("a", "b"), skipped("a", "b"), warning("a", "b", "c"), problem("a", "b", "c"))
    ] == [
        Severity.OK,
        Severity.SKIPPED,
        Severity.WARNING,
        Severity.PROBLEM,
    ]
    assert (ok("a", "b").advice, problem("a", "b", "c").advice) == ("", "c")
