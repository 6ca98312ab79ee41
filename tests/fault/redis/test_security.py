"""Passwords, rights and certificates of a real Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis
import trustme

from trunkline.errors import StoreAuthError
from trunkline.store import open_store
from trunkline.store.contract import Interrupted
from trunkline.testing.store_liveness import WAIT, next_snapshot, put

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trunkline.testing.redis import RedisServer

PASSWORD = "of-default"


def test_a_password_is_needed_and_not_shown(start_server: Callable[..., RedisServer]) -> None:
    server = start_server("--requirepass", PASSWORD)
    with open_store(server.url, password=PASSWORD) as store:
        put(store, "a")
        assert PASSWORD not in f"{store!r}{store.url}{store.identity!r}"
    for options in ({}, {"password": "wrong"}, {"username": "nobody", "password": PASSWORD}):
        with open_store(server.url, credentials="", **options) as store:
            with pytest.raises(StoreAuthError, match="check the password") as caught:
                store.get("a", timeout=WAIT)
            assert PASSWORD not in str(caught.value)
            with store.watch("a") as watch, pytest.raises(StoreAuthError):
                watch.next(WAIT)


def test_a_user_with_rights_to_our_keys_is_enough_and_one_that_loses_them_is_told(
    start_server: Callable[..., RedisServer],
) -> None:
    rights = ("~trunkline:*", "+@all", "-@admin", "-@dangerous", "+info")
    server = start_server("--user", "agent", "on", ">secret", *rights)
    with (
        redis.Redis(port=server.port) as admin,
        open_store(server.url, username="agent", password="secret") as store,
        store.watch("a") as watch,
    ):
        next_snapshot(watch)
        put(store, "a", b"", store.grant(30, timeout=WAIT).id)
        assert len(watch.next(WAIT).put) == 1  # type: ignore[union-attr]
        admin.execute_command("ACL", "SETUSER", "agent", "resetkeys")
        with pytest.raises(StoreAuthError):
            store.get("a", timeout=WAIT)
        assert isinstance(watch.next(WAIT), Interrupted)
        admin.execute_command("ACL", "SETUSER", "agent", "~trunkline:*")
        assert watch.next(WAIT) is not None


def test_certificates_are_verified_on_both_sides(start_server: Callable[..., RedisServer], tmp_path: Path) -> None:
    ours, others = trustme.CA(), trustme.CA()
    ours.cert_pem.write_to_path(tmp_path / "ca.pem")
    others.cert_pem.write_to_path(tmp_path / "other-ca.pem")
    for name, authority, host in (("server", ours, "127.0.0.1"), ("agent", ours, "agent"), ("other", others, "agent")):
        certificate = authority.issue_cert(host)
        certificate.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        certificate.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
    server = start_server(
        *("--tls-cert-file", str(tmp_path / "server.pem"), "--tls-key-file", str(tmp_path / "server.key")),
        *("--tls-ca-cert-file", str(tmp_path / "ca.pem"), "--tls-port", "0"),
    )
    with redis.Redis(port=server.port) as admin:
        port = server.port + 1 if server.port < 32_000 else server.port - 1
        admin.config_set("tls-port", port)
    mine = {"cert": tmp_path / "agent.pem", "key": tmp_path / "agent.key"}
    url = f"rediss://127.0.0.1:{port}"
    with open_store(url, ca=tmp_path / "ca.pem", **mine) as store:
        put(store, "a", b"1")
    for where, options, words in (
        (url, {"ca": tmp_path / "other-ca.pem", **mine}, "of the server is not accepted"),
        (f"rediss://localhost:{port}", {"ca": tmp_path / "ca.pem", **mine}, "of the server is not accepted"),
        (url, {"ca": tmp_path / "ca.pem"}, "does not accept our certificate"),
        (
            url,
            {"ca": tmp_path / "ca.pem", "cert": tmp_path / "other.pem", "key": tmp_path / "other.key"},
            "does not accept our certificate",
        ),
    ):
        with open_store(where, **options) as store, pytest.raises(StoreAuthError, match=words):
            store.get("a", timeout=WAIT)
