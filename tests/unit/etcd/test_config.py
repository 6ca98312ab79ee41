from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trunkline.errors import ConfigurationError
from trunkline.etcd.config import EtcdConfig


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


def test_arguments_come_before_the_environment() -> None:
    environment = {"ETCDCTL_USER": "eva:one", "ETCDCTL_CACERT": "/ca", "ETCDCTL_CERT": "/cert", "ETCDCTL_KEY": "/key"}
    config = parse("etcds://a:1", environment)
    assert (config.username, config.password) == ("eva", "one")
    assert (config.ca, config.cert, config.key) == (Path("/ca"), Path("/cert"), Path("/key"))
    config = parse("etcds://a:1", environment, username="adam", password="two", ca="/other")
    assert (config.username, config.password, config.ca) == ("adam", "two", Path("/other"))


def test_certificates_in_the_environment_are_not_for_plain_endpoints() -> None:
    assert parse("etcd://a:1", {"ETCDCTL_CACERT": "/ca"}).ca is None
    with pytest.raises(ConfigurationError, match="need TLS"):
        parse("etcd://a:1", ca="/ca")


def test_incomplete_credentials() -> None:
    with pytest.raises(ConfigurationError, match="without a password"):
        parse("a:1", username="eva")
    with pytest.raises(ConfigurationError, match="name:password"):
        parse("a:1", {"ETCDCTL_USER": "eva"})
    with pytest.raises(ConfigurationError, match=r"key .* is missing"):
        parse("etcds://a:1", cert="/cert")
    with pytest.raises(ConfigurationError, match=r"cert .* is missing"):
        parse("etcds://a:1", key="/key")


def test_secrets_stay_out_of_repr_and_url() -> None:
    config = parse("a:1", username="eva", password="secret")
    assert "secret" not in repr(config) + config.url


def test_equal_settings_are_equal() -> None:
    assert parse("http://a:1", username="eva", password="x") == parse("etcd://a:1", username="eva", password="x")
    assert parse("a:1", username="eva", password="x") != parse("a:1", username="eva", password="y")
