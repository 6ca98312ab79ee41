"""Closing a backend while other threads are inside it: each in a child process, which a bad pointer would kill."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="UCX's wheels are for Linux only")

CHILD = """
import gc, sys, threading, time
from trunkline.backend.plugins.ucx import UcxBackend
from trunkline.errors import ClosedError

def using(backend, info):
    def ask():
        backend.connection_info()
    def open_and_close():
        peer = backend.load_peer("target", info)
        backend.notify(peer, b"x")
        peer.transports
        peer.close()
    def open_and_drop():
        backend.notify(backend.load_peer("target", info), b"x")
        gc.collect()
    def drive():
        backend.run(time.monotonic() + 0.01)
        backend.take_finished()
        backend.take_failed_peers()
    return [drive, *2 * [{"ask": ask, "close": open_and_close, "drop": open_and_drop}[sys.argv[1]]]]

def repeat(action):
    try:
        while True:
            action()
    except ClosedError:
        pass

for round in range(40):
    target, backend = UcxBackend("target", devices="lo"), UcxBackend("agent", devices="lo")
    threads = [threading.Thread(target=repeat, args=(each,)) for each in using(backend, target.connection_info())]
    for thread in threads:
        thread.start()
    time.sleep(0.002 * (round % 5))
    backend.close()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    target.close()
"""


@pytest.mark.parametrize("action", ["ask", "close", "drop"])
def test_closing_under_use(action: str) -> None:
    subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", CHILD, action],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "UCX_TLS": "tcp"},
        check=True,
        timeout=300,
    )
