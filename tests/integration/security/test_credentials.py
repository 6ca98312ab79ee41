"""Every way to give credentials reaches agents, stores and commands; none of them shows up anywhere else."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import traceback
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import trustme

from trunkline import Agent, open_store
from trunkline.errors import ConfigurationError, StoreAuthError
from trunkline.testing.etcd import EtcdServer, GuardedEtcd, etcd_binaries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "pa ss:w0rd"
T = 30.0


class Place:
    """An etcd that wants TLS, a client certificate and a password, and the files for it."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(directory / "ca.pem"))
        for name, host in (("server", "127.0.0.1"), ("client", "client.test")):
            issued = authority.issue_cert(host)
            issued.private_key_pem.write_to_path(str(directory / f"{name}.key"))
            issued.cert_chain_pems[0].write_to_path(str(directory / f"{name}.pem"))
        self.files = {"ca": directory / "ca.pem", "cert": directory / "client.pem", "key": directory / "client.key"}
        self.arguments: dict[str, Any] = {"username": "eva", "password": SECRET, **self.files}
        self.variables = {
            "ETCDCTL_USER": "eva",
            "ETCDCTL_PASSWORD": SECRET,
            **{f"ETCDCTL_{'CACERT' if name == 'ca' else name.upper()}": str(path) for name, path in self.files.items()},
        }
        self.credentials = directory / "credentials.toml"
        self.credentials.touch(0o600)
        lines = [f'{name} = "{path.name}"' for name, path in self.files.items()]
        self.credentials.write_text("\n".join(['user = "eva"', f'password = "{SECRET}"', *lines]))
        self.server = EtcdServer(
            directory / "etcd",
            binary=etcd_binaries()[0],
            arguments=(
                f"--cert-file={directory / 'server.pem'}",
                f"--key-file={directory / 'server.key'}",
                f"--trusted-ca-file={directory / 'ca.pem'}",
                "--client-cert-auth",
                "--bcrypt-cost=4",
            ),
            is_secure=True,
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("place"))
    with place.server.start():
        variables = {name: text for name, text in place.variables.items() if name[8:] in {"CACERT", "CERT", "KEY"}}
        guarded = GuardedEtcd(place.server, variables)
        printed = subprocess.run(
            [sys.executable, "-m", "trunkline", "rbac", "--namespace", "/prod", "--user", "eva", "agent"],
            capture_output=True,
            text=True,
            check=True,
        )
        guarded.control("user", "add", f"eva:{SECRET}")
        guarded.run(printed.stdout)
        guarded.enable({})
        yield place


def agent(place: Place, **options: Any) -> Agent:
    return Agent(
        f"a-{uuid.uuid4().hex}", store=place.server.endpoint, namespace="/prod", backends=["loopback"], **options
    )


@pytest.mark.parametrize("way", ["arguments", "file", "variables", "variable for the file", "store"])
def test_an_agent_gets_credentials_in_every_way(
    place: Place, way: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    variables = {
        "variables": place.variables,
        "variable for the file": {"TRUNKLINE_STORE_CREDENTIALS": str(place.credentials)},
    }
    for name, text in variables.get(way, {}).items():
        monkeypatch.setenv(name, text)
    options = {"arguments": place.arguments, "file": {"credentials": place.credentials}}.get(way)
    if way == "store":
        with open_store(place.server.endpoint, credentials=place.credentials) as store:
            names = store.list("/prod/", timeout=T)
            assert SECRET not in f"{store!r} {store.identity!r} {names!r}"
        return
    with agent(place, store_options=options) as opened:
        opened.register(np.zeros(8), name="kv")
        assert opened.publish(timeout=T)
        with opened.watch() as watch:
            shown = f"{opened!r} {watch!r} {opened._membership!r}"
        assert opened._membership is not None
        inner: Any = opened._membership._directory._store
        with pytest.raises(StoreAuthError) as caught:
            inner.get("/dev/x", timeout=T)
        shown += "".join(traceback.format_exception(caught.value)) + repr(caught.value.context)
        token = inner._client._connection._token
    assert token
    for secret in (SECRET, token):
        assert secret not in caplog.text + shown


def test_a_wrong_password_is_said_at_once_and_not_shown(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = {**place.arguments, "password": "gu3ss"}
    with pytest.raises(StoreAuthError, match=r"authentication failed.*check the username") as caught:
        agent(place, store_options=wrong)
    assert "gu3ss" not in caplog.text + "".join(traceback.format_exception(caught.value))


def test_options_need_a_url(place: Place) -> None:
    with open_store("memory://credentials") as store, pytest.raises(ConfigurationError, match="store_options"):
        Agent("a", store=store, store_options={"credentials": place.credentials}, backends=["loopback"])
    with pytest.raises(ConfigurationError, match="store_options"):
        Agent("a", store_options={"credentials": place.credentials}, backends=["loopback"])


def run(place: Place, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("ETCDCTL_", "NIXL_"))}
    store = {"NIXL_ETCD_ENDPOINTS": place.server.endpoint, "NIXL_ETCD_NAMESPACE": "/prod", "UCX_NET_DEVICES": "lo"}
    return subprocess.run(
        [sys.executable, "-m", "trunkline", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**environment, **store, **variables},
    )


def test_commands_get_credentials_by_option_and_by_variable(place: Place, tmp_path: Path) -> None:
    with agent(place, store_options=place.arguments) as published:
        published.publish(timeout=T)
        for options, variables in (
            (("--credentials", place.credentials), {}),
            ((), {"TRUNKLINE_STORE_CREDENTIALS": str(place.credentials)}),
        ):
            waited = run(place, "wait", "--timeout", 20, published.name, *options, **variables)
            assert (waited.returncode, waited.stdout) == (0, f"{published.name}\n"), waited.stderr
    refused = run(place, "wait", "--timeout", 20, "--credentials", tmp_path / "nowhere")
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "nowhere can't be read: No such file" in refused.stderr
    refused = run(place, "wait", "--timeout", 20)
    assert refused.returncode == 1
    assert "certificate of etcd is not accepted" in refused.stderr.splitlines()[-1]
    assert "ssl_transport" not in refused.stderr  # what gRPC says by itself


def test_an_offer_is_taken_with_credentials(place: Place, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    environment = {**os.environ, "UCX_NET_DEVICES": "lo"}
    common = ["--store", place.server.endpoint, "--namespace", "/prod", "--credentials", str(place.credentials)]
    offering = subprocess.Popen(
        [sys.executable, "-m", "trunkline", "offer", str(tmp_path / "file"), "--name", "w", "--devices", "lo", *common],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert offering.stdout is not None
        assert offering.stdout.readline().startswith("trunkline take ")
        taken = run(place, "take", "w", "-o", tmp_path / "taken", "--devices", "lo", *common)
        assert taken.returncode == 0, taken.stderr
        assert (tmp_path / "taken").read_bytes() == b"content"
    finally:
        offering.terminate()
        offering.communicate(timeout=30)
