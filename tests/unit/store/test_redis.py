"""What the Redis store does without a server; its contract is tested with one."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any, cast

import pytest

from trunkline.errors import ConfigurationError, ForkedError, StoreLimitError, StoreUnavailableError
from trunkline.store import open_store
from trunkline.store.contract import Changed, Entry, Put, Transaction
from trunkline.store.plugins.redis.codec import decode_change, decode_entries, key_range
from trunkline.store.plugins.redis.config import RedisConfig
from trunkline.store.plugins.redis.lease import LeaseKeeper, RedisLease
from trunkline.testing.clock import FakeClock
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path


def parse(url: str, **arguments: str) -> RedisConfig:
    environment = {"REDISCLI_AUTH": arguments.pop("auth")} if "auth" in arguments else {}
    return RedisConfig.parse(url, environment=environment, **arguments)


@pytest.mark.parametrize(
    ("url", "host", "port", "database", "is_secure", "shown"),
    [
        ("redis://host", "host", 6379, 0, False, "redis://host:6379/0"),
        ("redis://host:1/7", "host", 1, 7, False, "redis://host:1/7"),
        ("valkeys://[::1]:1/", "::1", 1, 0, True, "rediss://[::1]:1/0"),
    ],
)
def test_a_url_names_a_database(url: str, host: str, port: int, database: int, is_secure: bool, shown: str) -> None:
    config = parse(url)
    assert (config.host, config.port, config.database, config.is_secure) == (host, port, database, is_secure)
    assert config.url == shown


@pytest.mark.parametrize(
    ("url", "arguments", "words"),
    [
        ("redis://user:secret@host", {}, "no user or password here"),
        ("redis://a,b", {}, "Cluster and Sentinel are not supported"),
        ("redis://host/name", {}, "not of the form"),
        ("redis://host/0?db=1", {}, "not of the form"),
        ("redis://host:port", {}, "Port"),
        ("redis://", {}, "not of the form"),
        ("redis://host", {"username": "me"}, "without a password"),
        ("redis://host", {"ca": "/dev/null"}, "write rediss://"),
        ("rediss://host", {"ca": "/nowhere"}, "no file /nowhere"),
        ("rediss://host", {"cert": "/dev/null"}, "both cert and key"),
    ],
)
def test_what_can_t_be_used_is_refused_without_a_secret(url: str, arguments: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        parse(url, **arguments)
    assert "secret" not in f"{caught.value}{caught.value.context}"


def test_passwords_come_from_arguments_a_file_or_the_environment_and_are_never_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "credentials.toml"
    file.write_text('user = "me"\npassword = "of-file"\n')
    file.chmod(0o600)
    for arguments, username, password in (
        ({"password": "of-argument", "credentials": str(file)}, "", "of-argument"),
        ({"credentials": str(file), "auth": "of-environment"}, "me", "of-file"),
        ({"auth": "of-environment"}, "", "of-environment"),
        ({"auth": "of-environment", "credentials": ""}, "", ""),
    ):
        config = parse("redis://host", **arguments)
        assert (config.credentials.username, config.credentials.password) == (username, password)
        assert "of-" not in f"{config!r}{config.url}"
    assert "reads the password" in caplog.text
    assert "of-" not in caplog.text.replace(str(file), "")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("trunkline.store.plugins.redis.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'trunkline\[redis\]'"):
        open_store("redis://host")


def test_a_server_that_is_not_there_is_told_in_time() -> None:
    with open_store("redis://127.0.0.1:1") as store:
        with pytest.raises(
            StoreUnavailableError, match=r"redis://127\.0\.0\.1:1/0: get 'a' .*is Redis running"
        ) as caught:
            store.get("a", timeout=0.1)
        assert caught.value.context["elapsed"] < 2
        with pytest.raises(StoreLimitError):  # asks nobody
            store.transact(Transaction((), (Put("a", bytes(2 << 20)),)), timeout=None)


def test_a_forked_child_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store("redis://127.0.0.1:1") as store, store.watch("a") as watch:
        with monkeypatch.context() as child:
            child.setattr(os, "getpid", lambda: -1)
            with pytest.raises(ForkedError):
                store.get("a", timeout=0)
            with pytest.raises(ForkedError):
                watch.next(None)
            store.close()  # does nothing
        with pytest.raises(StoreUnavailableError):
            store.get("a", timeout=0)


@pytest.mark.parametrize(
    ("key", "prefix", "low", "high"),
    [
        ("a", False, b"a", b""),
        ("a", True, b"[a", b"(b"),
        ("", True, b"-", b"+"),
        ("a\udcff", True, b"[a\xff", b"(b"),
        ("\udcff", True, b"[\xff", b"+"),
    ],
)
def test_ranges_end_where_the_prefix_does(key: str, prefix: bool, low: bytes, high: bytes) -> None:
    assert key_range(key, prefix=prefix) == (low, high)


def test_a_change_has_puts_and_deletions() -> None:
    parts = b"+1 24\na" + b"3 5 00000000000000ff\n+1\n" + b"-2 0\n\xc3\xa4"
    assert decode_change(parts, 5) == Changed((Entry("a", b"+1\n", 3, 5, 255),), ("ä",), 5)
    with pytest.raises(ValueError, match="byte 0"):
        decode_change(b"x" + parts, 5)
    with pytest.raises(ValueError, match="no entry"):
        decode_entries([b"a", b"of somebody else"])


def test_an_outage_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    class Server:
        is_away = True
        refreshes = 0

        def call(self, *_: object, **__: object) -> list[int]:
            self.refreshes += 1
            if self.is_away:
                raise StoreUnavailableError("nobody home")
            return [1]

    server, clock = Server(), FakeClock()
    keeper = LeaseKeeper(cast("Any", server), clock)

    def refresh(count: int) -> None:
        for _ in range(count):
            before = server.refreshes
            clock.until_waiting()
            clock.advance(30)
            eventually(lambda: server.refreshes > before)  # noqa: B023 - called here
            clock.until_waiting()

    def warnings() -> list[str]:
        return [record.message for record in caplog.records if record.levelno == logging.WARNING]

    with caplog.at_level(logging.INFO):
        keeper.add(RedisLease(1, 30, keeper=keeper, on_lost=None, due_at=clock.monotonic() + 10))
        try:
            refresh(5)
            assert warnings() == ["no lease is refreshed: nobody home"]
            server.is_away = False
            refresh(2)
            server.is_away = True
            refresh(3)
            assert len(warnings()) == 2
            assert len(caplog.records) >= 8
        finally:
            keeper.close()
