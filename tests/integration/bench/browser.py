"""A real browser without a window: what it shows of a page, and what it measured there.

The page is opened in a frame as wide as the screen that is meant, since a browser's own window has a least width. The
document around it reads the frame and writes what it found into itself, which the browser prints.
"""

from __future__ import annotations

import base64
import html
import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip

_AROUND = """<!doctype html><meta charset="utf-8"><style>body{margin:0}iframe{border:0;display:block}</style>
<iframe id="frame" style="width:WIDTHpx;height:HEIGHTpx"></iframe><pre id="found" hidden></pre>
<script>
const frame = document.getElementById("frame");
frame.onload = () => {
  const page = frame.contentDocument, root = page.documentElement;
  for (const each of page.querySelectorAll("details")) each.open = OPEN;
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
    (each) => !each.closest(".scroll") && !each.closest("svg") && box(each).right > WIDTH + 0.5);
  document.getElementById("found").textContent = btoa(unescape(encodeURIComponent(JSON.stringify({
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
  }))));
};
frame.srcdoc = PAGE;
</script>"""


def find_browser() -> str | None:
    """Return the program, None where there is none."""
    return next((found for found in map(shutil.which, PROGRAMS) if found), None)


class Browser:
    """Opens pages, each with a profile of its own."""

    def __init__(self, program: str, directory: Path) -> None:
        self._program = program
        self._directory = directory

    def measure(self, page: str, width: int, *, is_dark: bool = False, is_open: bool = False) -> dict[str, Any]:
        """Return what the page is like in a frame of that width: see the script above.

        Args:
            page: HTML.
            width: Of the frame, in pixels.
            is_dark: Whether its reader prefers dark pages.
            is_open: Whether all details are shown.
        """
        around = self._around(page, width, 900, is_open=is_open)
        text = self._run("--dump-dom", *_scheme(is_dark=is_dark), around.as_uri())
        found = re.search(r'<pre id="found" hidden="">([^<]*)</pre>', text)
        assert found is not None, text[:2000]
        assert found[1], "the page was not loaded"
        measured: dict[str, Any] = json.loads(base64.b64decode(html.unescape(found[1])))
        return measured

    def take_screenshot(
        self, page: str, width: int, path: Path, *, height: int = 2400, is_dark: bool = False, is_open: bool = False
    ) -> None:
        """Write what a frame of that size shows as PNG."""
        around = self._around(page, width, height, is_open=is_open)
        size = f"--window-size={max(width, 500)},{height}"
        self._run(f"--screenshot={path}", size, *_scheme(is_dark=is_dark), around.as_uri())

    def open_file(self, path: Path) -> str:
        """Return the document that a browser made of a file."""
        return self._run("--dump-dom", path.as_uri())

    def _around(self, page: str, width: int, height: int, *, is_open: bool) -> Path:
        content = json.dumps(page).replace("</", "<\\/").replace("<!--", "<\\!--")
        path = self._directory / "around.html"
        around = _AROUND.replace("WIDTH", str(width)).replace("HEIGHT", str(height))
        path.write_text(around.replace("OPEN", "true" if is_open else "false").replace("PAGE", content))
        return path

    def _run(self, *arguments: str) -> str:
        profile = self._directory / "profile"
        command = [self._program, *_FLAGS, f"--user-data-dir={profile}", "--timeout=30000", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def _scheme(*, is_dark: bool) -> tuple[str, ...]:
    return (f"--blink-settings=preferredColorScheme={0 if is_dark else 1}",)
