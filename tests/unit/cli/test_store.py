from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest
import typer

from trunkline.cli.main import app
from trunkline.cli.store import find_store, require_store
from trunkline.errors import NoStoreError

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


def test_a_store_to_look_at_is_never_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert require_store("etcds://127.0.0.1:1", tmp_path).options == {"credentials": tmp_path}
    with pytest.raises(typer.BadParameter, match="--store"):
        require_store(None, tmp_path)
    monkeypatch.setattr("trunkline.etcd.local.running_endpoint", lambda: "http://127.0.0.1:1")
    assert require_store(None) == ("http://127.0.0.1:1", False, {"credentials": ""})
    monkeypatch.setattr("trunkline.etcd.local.running_endpoint", lambda: None)
    with pytest.raises(NoStoreError, match="none is started"):
        require_store(None)


def test_every_command_with_a_store_takes_credentials() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    options = {name: {option.name for option in command.params} for name, command in commands.items()}
    with_store = {name for name, names in options.items() if "store" in names}
    assert with_store >= {"offer", "take", "wait", "demo", "agents", "show", "watch", "ping", "doctor", "gc"}
    assert {name for name in with_store if "credentials" not in options[name]} == set()
