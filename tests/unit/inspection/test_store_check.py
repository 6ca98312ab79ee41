from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trunkline.etcd.client import Status
from trunkline.etcd.config import EtcdConfig
from trunkline.etcd.credentials import Credentials
from trunkline.inspection import store_check
from trunkline.inspection.finding import Severity
from trunkline.inspection.store_check import (
    CERTIFICATE_MARGIN,
    Member,
    check_clock,
    check_endpoints,
    check_space,
    check_tls,
    check_version,
    defects_of,
)

if TYPE_CHECKING:
    from trunkline.inspection.finding import Finding

LOCAL = EtcdConfig(("127.0.0.1:2379", "[::1]:2379"))
FAR = EtcdConfig(("10.0.0.1:2379",))
SECURE = EtcdConfig(("etcd.test:2379",), is_secure=True)


def member(version: str = "3.5.30", *, leader: int = 1, size: int = 1, errors: tuple[str, ...] = ()) -> Member:
    return Member("a:1", Status(version, leader, size, errors), 0.001)


def severities(findings: list[Finding]) -> list[Severity]:
    return [finding.severity for finding in findings]


@pytest.mark.parametrize(
    ("version", "is_cluster", "has_auth", "words"),
    [
        ("3.5.1", True, False, ["committed writes", "writes twice"]),
        ("3.5.2", True, False, ["committed writes", "writes twice"]),
        ("3.5.3", True, False, ["writes twice"]),
        ("3.5.5", True, False, ["writes twice"]),
        ("3.5.6", True, False, []),
        ("3.5.1", False, False, []),
        ("3.5.8", False, True, ["CVE-2023-32082", "GHSA"]),
        ("3.5.9", False, True, ["GHSA"]),
        ("3.5.30", True, True, []),
        ("3.4.23", True, False, []),
        ("3.4.25", False, True, ["CVE-2023-32082", "GHSA"]),
        ("3.4.44", True, True, []),
        ("3.6.10", True, True, ["GHSA"]),
        ("3.6.11", True, True, []),
        ("3.6.0-rc.1", True, False, []),
        ("4.0.0", True, True, []),
    ],
)
def test_known_defects(version: str, is_cluster: bool, has_auth: bool, words: list[str]) -> None:
    found = defects_of(version, is_cluster=is_cluster, has_auth=has_auth)
    assert found is not None
    assert len(found) == len(words)
    assert all(word in text for word, text in zip(words, found, strict=True))


@pytest.mark.parametrize("version", ["", "3.5", "three", "3.5.x", "3.5.1.2"])
def test_a_version_that_can_not_be_read_is_not_judged(version: str) -> None:
    assert defects_of(version, is_cluster=True, has_auth=True) is None
    assert severities(check_version([member(version)], has_auth=True)) == [Severity.SKIPPED]


def test_members_of_different_versions_are_told() -> None:
    found = check_version([member("3.5.30"), member("3.6.11")], has_auth=False)
    assert severities(found) == [Severity.OK, Severity.OK, Severity.WARNING]


def test_endpoints() -> None:
    dead = Member("b:1", None, error="no answer")
    assert severities(check_endpoints([member(), dead])) == [Severity.OK, Severity.WARNING]
    assert severities(check_endpoints([dead, dead])) == [Severity.PROBLEM, Severity.PROBLEM]
    assert severities(check_endpoints([member(leader=0)])) == [Severity.PROBLEM]


def test_space() -> None:
    full = member(errors=("memberID:1 alarm:NOSPACE ",))
    assert severities(check_space([member(), member(size=1_900_000_000), full, Member("b:1", None)])) == [
        Severity.OK,
        Severity.WARNING,
        Severity.PROBLEM,
    ]


def test_plain_text_is_fine_on_loopback_only() -> None:
    assert severities(check_tls(LOCAL, 1)) == [Severity.OK]
    assert severities(check_tls(EtcdConfig(("localhost:1", "127.0.0.1.evil.test:1")), 1)) == [Severity.WARNING]
    (found,) = check_tls(EtcdConfig(("10.0.0.1:2379",), credentials=Credentials("eva", "apple")), 1)
    assert found.severity is Severity.WARNING
    assert "the password" in found.message
    assert "apple" not in found.message


@pytest.mark.parametrize(
    ("answer", "severity"),
    [
        (CERTIFICATE_MARGIN + 1, Severity.OK),
        (CERTIFICATE_MARGIN - 1, Severity.WARNING),
        ("certificate verify failed", Severity.PROBLEM),
    ],
)
def test_certificates(monkeypatch: pytest.MonkeyPatch, answer: float | str, severity: Severity) -> None:
    monkeypatch.setattr(store_check, "read_certificate", lambda *_: answer)
    assert severities(check_tls(SECURE, 1)) == [severity]


@pytest.mark.parametrize(
    ("answer", "severity"),
    [(0.9, Severity.OK), (-60.0, Severity.WARNING), (60.0, Severity.WARNING), ("it says nothing", Severity.SKIPPED)],
)
def test_clocks(monkeypatch: pytest.MonkeyPatch, answer: float | str, severity: Severity) -> None:
    monkeypatch.setattr(store_check, "read_clock", lambda *_: answer)
    assert severities(check_clock(FAR, 1)) == [severity]
