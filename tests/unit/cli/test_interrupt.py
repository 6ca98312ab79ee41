from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import signal, sys, threading, time
from trunkline.cli.interrupt import interruptible

waits = threading.Event()

def send():
    waits.wait()
    time.sleep(0.05)  # until the main thread waits for its lock; if it does not yet, the signal comes all the easier
    signal.pthread_kill(threading.get_ident(), signal.{number})  # taken by this thread, which wakes nobody

threading.Thread(target=send, daemon=True).start()
before = signal.getsignal(signal.{number})
try:
    with interruptible():
        waits.set()
        threading.Event().wait(60)
        print("not interrupted")
except KeyboardInterrupt:
    restored = signal.getsignal(signal.{number}) is before
    print("interrupted", restored, signal.set_wakeup_fd(-1), threading.active_count())
"""


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_signal_that_wakes_nobody_is_repeated(number: str) -> None:
    program = PROGRAM.format(number=number)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=45, check=False)
    assert done.stdout == "interrupted True -1 1\n", done.stderr


def test_a_sigint_that_is_ignored_stays_so() -> None:
    program = (
        "import signal\nfrom trunkline.cli.interrupt import interruptible\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "with interruptible():\n    signal.raise_signal(signal.SIGINT)\n    print('goes on')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=45, check=False)
    assert done.stdout == "goes on\n", done.stderr


def test_signals_of_others_are_left_to_their_handlers() -> None:
    program = (
        "import signal, time\nfrom trunkline.cli.interrupt import REPEAT_AFTER, interruptible\ntaken = []\n"
        "signal.signal(signal.SIGUSR1, lambda *_: taken.append(1))\n"
        "with interruptible():\n    signal.raise_signal(signal.SIGUSR1)\n    time.sleep(4 * REPEAT_AFTER)\n"
        "print(len(taken))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=45, check=False)
    assert done.stdout == "1\n", done.stderr
