"""The machine that a run was measured on: what may explain its figures, and nothing that names who owns it."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import trunkline
from trunkline.errors import TrunklineError

_secret = re.compile("KEY|TOKEN|SECRET|PASS|CRED", re.IGNORECASE)


def describe(*, store_version: str | None = None, root: Path = Path("/")) -> dict[str, str]:
    """Return facts of this machine and process by name: processor, memory, kernel, software, network devices.

    It loads UCX and reads some files; what can't be told is left out. Neither the host's name nor any address is in it.

    Args:
        store_version: What the store said of itself, as ``etcd 3.5.1``.
        root: Where ``proc`` and ``sys`` are.
    """
    facts = {
        "processor": _processor(root),
        "cores": f"{len(os.sched_getaffinity(0))} usable of {os.cpu_count()}",
        "memory": _memory(root),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "distribution": _distribution(),
        "hypervisor": _hypervisor(root),
        "scaling governor": _text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "huge pages": _huge_pages(root),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "trunkline": trunkline.__version__,
        "ucx": _ucx(),
        "ucx settings": _settings("UCX_"),
        "trunkline settings": _settings("TRUNKLINE_"),
        "network devices": ", ".join(_networks(root)),
        "RDMA devices": ", ".join(_fabrics(root)),
        "GPUs": ", ".join(_gpus(root)),
        "store": store_version or "",
    }
    return {name: fact for name, fact in facts.items() if fact}


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _field(text: str, *names: str) -> str:
    """Return the first value of a file of ``name : value`` lines, for the first of the names that it has."""
    for name in names:
        if found := re.search(rf"^{re.escape(name)}\s*:\s*(.+)$", text, re.MULTILINE):
            return found[1].strip()
    return ""


def _processor(root: Path) -> str:
    text = _text(root / "proc/cpuinfo")
    return _field(text, "model name", "Model", "CPU part") or platform.machine()


def _memory(root: Path) -> str:
    words = _field(_text(root / "proc/meminfo"), "MemTotal").split()
    return f"{int(words[0]) / (1 << 20):.1f} GiB" if words and words[0].isdigit() else ""


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""


def _hypervisor(root: Path) -> str:
    """Return whose virtual machine this is; empty on bare metal, as far as the kernel tells."""
    if " hypervisor" not in _field(_text(root / "proc/cpuinfo"), "flags"):
        return ""
    return _text(root / "sys/class/dmi/id/sys_vendor") or "of unknown make"


def _huge_pages(root: Path) -> str:
    mode = re.search(r"\[(\w+)\]", _text(root / "sys/kernel/mm/transparent_hugepage/enabled"))
    count = _field(_text(root / "proc/meminfo"), "HugePages_Total")
    words = ([f"transparent: {mode[1]}"] if mode else []) + ([f"reserved: {count}"] if count else [])
    return ", ".join(words)


def _ucx() -> str:
    try:
        from trunkline.backend.plugins.ucx.library import load_native

        load_native()
        from trunkline.backend.plugins.ucx import _native
    except TrunklineError as error:
        return f"can't be used: {error}"
    return ".".join(map(str, _native.ucp_version()))


def _settings(prefix: str) -> str:
    """Return the variables that tune a library, those left out that may hold a secret."""
    found = sorted(name for name in os.environ if name.startswith(prefix) and not _secret.search(name))
    return ", ".join(f"{name}={os.environ[name]}" for name in found)


def _networks(root: Path) -> list[str]:
    """Return the interfaces with their speed, where they tell it."""
    found = []
    for path in sorted(root.glob("sys/class/net/*")):
        speed = _text(path / "speed")
        found.append(f"{path.name} ({int(speed) / 1000:g} Gb/s)" if speed.isdigit() and int(speed) else path.name)
    return found


def _fabrics(root: Path) -> list[str]:
    found = []
    for path in sorted(root.glob("sys/class/infiniband/*")):
        rates = sorted({_text(rate) for rate in path.glob("ports/*/rate")} - {""})
        found.append(f"{path.name} ({'; '.join(rates)})" if rates else path.name)
    return found


def _gpus(root: Path) -> list[str]:
    paths = sorted(root.glob("proc/driver/nvidia/gpus/*/information"))
    return [_field(_text(path), "Model") or "unknown" for path in paths]
