from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from trunkline import process
from trunkline.metadata.presence import ProcessRecord
from trunkline.process import is_gone, local_process

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells enough about processes")

REPORT = (
    "import msgspec, sys; from trunkline.process import local_process; "
    "sys.stdout.write(msgspec.json.encode(local_process()).decode() + '\\n'); sys.stdout.flush(); sys.stdin.read()"
)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", REPORT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        yield child
        child.kill()


def report(child: subprocess.Popen[bytes]) -> ProcessRecord:
    assert child.stdout is not None
    return msgspec.json.Decoder(ProcessRecord).decode(child.stdout.readline())


def test_a_process_is_gone_when_it_was_killed_even_before_its_parent_has_heard(
    child: subprocess.Popen[bytes],
) -> None:
    record = report(child)
    assert record.pid == child.pid
    assert not is_gone(record)
    child.kill()
    assert child.stdout is not None
    assert child.stdout.read() == b""  # it has ended; nobody has waited for it: a zombie
    for _ in range(1000):
        if is_gone(record):
            break
        subprocess.run(["true"], check=True)  # the kernel takes a moment from closing files to the zombie state
    assert is_gone(record)
    child.wait()
    assert is_gone(record)


def test_this_process_is_not_gone() -> None:
    assert not is_gone(local_process())


def test_another_process_under_the_same_pid_proves_it_gone() -> None:
    here = local_process()
    assert is_gone(msgspec.structs.replace(here, started=here.started + 1))


def test_a_pid_that_no_process_can_have_is_gone() -> None:
    """A record from the network says so; the system call takes 32 bits."""
    assert is_gone(msgspec.structs.replace(local_process(), pid=2**63 - 1))


def test_a_process_of_somebody_else_lives() -> None:
    assert not is_gone(msgspec.structs.replace(local_process(), pid=1, started=0))


@pytest.mark.parametrize(
    "elsewhere",
    [{"host": "other"}, {"boot_id": "other"}, {"boot_id": ""}, {"pid_namespace": "pid:[1]"}, {"pid": 0}],
)
def test_nothing_is_known_of_other_machines_boots_and_namespaces(
    child: subprocess.Popen[bytes], elsewhere: dict[str, str]
) -> None:
    record = report(child)
    child.kill()
    child.wait()
    assert is_gone(record)
    assert not is_gone(msgspec.structs.replace(record, **elsewhere))


def test_where_nothing_is_told_nobody_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = msgspec.structs.replace(local_process(), started=1)
    monkeypatch.setattr(process, "_BOOT_ID", Path("/does/not/exist"))
    here = local_process()
    assert (here.boot_id, here.pid_namespace, here.started) == ("", "", 0)
    assert here.pid > 0
    assert not is_gone(dead)
    assert not is_gone(msgspec.structs.replace(here, pid=2**22 + 1))
