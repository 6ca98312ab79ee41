"""With real processes: the pipe and the end are what is tested."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from benchmarks.process import Process

if TYPE_CHECKING:
    from pathlib import Path


class Counter:
    def __init__(self, start: int) -> None:
        if start < 0:
            raise ValueError("below zero")
        self._value = start
        self._farewell: Path | None = None

    def add(self, number: int) -> int:
        self._value += number
        return self._value

    def leave(self, farewell: Path) -> None:
        self._farewell = farewell

    def pid(self) -> int:
        return os.getpid()

    def close(self) -> None:
        if self._farewell is not None:
            self._farewell.write_text("closed")


def test_an_object_lives_in_another_process_until_it_is_closed(tmp_path: Path) -> None:
    with Process(Counter, 40) as process:
        assert process.call("add", 1) == 41
        process.start("add", 1)
        assert process.result() == 42
        assert process.call("pid") != os.getpid()
        with pytest.raises(RuntimeError, match=r"TypeError.*unsupported operand"):
            process.call("add", "1")
        assert process.call("add", 0) == 42
        process.call("leave", tmp_path / "farewell")
    assert (tmp_path / "farewell").read_text() == "closed"


def test_a_failure_to_make_it_is_raised_here() -> None:
    with pytest.raises(RuntimeError, match="below zero"):
        Process(Counter, -1)
