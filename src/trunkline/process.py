"""Which process an agent lives in, and whether that process is gone.

Linux tells through ``/proc`` (proc(5)); elsewhere records hold host and pid only, and nobody is provably gone.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from trunkline.metadata.presence import ProcessRecord

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE = "/proc/self/ns/pid"

# Fields of /proc/<pid>/stat, counted from the one after the command's name (proc(5) counts from 1, two earlier).
_STATE = 0
_THREADS = 17
_STARTED = 19


def local_process() -> ProcessRecord:
    """Describe this process."""
    host, pid = socket.gethostname()[:255], os.getpid()
    try:
        return ProcessRecord(
            host=host,
            boot_id=_BOOT_ID.read_text().strip(),
            pid=pid,
            pid_namespace=str(Path(_PID_NAMESPACE).readlink()),
            started=int(_stat(pid)[_STARTED]),
        )
    except OSError:
        return ProcessRecord(host=host, pid=pid)


def is_gone(process: ProcessRecord) -> bool:
    """Return whether a process has provably ended: it ran on this very boot, in this pid namespace, and its pid
    is free, a zombie's, or belongs to a process that started at another time.

    False means that it lives or that nobody here can tell.
    """
    here = local_process()
    ours = (here.host, here.boot_id, here.pid_namespace)
    if not here.boot_id or not process.pid or (process.host, process.boot_id, process.pid_namespace) != ours:
        return False
    try:
        os.kill(process.pid, 0)
    except (ProcessLookupError, OverflowError):  # the record is the network's: its number may be no pid at all
        return True
    except OSError:  # it lives and belongs to another user; how old it is may still be readable
        pass
    try:
        stat = _stat(process.pid)
    except OSError:
        return False
    is_zombie = stat[_STATE] in {"Z", "X"} and int(stat[_THREADS]) <= 1
    return is_zombie or (process.started != 0 and int(stat[_STARTED]) != process.started)


def _stat(pid: int) -> list[str]:
    """Return the fields after the command's name, which may itself hold spaces and parentheses."""
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
