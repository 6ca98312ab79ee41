"""Every block of Python in the documentation runs as it is printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_runs_as_printed(block: str, tmp_path: Path) -> None:
    if "nixl_cu12" in block:
        pytest.importorskip("nixl_cu12", reason="nixl-cu12 is not installed")
    environment = {**os.environ, "UCX_NET_DEVICES": "lo"}
    environment.pop("NIXL_ETCD_ENDPOINTS", None)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for promise in re.findall(r"print\(.*?\)  +# (.*)", block):
        assert promise in done.stdout


def test_there_is_something_to_run() -> None:
    assert BLOCKS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_inside_the_documentation_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text()):
        assert (page.parent / target).exists(), target
