from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest
import typer

from trunkline.cli.store import find_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Local(NamedTuple):
    endpoint: str = "http://127.0.0.1:1"


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def acquire() -> Iterator[Local]:
        yield Local()

    monkeypatch.setattr("trunkline.etcd.local.LocalEtcd.acquire", acquire)


def test_credentials_reach_a_given_store(tmp_path: Path) -> None:
    path = tmp_path / "credentials.toml"
    path.write_text('user = "eva"\npassword = "secret"\n')
    path.chmod(0o600)
    with find_store("etcds://127.0.0.1:1", path) as found, found.open() as store:
        assert found.options == {"credentials": path}
        assert "username='eva'" in repr(store.identity)
        assert "secret" not in repr(store.identity) + repr(found)


def test_the_machines_own_etcd_is_shown_no_credentials(
    local: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ETCDCTL_USER", "eva:secret")
    monkeypatch.setenv("ETCDCTL_CACERT", "/ca.pem")
    with find_store(None) as found, found.open() as store:
        assert "eva" not in repr(store.identity)
    assert not caplog.text


def test_credentials_without_a_store_are_refused(local: None, tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="--store"), find_store(None, tmp_path):
        pass
