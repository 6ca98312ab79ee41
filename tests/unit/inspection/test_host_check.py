from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import pytest

from trunkline.errors import BackendUnavailableError
from trunkline.inspection.finding import Severity
from trunkline.inspection.host_check import check_environment, check_limits, check_ptrace, check_ucx

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("capabilities", "scope", "severity"),
    [
        ("0000000000000000", "0", Severity.OK),
        ("0000000000000000", "1", Severity.WARNING),
        ("0000000000000000", "3", Severity.WARNING),
        ("0000000000080000", "3", Severity.OK),
        ("000001ffffffffff", "1", Severity.OK),
        ("0000000000000000", None, Severity.OK),
    ],
)
def test_the_right_to_read_others(tmp_path: Path, capabilities: str, scope: str | None, severity: Severity) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/status").write_text(f"Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t{capabilities}\n")
    if scope is not None:
        (tmp_path / "sys/kernel/yama").mkdir(parents=True)
        (tmp_path / "sys/kernel/yama/ptrace_scope").write_text(f"{scope}\n")
    (found,) = check_ptrace(tmp_path)
    assert found.severity is severity
    assert bool(found.advice) == (severity is Severity.WARNING)


def test_where_there_is_no_proc(tmp_path: Path) -> None:
    assert check_ptrace(tmp_path)[0].severity is Severity.SKIPPED


@pytest.mark.parametrize(
    ("files", "locked", "fabric", "warnings"),
    [(1024, -1, True, 1), (65536, 65536, True, 1), (65536, 65536, False, 0), (-1, -1, True, 0), (1024, 1, True, 2)],
)
def test_limits_of_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int, locked: int, fabric: bool, warnings: int
) -> None:
    limits = {resource.RLIMIT_NOFILE: files, resource.RLIMIT_MEMLOCK: locked}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limits[kind], limits[kind]))
    if fabric:
        (tmp_path / "mlx5_0").mkdir()
    found = check_limits(tmp_path)
    assert sum(finding.severity is Severity.WARNING for finding in found) == warnings


def test_a_variable_that_says_otherwise() -> None:
    assert check_environment({"NIXL_ETCD_NAMESPACE": "/dev"}, "/prod")[0].severity is Severity.WARNING
    assert check_environment({"NIXL_ETCD_NAMESPACE": "/prod"}, "/prod")[0].severity is Severity.OK
    assert check_environment({}, "/prod")[0].severity is Severity.OK


def test_a_ucx_that_can_not_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object = None) -> None:
        raise BackendUnavailableError("no libucp.so")

    monkeypatch.setattr("trunkline.backend.plugins.ucx.library.load_native", refuse)
    (found,) = check_ucx(devices=None, timeout=1)
    assert (found.severity, found.message) == (Severity.PROBLEM, "no libucp.so")
