"""Ctrl-C and SIGTERM as KeyboardInterrupt, in whatever moment they come."""

from __future__ import annotations

import select
import signal
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

REPEAT_AFTER = 0.1
"""Seconds after which a signal that the main thread has not taken is sent to it again."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it SIGINT and SIGTERM raise KeyboardInterrupt in the main thread; a SIGINT that is ignored stays so.

    CPython looks for signals before it begins to wait for a lock, and is woken by one while it waits; one that comes in
    between, or reaches another thread, is noticed when the wait ends, which may be never. So a thread, asleep until a
    signal comes, sends it to the main thread again until it is taken.
    """
    numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
    waiting, arriving = socket.socketpair()  # CPython writes a byte for each signal; they are read when it is taken
    with waiting, arriving:
        waiting.setblocking(False)
        arriving.setblocking(False)

        def take(_number: int, _frame: FrameType | None) -> None:
            _drain(waiting)
            raise KeyboardInterrupt

        before = {number: signal.signal(number, take) for number in numbers}
        wakeup = signal.set_wakeup_fd(arriving.fileno(), warn_on_full_buffer=False)
        ended, end = socket.socketpair()
        repeater = threading.Thread(
            target=_repeat, args=(waiting, ended, numbers), name="trunkline-interrupt", daemon=True
        )
        repeater.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            end.close()
            repeater.join()
            ended.close()


def _drain(signals: socket.socket) -> None:
    try:
        while signals.recv(64):
            pass
    except BlockingIOError:
        pass


def _repeat(signals: socket.socket, ended: socket.socket, numbers: list[signal.Signals]) -> None:
    main = threading.main_thread().ident
    assert main is not None
    while True:
        ready, _, _ = select.select([signals, ended], [], [])
        if ended in ready or select.select([ended], [], [], REPEAT_AFTER)[0]:
            return
        try:
            (number,) = signals.recv(1, socket.MSG_PEEK)
            if number not in numbers:  # one that somebody else has a handler for
                signals.recv(1)
                continue
        except BlockingIOError:  # it was taken meanwhile
            continue
        signal.pthread_kill(main, number)
