"""TLS and client certificates, with certificate authorities of the test's own."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest
import trustme
from tests.integration.etcd.conftest import connect

from trunkline.errors import ConfigurationError, StoreAuthError, StoreUnavailableError
from trunkline.etcd.value import Listing
from trunkline.testing.etcd import EtcdServer, GuardedEtcd, etcd_binaries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
T = 30.0


class Certificates:
    """Files of two authorities: `ca` signs the server's and the good clients' certificates, `other` does not count."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._authority, self._other = trustme.CA(), trustme.CA()
        self._authority.cert_pem.write_to_path(str(self["ca.pem"]))
        self._other.cert_pem.write_to_path(str(self["other.pem"]))
        self._issue("server", self._authority, "127.0.0.1")
        self._issue("server-elsewhere", self._authority, "etcd.test")
        self._issue("server-expired", self._authority, "127.0.0.1", not_after=LONG_AGO)
        self._issue("eva", self._authority, "eva.test", common_name="eva")
        self._issue("expired", self._authority, "eva.test", common_name="eva", not_after=LONG_AGO)
        self._issue("stranger", self._other, "eva.test", common_name="eva")

    def __getitem__(self, name: str) -> Path:
        return self.directory / name

    def client(self, name: str) -> dict[str, Path]:
        return {"ca": self["ca.pem"], "cert": self[f"{name}.pem"], "key": self[f"{name}.key"]}

    def server(self, name: str, *, wants_clients: bool = False) -> tuple[str, ...]:
        """Return etcd's arguments."""
        clients = (f"--trusted-ca-file={self['ca.pem']}", "--client-cert-auth") if wants_clients else ()
        return (f"--cert-file={self[f'{name}.pem']}", f"--key-file={self[f'{name}.key']}", *clients)

    def _issue(
        self,
        stem: str,
        authority: trustme.CA,
        host: str,
        *,
        common_name: str | None = None,
        not_after: dt.datetime | None = None,
    ) -> None:
        issued = authority.issue_cert(host, common_name=common_name, not_after=not_after)
        issued.private_key_pem.write_to_path(str(self[f"{stem}.key"]))
        issued.cert_chain_pems[0].write_to_path(str(self[f"{stem}.pem"]))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module", params=etcd_binaries(), ids=lambda path: path.parent.name)
def binary(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture(scope="module")
def server(binary: Path, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """An etcd that wants client certificates."""
    directory = tmp_path_factory.mktemp("etcd")
    arguments = (*certificates.server("server", wants_clients=True), "--bcrypt-cost=4")
    with EtcdServer(directory, binary=binary, arguments=arguments, is_secure=True).start() as server:
        yield server


def test_mutual_tls(server: EtcdServer, certificates: Certificates) -> None:
    with connect(server.endpoint, **certificates.client("eva")) as client:
        client.put(b"k", b"v", timeout=T)
        with client.watch(b"k") as watch:
            assert isinstance(watch.next(T), Listing)


@pytest.mark.parametrize("client", [None, "expired", "stranger"])
def test_etcd_refuses_a_certificate_and_that_is_said_at_once(
    server: EtcdServer, certificates: Certificates, client: str | None
) -> None:
    settings = {"ca": certificates["ca.pem"]} if client is None else certificates.client(client)
    with connect(server.endpoint, **settings) as refused:
        with pytest.raises(StoreAuthError, match=r"etcd does not accept our certificate.*ETCDCTL_CERT") as caught:
            refused.range(b"k", timeout=T)
        assert caught.value.context["elapsed"] < T / 2
        with refused.watch(b"k") as watch, pytest.raises(StoreAuthError, match="does not accept our certificate"):
            watch.next(T)


@pytest.mark.parametrize("ca", ["other.pem", None])
def test_a_server_of_another_authority_is_refused(
    server: EtcdServer, certificates: Certificates, ca: str | None
) -> None:
    settings = {**certificates.client("eva"), "ca": certificates[ca] if ca else None}
    with (
        connect(server.endpoint, **settings) as client,
        pytest.raises(StoreAuthError, match=r"issuer certificate.*certificate of etcd is not accepted"),
    ):
        client.range(b"k", timeout=T)


@pytest.mark.parametrize(
    ("name", "words"),
    [("server-elsewhere", "(?i)hostname verification"), ("server-expired", "certificate has expired")],
)
def test_a_server_that_is_another_or_expired_is_refused(
    binary: Path, certificates: Certificates, tmp_path: Path, name: str, words: str
) -> None:
    arguments = certificates.server(name)
    with (
        EtcdServer(tmp_path, binary=binary, arguments=arguments, is_secure=True).start() as server,
        connect(server.endpoint, ca=certificates["ca.pem"]) as client,
        pytest.raises(StoreAuthError, match=words) as caught,
    ):
        client.range(b"k", timeout=T)
    assert "is it for the host name in the URL, still valid" in str(caught.value)


def test_it_never_falls_back_to_plain_text(server: EtcdServer, etcd_endpoint: str, certificates: Certificates) -> None:
    plain_server = etcd_endpoint.replace("http:", "https:")
    with (
        connect(plain_server, ca=certificates["ca.pem"]) as client,
        pytest.raises(StoreUnavailableError, match="never goes back to plain text"),
    ):
        client.range(b"k", timeout=1)
    with (
        connect(server.endpoint.replace("https:", "http:")) as client,
        pytest.raises(StoreUnavailableError, match="write etcds://"),
    ):
        client.range(b"k", timeout=1)


def test_a_missing_file_is_named(certificates: Certificates) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.pem"):
        connect("https://127.0.0.1:1", ca=certificates["nowhere.pem"])


def test_the_common_name_of_a_certificate_is_the_user(server: EtcdServer, certificates: Certificates) -> None:
    """Last in this file: it switches authentication on. No password is needed where certificates say who one is."""
    files = certificates.client("eva")
    variables = {"ETCDCTL_CACERT": files["ca"], "ETCDCTL_CERT": files["cert"], "ETCDCTL_KEY": files["key"]}
    guarded = GuardedEtcd(server, {name: str(path) for name, path in variables.items()})
    guarded.run("etcdctl user add --no-password eva; etcdctl role add mine; etcdctl user grant-role eva mine")
    guarded.run("etcdctl role grant-permission --prefix=true mine readwrite /mine/")
    guarded.enable({})
    with connect(server.endpoint, **files) as client:
        client.put(b"/mine/k", b"v", lease=client.grant(20, timeout=T).id, timeout=T)
        with client.watch(b"/mine/k") as watch:
            assert isinstance(watch.next(T), Listing)
        with pytest.raises(StoreAuthError, match="permission denied"):
            client.range(b"/yours/k", timeout=T)
