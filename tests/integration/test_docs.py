"""Every block of Python in the documentation runs as it is printed."""

from __future__ import annotations

import os
import re
import shutil
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


NEEDED = ("nixl_cu12", "mpi4py", "torch")
"""Modules that not everybody has installed: blocks that import one are skipped without it."""


def command(block: str, script: Path) -> list[str]:
    """Return what runs a block: Python, or the launcher that its first line names."""
    launcher = re.match(r"# Run as: (.*) exchange\.py\n", block)
    if launcher is None:
        return [sys.executable, "-W", "error", "-c", block]
    script.write_text(block)
    program, *words = launcher[1].split()
    if program == "torchrun":
        launch = [sys.executable, "-m", "torch.distributed.run"]
    else:
        beside = Path(sys.executable).with_name(program)
        found = str(beside) if beside.exists() else shutil.which(program)
        if found is None:
            pytest.skip(f"{program} is not installed")
        launch = [found]
    return [*launch, *(sys.executable if word == "python" else word for word in words), str(script)]


@pytest.mark.parametrize("block", BLOCKS)
def test_runs_as_printed(block: str, tmp_path: Path) -> None:
    for module in NEEDED:
        if re.search(rf"(import|from) {module}\b", block):
            pytest.importorskip(module, reason=f"{module} is not installed")
    environment = {**os.environ, "UCX_NET_DEVICES": "lo"}
    environment.pop("NIXL_ETCD_ENDPOINTS", None)
    done = subprocess.run(
        command(block, tmp_path / "exchange.py"),
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
