from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from trunkline.clock import SYSTEM_CLOCK
from trunkline.errors import ClosedError
from trunkline.etcd.watch_stream import WatchStream


class Connection:
    """Opens no stream, and lets the test act in the midst of its closing."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self.on_closing: Any = None

    def check_process(self) -> None:
        pass

    def check_usable(self) -> None:
        if self.closed.is_set():
            raise ClosedError("closed")

    def open_stream(self, *_: Any, **__: Any) -> Any:
        self.closed.wait(30)
        raise ClosedError("closed")

    def close(self) -> None:
        if self.on_closing is not None:
            self.on_closing()
        self.closed.set()


def test_a_watch_opened_while_the_stream_closes_does_not_wait_for_ever() -> None:
    connection = Connection()
    stream = WatchStream(cast("Any", connection), SYSTEM_CLOCK, cast("Any", None))
    opened = []
    connection.on_closing = lambda: opened.append(stream.open_watch(b"k", b"", None))
    stream.close()
    with pytest.raises(ClosedError):
        opened[0].next(5)
    with pytest.raises(ClosedError):
        stream.open_watch(b"k", b"", None)
