"""Programs in real child processes, in which `import nixl` is ours."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trunkline.nixl.place import environment_as_nixl, shim_path

TRUNKLINE = [sys.executable, "-m", "trunkline"]
REPORT = """
import importlib.metadata, json, sys
import nixl, nixl._api, nixl._bindings, nixl._utils, nixl.logging
from nixl._api import nixl_agent, nixl_agent_config
import trunkline.nixl
print(json.dumps({
    "file": nixl.__file__,
    "version": importlib.metadata.version("nixl"),
    "same": nixl_agent is nixl.nixl_agent is trunkline.nixl.nixl_agent is nixl._api.nixl_agent,
    "modules": [nixl._bindings.__name__, nixl._utils.__name__, nixl.logging.__name__],
    "names": nixl.nixlNotFoundError is nixl._bindings.nixlNotFoundError and nixl.DRAM_SEG is nixl._bindings.DRAM_SEG
        and nixl.malloc_passthru is nixl._utils.malloc_passthru
        and nixl.nixl_thread_sync_t is nixl._api.nixl_thread_sync_t,
    "distributions": importlib.metadata.packages_distributions()["nixl"],
    "arguments": sys.argv[1:],
}))
"""


def run(*command: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)


def report(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_program_and_its_arguments() -> None:
    found = report(run(*TRUNKLINE, "as-nixl", "--", sys.executable, "-c", REPORT, "--verbose", "-x", "y"))
    assert found["file"] == str(shim_path() / "nixl" / "__init__.py")
    assert found["version"].startswith("1.5.1")
    assert found["same"]
    assert found["modules"] == [f"trunkline.nixl.{name}" for name in ("_bindings", "_utils", "logging")]
    assert found["names"]
    assert "nixl" in found["distributions"]
    assert found["arguments"] == ["--verbose", "-x", "y"]


def test_child_processes_too() -> None:
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {REPORT!r}, 'child'], check=True)"
    found = report(run(*TRUNKLINE, "as-nixl", "--", sys.executable, "-c", code))
    assert found["arguments"] == ["child"]
    assert found["same"]


def test_by_the_path_alone() -> None:
    path = run(*TRUNKLINE, "nixl-path").stdout.strip()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([path, "/elsewhere"])}
    assert report(run(sys.executable, "-c", REPORT, environment=environment))["same"]


def test_the_exit_status_is_the_program_s() -> None:
    assert run(*TRUNKLINE, "as-nixl", "--", sys.executable, "-c", "raise SystemExit(7)").returncode == 7


def test_a_program_that_is_not_there() -> None:
    done = run(*TRUNKLINE, "as-nixl", "--", "no-such-program")
    assert done.returncode == 1
    assert "'no-such-program' can't be run" in done.stderr


def test_nothing_else_is_shadowed() -> None:
    names = {path.name for path in shim_path().iterdir()}
    assert names == {"nixl", "nixl-1.5.1.dist-info"}


@pytest.mark.skipif(importlib.util.find_spec("nixl_cu12") is None, reason="nixl-cu12 is not installed")
def test_it_refuses_where_the_real_one_is_loaded() -> None:
    done = run(*TRUNKLINE, "as-nixl", "--", sys.executable, "-c", "import nixl_cu12, nixl")
    assert done.returncode == 1
    assert "ImportError: NVIDIA's nixl_cu12 is loaded in this process already" in done.stderr


def test_it_says_so_where_trunkline_is_not_installed() -> None:
    """An interpreter that sees neither installed packages nor the current directory."""
    code = f"import sys; sys.path.insert(0, {str(shim_path())!r}); import nixl"
    done = run(sys.executable, "-S", "-P", "-c", code, environment={"PATH": os.environ["PATH"]})
    assert done.returncode == 1
    assert "which has no Trunkline: install it there too" in done.stderr


def test_the_path_is_prepended_once() -> None:
    first = environment_as_nixl({"PYTHONPATH": "/a", "OTHER": "x"})
    assert first == {"PYTHONPATH": f"{shim_path()}{os.pathsep}/a", "OTHER": "x"}
    assert environment_as_nixl(first) == first
    assert environment_as_nixl({})["PYTHONPATH"] == str(shim_path())


def test_two_agents_of_an_unchanged_program() -> None:
    """What NIXL's own example does, in short."""
    program = Path(__file__).with_name("nixl_program.py")
    done = run(
        *TRUNKLINE, "as-nixl", "--", sys.executable, str(program), environment={**os.environ, "UCX_NET_DEVICES": "lo"}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "DONE"
