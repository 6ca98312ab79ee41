from __future__ import annotations

import threading
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from trunkline.etcd.config import EtcdConfig
from trunkline.inspection.server_clock import read_certificate, read_clock

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG = EtcdConfig(("127.0.0.1:1",))
NOW = 1_800_000_000.0


@contextmanager
def server(date: str | None) -> Iterator[str]:
    """Serve one answer with this date."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(200)
            if date is not None:
                self.send_header("Date", date)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.handle_request)
        thread.start()
        yield f"127.0.0.1:{listening.server_port}"
        thread.join(10)


@pytest.fixture(autouse=True)
def standing_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline.inspection.server_clock.time.time", lambda: NOW)


def test_how_far_a_clock_is_ahead() -> None:
    with server(formatdate(NOW + 100, usegmt=True)) as endpoint:
        assert read_clock(CONFIG, endpoint, 5) == 100.5


@pytest.mark.parametrize("date", [None, "yesterday"])
def test_a_server_that_says_nothing_useful(date: str | None) -> None:
    with server(date) as endpoint:
        found = read_clock(CONFIG, endpoint, 5)
    assert isinstance(found, str)
    assert "does not say" in found


def test_nobody_there() -> None:
    assert isinstance(read_clock(CONFIG, "127.0.0.1:1", 5), str)
    found = read_certificate(EtcdConfig(("127.0.0.1:1",), is_secure=True), "127.0.0.1:1", 5)
    assert isinstance(found, str)
    assert "refused" in found
