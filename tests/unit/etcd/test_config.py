from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trunkline.errors import ConfigurationError
from trunkline.etcd.config import EtcdConfig
from trunkline.etcd.credentials import Credentials


def parse(url: str, environment: dict[str, str] | None = None, **settings: Any) -> EtcdConfig:
    return EtcdConfig.parse(url, environment=environment or {}, **settings)


@pytest.mark.parametrize(
    ("url", "endpoints", "is_secure"),
    [
        ("etcd://127.0.0.1:2379", ("127.0.0.1:2379",), False),
        ("http://127.0.0.1:2379/", ("127.0.0.1:2379",), False),
        ("etcds://a:1,b:2", ("a:1", "b:2"), True),
        ("https://a:1,https://b:2", ("a:1", "b:2"), True),
        ("etcd://a:1, http://b:2", ("a:1", "b:2"), False),
        ("host:2380", ("host:2380",), False),
        ("host", ("host:2379",), False),
        ("http://[::1]:5,http://[::1]:5", ("[::1]:5",), False),
    ],
)
def test_endpoints(url: str, endpoints: tuple[str, ...], is_secure: bool) -> None:
    config = parse(url)
    assert config.endpoints == endpoints
    assert config.is_secure is is_secure
    assert parse(config.url).endpoints == endpoints


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://a:1", "scheme 'redis'"),
        ("http://a:1,https://b:2", "all plain or all TLS"),
        ("https://a:1,http://b:2", "all plain or all TLS"),
        ("etcd://user:secret@a:1", "takes no user"),
        ("etcd://a:99999", "Port out of range"),
        ("etcd://a:1/path", "not of the form"),
        ("etcd://", "not of the form"),
        ("", "not of the form"),
        ("etcd://a:1,", "not of the form"),
    ],
)
def test_bad_endpoints(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        parse(url)
    assert "secret" not in str(caught.value)


ENVIRONMENT = {
    "ETCDCTL_USER": "eva:one",
    "ETCDCTL_CACERT": "/ca",
    "ETCDCTL_CERT": "/cert",
    "ETCDCTL_KEY": "/key",
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "credentials.toml"
    path.write_text('user = "filer"\npassword = "three"\n')
    path.chmod(0o600)
    return path


def test_arguments_come_before_the_environment() -> None:
    everything = Credentials("eva", "one", Path("/ca"), Path("/cert"), Path("/key"))
    assert parse("etcds://a:1", ENVIRONMENT).credentials == everything
    given = parse("etcds://a:1", ENVIRONMENT, username="adam", password="two", ca="/other").credentials
    assert given == Credentials("adam", "two", Path("/other"), Path("/cert"), Path("/key"))
    given = parse("etcds://a:1", ENVIRONMENT, cert="/mine", key="/its").credentials
    assert given == Credentials("eva", "one", Path("/ca"), Path("/mine"), Path("/its"))


def test_a_file_takes_the_place_of_etcds_variables(file: Path) -> None:
    alone = Credentials("filer", "three")
    assert parse("etcds://a:1", ENVIRONMENT, credentials=file).credentials == alone
    named = {**ENVIRONMENT, "TRUNKLINE_STORE_CREDENTIALS": str(file)}
    assert parse("etcds://a:1", named).credentials == alone
    given = parse("etcds://a:1", named, username="adam", password="two", ca="/ca").credentials
    assert given == Credentials("adam", "two", Path("/ca"))
    assert parse("etcds://a:1", named, credentials="").credentials == Credentials()


def test_a_name_beside_its_password() -> None:
    for environment in ({"ETCDCTL_USER": "eva", "ETCDCTL_PASSWORD": "a:b"}, {"ETCDCTL_USER": "eva:a:b"}):
        found = parse("etcds://a:1", environment).credentials
        assert (found.username, found.password) == ("eva", "a:b")


@pytest.mark.parametrize("variable", ["ETCDCTL_CACERT", "ETCDCTL_CERT"])
@pytest.mark.parametrize("url", ["etcd://a:1", "a:1", "a"])
def test_certificates_in_the_environment_and_no_tls_is_an_error(url: str, variable: str) -> None:
    environment = {variable: "/file", **({"ETCDCTL_KEY": "/key"} if variable == "ETCDCTL_CERT" else {})}
    with pytest.raises(ConfigurationError, match="write etcds://"):
        parse(url, environment)


def test_http_says_that_plain_text_is_meant_and_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    assert parse("http://a:1", {"ETCDCTL_CACERT": "/ca"}).credentials == Credentials()
    assert "certificates of ETCDCTL_CACERT" in caplog.text
    assert "not used" in caplog.text
    with pytest.raises(ConfigurationError, match="need TLS"):
        parse("http://a:1", ca="/ca")
    with pytest.raises(ConfigurationError, match="need TLS"):
        parse("http://a:1", cert="/cert", key="/key")


def test_certificates_in_a_file_and_no_tls_is_an_error(file: Path) -> None:
    file.write_text('ca = "ca.pem"\n')
    for url in ("http://a:1", "etcd://a:1"):
        with pytest.raises(ConfigurationError, match="write etcds://"):
            parse(url, credentials=file)


@pytest.mark.parametrize("url", ["http://a:1", "etcd://a:1", "a:1"])
def test_a_password_over_plain_text_is_warned_about(url: str, caplog: pytest.LogCaptureFixture) -> None:
    assert parse(url, username="eva", password="secret").credentials.password == "secret"
    assert "reads the password of user 'eva'" in caplog.text
    assert "write etcds://" in caplog.text
    assert "secret" not in caplog.text
    caplog.clear()
    parse(url)
    parse("etcds://a:1", username="eva", password="secret")
    assert not caplog.text


def test_incomplete_credentials() -> None:
    with pytest.raises(ConfigurationError, match="without a password"):
        parse("a:1", username="eva")
    with pytest.raises(ConfigurationError, match="without a username"):
        parse("a:1", password="secret")
    for environment in ({"ETCDCTL_USER": "eva"}, {"ETCDCTL_PASSWORD": "secret"}, {"ETCDCTL_USER": ":secret"}):
        with pytest.raises(ConfigurationError, match="name:password") as caught:
            parse("a:1", environment)
        assert "secret" not in str(caught.value)
    with pytest.raises(ConfigurationError, match=r"key is missing"):
        parse("etcds://a:1", cert="/cert")
    with pytest.raises(ConfigurationError, match=r"ETCDCTL_CERT is missing"):
        parse("etcds://a:1", {"ETCDCTL_KEY": "/key"})


def test_secrets_stay_out_of_repr_and_url() -> None:
    config = parse("etcds://a:1", username="eva", password="secret")
    assert "secret" not in repr(config) + config.url + repr(config.credentials)


def test_equal_settings_are_equal() -> None:
    assert parse("http://a:1", username="eva", password="x") == parse("etcd://a:1", username="eva", password="x")
    assert parse("a:1", username="eva", password="x") != parse("a:1", username="eva", password="y")
