"""A real browser without a window: what it shows of a page, and what it measured there.

Pages are opened in frames as wide as the screens that are meant, since a browser's own window has a least width. The
document around them reads the frames and writes what it found into itself, which the browser prints.
"""

from __future__ import annotations

import base64
import html
import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip

_AROUND = """<!doctype html><meta charset="utf-8"><style>body{margin:0}iframe{border:0;display:block}</style>
<pre id="found" hidden></pre>
<script>
const cases = CASES;
const frames = cases.map(({page, width, height}) => {
  const frame = document.createElement("iframe");
  Object.assign(frame.style, {width: `${width}px`, height: `${height}px`});
  frame.srcdoc = page;
  return document.body.appendChild(frame);
});
const measure = (frame, {width, is_open}) => {
  const page = frame.contentDocument, root = page.documentElement;
  for (const each of page.querySelectorAll("details")) each.open = is_open;
  const box = (each) => each.getBoundingClientRect();
  const place = (svg) => (text) => {
    const {left, right, top, bottom} = box(text), outer = box(svg);
    return {text: text.textContent, left: left - outer.left, right: outer.right - right, top: top - outer.top,
            bottom: outer.bottom - bottom, width: right - left, height: bottom - top};
  };
  const texts = [...page.querySelectorAll("svg[role=img]")].map(
    (svg) => [...svg.querySelectorAll("text")].map(place(svg)));
  const style = (each) => frame.contentWindow.getComputedStyle(each);
  const behind = (each) => {
    for (; each; each = each.parentElement) {
      const colour = style(each).backgroundColor;
      if (colour !== "rgba(0, 0, 0, 0)") return colour;
    }
  };
  const pairs = (elements, name) => [...new Set(elements.map((each) => `${style(each)[name]} on ${behind(each)}`))];
  const written = [...page.querySelectorAll("body *:not(title, desc)")].filter(
    (each) => [...each.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()));
  const wide = [...page.querySelectorAll("main *")].filter(
    (each) => !each.closest(".scroll") && !each.closest("svg") && box(each).right > width + 0.5);
  return {
    scroll_width: root.scrollWidth, scroll_height: root.scrollHeight, text: page.body.innerText, texts,
    wide: wide.map((each) => each.outerHTML.slice(0, 120)),
    loaded: frame.contentWindow.performance.getEntriesByType("resource").map((each) => each.name),
    scripts: page.scripts.length, images: page.images.length,
    colours: {
      text: pairs(written.filter((each) => !each.closest("svg")), "color"),
      drawn_text: pairs(written.filter((each) => each.closest("svg")), "fill"),
      line: pairs([...page.querySelectorAll(".plot polyline")], "stroke"),
    },
    dark: frame.contentWindow.matchMedia("(prefers-color-scheme: dark)").matches,
    background: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
    colour: frame.contentWindow.getComputedStyle(page.body).color,
  };
};
window.onload = () => {
  const found = frames.map((frame, number) => measure(frame, cases[number]));
  document.getElementById("found").textContent = btoa(unescape(encodeURIComponent(JSON.stringify(found))));
};
</script>"""


def find_browser() -> str | None:
    """Return the program, None where there is none."""
    return next((found for found in map(shutil.which, PROGRAMS) if found), None)


class View(NamedTuple):
    """A page as somebody sees it.

    Attributes:
        page: HTML.
        width: Of the frame, in pixels.
        height: The same.
        is_open: Whether all details are shown.
    """

    page: str
    width: int
    height: int = 900
    is_open: bool = False


class Browser:
    """Opens pages, each with a profile of its own."""

    def __init__(self, program: str, directory: Path) -> None:
        self._program = program
        self._directory = directory

    def measure(self, views: Sequence[View], *, is_dark: bool = False) -> list[dict[str, Any]]:
        """Return what each page is like in its frame: see the script above.

        Args:
            views: Of pages; all are opened at once.
            is_dark: Whether their reader prefers dark pages.
        """
        text = self._run("--dump-dom", *_scheme(is_dark=is_dark), self._around(views).as_uri())
        found = re.search(r'<pre id="found" hidden="">([^<]*)</pre>', text)
        assert found is not None, text[:2000]
        assert found[1], "the pages were not loaded"
        measured: list[dict[str, Any]] = json.loads(base64.b64decode(html.unescape(found[1])))
        return measured

    def take_screenshot(self, view: View, path: Path, *, is_dark: bool = False) -> None:
        """Write what a frame shows as PNG."""
        size = f"--window-size={max(view.width, 500)},{view.height}"
        self._run(f"--screenshot={path}", size, *_scheme(is_dark=is_dark), self._around([view]).as_uri())

    def open_file(self, path: Path) -> str:
        """Return the document that a browser made of a file."""
        return self._run("--dump-dom", path.as_uri())

    def _around(self, views: Sequence[View]) -> Path:
        cases = json.dumps([view._asdict() for view in views]).replace("</", "<\\/").replace("<!--", "<\\!--")
        path = self._directory / "around.html"
        path.write_text(_AROUND.replace("CASES", cases))
        return path

    def _run(self, *arguments: str) -> str:
        profile = self._directory / "profile"
        command = [self._program, *_FLAGS, f"--user-data-dir={profile}", "--timeout=30000", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def _scheme(*, is_dark: bool) -> tuple[str, ...]:
    return (f"--blink-settings=preferredColorScheme={0 if is_dark else 1}",)
