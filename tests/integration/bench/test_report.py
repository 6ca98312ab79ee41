"""The report in a real browser: it fits the screen, it is legible in light and dark, it runs and loads nothing.

Screenshots of it are kept in ``$TRUNKLINE_SCREENSHOTS`` if that is set.
"""

from __future__ import annotations

import os
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.integration.bench.browser import Browser, View, find_browser
from tests.unit.bench.sample import HOSTILE, make_hostile, make_matrix, make_row, make_run

from trunkline.bench.report import make_page, write_report
from trunkline.bench.result import Run

pytestmark = pytest.mark.browser

DESKTOP, PHONE = 1280, 390


def noisy(run: Run) -> Run:
    rows = [msgspec.structs.replace(row, is_noisy=number % 5 == 3) for number, row in enumerate(run.rows)]
    return msgspec.structs.replace(run, rows=tuple(rows), is_complete=False, notes=("stopped",))


SHADES = tuple(make_row(initiator=0, target=target, bandwidth_gb_s=target + 0.1) for target in range(8))

PAGES = {
    "one": make_page({"one.json": noisy(make_run())}),
    "two": make_page(
        {"trunkline.json": make_run(), "nixl.json": make_run(engine="nixl", rate_gb_s=7.0, start_us=25.0)}
    ),
    "matrix": make_page({"matrix.json": make_matrix(8)}),
    "shades": make_page({"shades.json": Run(rows=SHADES)}),
    "hostile": make_page({HOSTILE: make_hostile(), "other.json": make_run()}),
}


VIEWS = [(name, width, is_open) for name in PAGES for width in (DESKTOP, PHONE) for is_open in (False, True)]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium is installed (Debian: chromium-headless-shell)")
    return Browser(program, tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def measured(browser: Browser) -> dict[tuple[str, int, bool], dict[str, Any]]:
    """Return what each page is like, by name, width, and whether details are open; for who prefers light pages."""
    views = [View(PAGES[name], width, is_open=is_open) for name, width, is_open in VIEWS]
    return dict(zip(VIEWS, browser.measure(views), strict=True))


def overlaps(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(
        one["left"] < other["left"] + other["width"]
        and other["left"] < one["left"] + one["width"]
        and one["top"] < other["top"] + other["height"] - 2  # a line's box is higher than its letters
        and other["top"] < one["top"] + one["height"] - 2
    )


def luminance(colour: str) -> float:
    """Return how bright a colour is, as WCAG defines it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("is_open", [False, True], ids=["folded", "open"])
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
@pytest.mark.parametrize("name", PAGES)
def test_it_fits_the_screen_and_its_texts_are_apart(
    measured: dict[tuple[str, int, bool], dict[str, Any]], name: str, width: int, is_open: bool
) -> None:
    found = measured[name, width, is_open]
    assert found["scroll_width"] == width
    assert found["wide"] == []
    assert len(found["texts"]) == PAGES[name].count('<figure class="plot">')
    for texts in found["texts"]:
        shown = [text for text in texts if text["width"] > 0]  # nothing within folded details is
        for text in shown:
            assert min(text[side] for side in ("left", "right", "top", "bottom")) >= 0, text
            assert text["height"] >= 11, text
        assert [(one, other) for one, other in combinations(shown, 2) if overlaps(one, other)] == []


@pytest.mark.parametrize("name", PAGES)
def test_it_runs_and_loads_nothing(measured: dict[tuple[str, int, bool], dict[str, Any]], name: str) -> None:
    found = measured[name, DESKTOP, True]
    assert (found["scripts"], found["images"], found["loaded"]) == (0, 0, [])
    if name == "hostile":
        assert "<script>alert(1)</script><img src=x onerror=alert(2)>" in found["text"]
        assert r"\u202eevil\x1b[31m\x00" in found["text"]


def contrast(pair: str) -> float:
    """Return the contrast of two colours, given as ``one on other``, as WCAG defines it."""
    darker, brighter = sorted(map(luminance, pair.split(" on ")))
    return (brighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
def test_it_follows_what_its_reader_prefers_and_is_legible(browser: Browser, is_dark: bool) -> None:
    views = [View(PAGES[name], DESKTOP) for name in ("one", "two", "shades")]
    for found in browser.measure(views, is_dark=is_dark):
        check_colours(found, is_dark=is_dark)


def check_colours(found: dict[str, Any], *, is_dark: bool) -> None:
    assert found["dark"] == is_dark
    assert (luminance(found["background"]) < luminance(found["colour"])) == is_dark
    colours = found["colours"]
    assert len(colours["text"]) >= 4
    assert [(pair, contrast(pair)) for pair in colours["text"] + colours["drawn_text"] if contrast(pair) < 4.5] == []
    assert [(pair, contrast(pair)) for pair in colours["line"] if contrast(pair) < 3] == []


def test_a_file_opens_as_it_is(browser: Browser, tmp_path: Path) -> None:
    write_report({"one.json": make_run()}, tmp_path / "out.html")
    document = browser.open_file(tmp_path / "out.html")
    assert "<h1>Trunkline benchmark: one.json</h1>" in document
    assert document.count('<svg role="img"') == 6


QUICK = [("two", DESKTOP, 0), ("matrix", PHONE, 1)]
SHOTS = [
    (name, width, is_dark)
    for name in ("one", "two", "matrix")
    for width in (DESKTOP, PHONE)
    for is_dark in (0, 1)
    if (name, width, is_dark) not in QUICK
]


@pytest.mark.parametrize(
    ("name", "width", "is_dark"), [*QUICK, *(pytest.param(*shot, marks=pytest.mark.soak) for shot in SHOTS)]
)
def test_screenshots(browser: Browser, tmp_path: Path, name: str, width: int, is_dark: int) -> None:
    """For people to look at; what a machine can tell of them is that something is shown."""
    kept = Path(os.environ.get("TRUNKLINE_SCREENSHOTS", tmp_path))
    path = kept / f"{name}-{width}-{'dark' if is_dark else 'light'}.png"
    browser.take_screenshot(View(PAGES[name], width, 2400), path, is_dark=bool(is_dark))
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 20_000
