"""TLS and client certificates, with a certificate authority of the test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trustme
from tests.integration.etcd.conftest import connect

from trunkline.errors import ConfigurationError, StoreUnavailableError
from trunkline.etcd.value import Listing
from trunkline.testing.etcd import EtcdServer, etcd_binaries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Certificates:
    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        self.ca = directory / "ca.pem"
        self.cert = directory / "client.pem"
        self.key = directory / "client.key"
        self.server_cert = directory / "server.pem"
        self.server_key = directory / "server.key"
        authority.cert_pem.write_to_path(str(self.ca))
        self._issue(authority, self.cert, self.key, "client.test")
        self._issue(authority, self.server_cert, self.server_key, "127.0.0.1")

    def _issue(self, authority: trustme.CA, cert: Path, key: Path, name: str) -> None:
        issued = authority.issue_cert(name)
        issued.private_key_pem.write_to_path(str(key))
        issued.cert_chain_pems[0].write_to_path(str(cert))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module", params=etcd_binaries(), ids=lambda path: path.parent.name)
def url(
    request: pytest.FixtureRequest, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """An etcd that wants client certificates."""
    server = EtcdServer(
        tmp_path_factory.mktemp("etcd"),
        binary=request.param,
        arguments=(
            f"--cert-file={certificates.server_cert}",
            f"--key-file={certificates.server_key}",
            f"--trusted-ca-file={certificates.ca}",
            "--client-cert-auth",
        ),
        is_secure=True,
    )
    with server.start():
        yield server.endpoint


def test_mutual_tls(url: str, certificates: Certificates) -> None:
    with connect(url, ca=certificates.ca, cert=certificates.cert, key=certificates.key) as client:
        client.put(b"k", b"v", timeout=10)
        with client.watch(b"k") as watch:
            assert isinstance(watch.next(30), Listing)


def test_a_client_without_a_certificate_is_refused(url: str, certificates: Certificates) -> None:
    with connect(url, ca=certificates.ca) as client, pytest.raises(StoreUnavailableError):
        client.range(b"k", timeout=1)


def test_a_server_of_another_authority_is_refused(url: str, certificates: Certificates, tmp_path: Path) -> None:
    other = Certificates(tmp_path)
    with (
        connect(url, ca=other.ca, cert=certificates.cert, key=certificates.key) as client,
        pytest.raises(StoreUnavailableError, match=r"(?i)certificate"),
    ):
        client.range(b"k", timeout=1)


def test_it_never_falls_back_to_plain_text(url: str, etcd_endpoint: str, certificates: Certificates) -> None:
    plain_server = etcd_endpoint.replace("http:", "https:")
    with connect(plain_server, ca=certificates.ca) as client, pytest.raises(StoreUnavailableError):
        client.range(b"k", timeout=1)
    with connect(url.replace("https:", "http:")) as client, pytest.raises(StoreUnavailableError):
        client.range(b"k", timeout=1)


def test_a_missing_file_is_named(certificates: Certificates) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.pem"):
        connect("https://127.0.0.1:1", ca=certificates.ca.with_name("nowhere.pem"))
