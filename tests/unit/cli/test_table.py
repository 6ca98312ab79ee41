from __future__ import annotations

import pytest
from rich.console import Console

from trunkline.cli.table import duration, format_table, pairs, print_table, rich_table, size

ROWS = [("a\x1b[31m", "[red]x[/red]"), ("日本" * 40, "y" * 300)]


def test_plain_tables_are_aligned_and_whole() -> None:
    lines = format_table(("NAME", "WHAT"), [("a", "x"), ("日本", "y"), ("abcdef", "")]).splitlines()
    assert lines == ["NAME    WHAT", "a       x", "日本    y", "abcdef"]


def test_nothing_is_cut_or_coloured_when_it_goes_to_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("NAME", "WHAT"), ROWS)
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert r"a\x1b[31m" in text
    assert "[red]x[/red]" in text
    assert "日本" * 40 in text
    assert "y" * 300 in text
    assert len(text.splitlines()) == 3


def test_a_terminal_folds_what_does_not_fit_and_obeys_nobody() -> None:
    console = Console(width=60, force_terminal=True, markup=False, highlight=False, record=True, file=None)
    with console.capture() as capture:
        console.print(rich_table(("NAME", "WHAT"), ROWS))
    text = capture.get()
    assert "\x1b[31m" not in text
    assert r"\x1b[31m" in text
    assert "[red]x[/red]" in text
    assert text.count("y") == 300
    assert text.count("日") == 40


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "-"), (0.2, "0s"), (59.9, "59s"), (60, "1m"), (3725, "1h2m"), (86400 * 3 + 7200, "3d2h"), (86400, "1d")],
)
def test_durations(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5_000_000, "4.8 MiB"), (3 << 39, "1.5 TiB")]
)
def test_sizes(count: int, words: str) -> None:
    assert size(count) == words


def test_pairs() -> None:
    assert (pairs({"a": "1", "b": ""}), pairs({})) == ("a=1,b=", "-")
