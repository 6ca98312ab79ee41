from __future__ import annotations

import json
import stat
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.inspection.conftest import NAMESPACE, blob

from trunkline.errors import FileError
from trunkline.etcd.config import EtcdConfig
from trunkline.etcd.credentials import Credentials
from trunkline.inspection.bundle import REDACTED, redact, redact_environment, versions, write_bundle
from trunkline.inspection.doctor import Report
from trunkline.inspection.finding import problem
from trunkline.inspection.overview import read_overview

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trunkline.directory import Directory
    from trunkline.store.contract import Store

PASSWORD = 'ap"ple\\é'
ENVIRONMENT = {
    "NIXL_ETCD_ENDPOINTS": "http://eva:pear@10.0.0.1:2379,http://10.0.0.2:2379",
    "ETCDCTL_USER": f"eva:{PASSWORD}",
    "ETCDCTL_CACERT": "/secret/ca.pem",
    "TRUNKLINE_SESSION_TTL": "30",
    "TRUNKLINE_ETCD_PASSWORD": "plum",
    "TRUNKLINE_TOKEN": "cherry",
    "UCX_TLS": "tcp",
    "HOME": "/home/eva",
    "AWS_SECRET_ACCESS_KEY": "peach",
}


def read(path: Path) -> dict[str, Any]:
    with tarfile.open(path) as archive:
        return {member.name: json.load(archive.extractfile(member)) for member in archive}  # type: ignore[arg-type]


@pytest.fixture
def report(store: Store, directory: Directory, put: Callable[..., int]) -> Report:
    publisher = directory.open_publisher("a", incarnation="1" * 32, attributes={"token": "secret-of-a"})
    publisher.publish(blob("a", 4096), catalog=b"{}")
    put(f"{NAMESPACE}/n/metadata", blob("n", 4096))
    return Report(
        store="etcd://10.0.0.1:2379",
        namespace=NAMESPACE,
        findings=(problem("auth", f"password {PASSWORD} is wrong at http://eva:pear@10.0.0.1", "check it"),),
        overview=read_overview(store, NAMESPACE, timeout=5),
        config=EtcdConfig(("10.0.0.1:2379",), credentials=Credentials("eva", PASSWORD)),
    )


def test_it_holds_what_a_report_needs_and_no_secret(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.gz"
    write_bundle(path, report, ENVIRONMENT)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    parts = {name.removeprefix("trunkline-doctor/"): content for name, content in read(path).items()}
    assert set(parts) == {"report.json", "versions.json", "environment.json", "agents.json", "keys.json"}
    assert parts["report.json"]["findings"][0]["severity"] == "problem"
    assert parts["environment.json"]["UCX_TLS"] == "tcp"
    keys = {key["key"]: key for key in parts["keys.json"]}
    assert keys[f"{NAMESPACE}/a/metadata"]["size"] == len(blob("a", 4096))
    assert keys[f"{NAMESPACE}/n/metadata"]["size"] == len(blob("n", 4096))
    assert keys[f"{NAMESPACE}/n/metadata"]["lease"] is None
    assert keys[f"{NAMESPACE}/.catalog/a"]["size"] == 2
    assert keys[f"{NAMESPACE}/.presence/a"]["size"] > 100
    assert keys[f"{NAMESPACE}/.presence/a"]["lease_remaining"] > 0
    assert parts["agents.json"][0]["attributes"] == {"token": REDACTED}
    text = json.dumps(parts)
    for secret in (PASSWORD, "pear", "plum", "cherry", "peach", "secret-of-a", "eva:"):
        assert json.dumps(secret)[1:-1] not in text
    for content in ("remote key", blob("a", 4096).hex(), 'address"'):
        assert content not in text


def test_nothing_is_overwritten(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "there"
    path.write_text("mine")
    with pytest.raises(FileError, match="none is overwritten"):
        write_bundle(path, report, {})
    assert path.read_text() == "mine"
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(FileError, match="none is overwritten"):
        write_bundle(tmp_path / "link", report, {})
    with pytest.raises(FileError, match="can't be written"):
        write_bundle(tmp_path / "no" / "directory", report, {})


def test_without_a_store_it_holds_less(tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.gz"
    write_bundle(path, Report("", NAMESPACE, ()), {})
    assert {name.rpartition("/")[2] for name in read(path)} == {"report.json", "versions.json", "environment.json"}


def test_variables_of_others_are_not_named_and_secrets_not_shown() -> None:
    assert redact_environment(ENVIRONMENT) == {
        "ETCDCTL_CACERT": REDACTED,
        "ETCDCTL_USER": REDACTED,
        "NIXL_ETCD_ENDPOINTS": f"http://{REDACTED}@10.0.0.1:2379,http://10.0.0.2:2379",
        "TRUNKLINE_ETCD_PASSWORD": REDACTED,
        "TRUNKLINE_SESSION_TTL": "30",
        "TRUNKLINE_TOKEN": REDACTED,
        "UCX_TLS": "tcp",
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("etcd://u:p@h:1", f"etcd://{REDACTED}@h:1"),
        ("u:p@h:1,u:q@i:1", f"{REDACTED}@h:1,{REDACTED}@i:1"),
        ("etcd://h:1", "etcd://h:1"),
    ],
)
def test_users_in_urls_go(text: str, shown: str) -> None:
    assert redact(text, []) == shown


def test_versions_name_what_is_installed() -> None:
    assert {"python", "platform", "trunkline", "grpcio"} <= set(versions())
