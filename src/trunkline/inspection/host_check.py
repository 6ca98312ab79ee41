"""Checks of this machine: UCX, the right to read other processes' memory, limits of a process."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING

from trunkline.errors import TrunklineError
from trunkline.inspection.finding import Finding, ok, problem, skipped, warning

if TYPE_CHECKING:
    from collections.abc import Mapping

_CAP_SYS_PTRACE = 1 << 19
_FEW_FILES = 4096
_MUCH_LOCKED = 1 << 30


def check_ucx(*, devices: str | None, timeout: float) -> list[Finding]:
    """Whether UCX can be loaded and moves bytes between two agents of this process, and by what."""
    name = "ucx"
    try:
        from trunkline.agent.agent import Agent
        from trunkline.backend.plugins.ucx.library import library_path, load_native

        load_native()
        from trunkline.backend.plugins.ucx import _native
        from trunkline.inspection.probe import probe_metadata
        from trunkline.store.registry import open_store

        version = ".".join(map(str, _native.ucp_version()))
        found = [ok(name, f"UCX {version} from {library_path()}")]
        identity = os.urandom(8).hex()
        with (
            open_store(f"memory://doctor-{identity}") as nowhere,
            Agent(f"doctor-{identity}", store=nowhere, devices=devices, timeout=timeout) as agent,
        ):
            agent.register(bytearray(64))
            path = probe_metadata(agent.local_metadata(), count=3, devices=devices, timeout=timeout)
    except TrunklineError as error:
        return [problem(name, str(error), "transfers by UCX don't work here; the directory does without it")]
    if path.error is not None:
        advice = "check UCX_TLS, UCX_NET_DEVICES and --devices; UCX_LOG_LEVEL=info says more"
        return [*found, problem(name, f"two agents of this process can't reach each other: {path.error}", advice)]
    fastest = min(path.reads) * 1e6
    message = f"8 bytes between two agents of this process: {fastest:.0f} µs over {', '.join(path.transports)}"
    return [*found, ok(name, message), _check_devices(Path("/sys/class"))]


def _check_devices(root: Path) -> Finding:
    nets = sorted(path.name for path in root.glob("net/*"))
    fabrics = sorted(path.name for path in root.glob("infiniband/*"))
    message = f"network devices: {', '.join(nets) or 'none'}; RDMA devices: {', '.join(fabrics) or 'none'}"
    return ok("ucx", message)


def check_ptrace(root: Path = Path("/proc")) -> list[Finding]:
    """Whether processes of this machine may read each other's memory, which UCX's cross-memory attach needs."""
    name = "ptrace"
    advice = (
        "set kernel.yama.ptrace_scope=0, or give the processes CAP_SYS_PTRACE (containers: --cap-add=SYS_PTRACE); "
        "else transfers on one machine go over TCP"
    )
    try:
        status = (root / "self/status").read_text()
    except OSError as error:
        return [skipped(name, f"can't be told here: {error}")]
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    if int(fields.get("CapEff", "0").strip() or "0", 16) & _CAP_SYS_PTRACE:
        return [ok(name, "this process has CAP_SYS_PTRACE: it may read other processes' memory")]
    try:
        scope = int((root / "sys/kernel/yama/ptrace_scope").read_text())
    except (OSError, ValueError):
        return [ok(name, "not restricted by Yama: processes of one user may read each other's memory")]
    if scope == 0:
        return [ok(name, "kernel.yama.ptrace_scope is 0: processes of one user may read each other's memory")]
    return [warning(name, f"kernel.yama.ptrace_scope is {scope}: processes may not read each other's memory", advice)]


def check_limits(root: Path = Path("/sys/class/infiniband")) -> list[Finding]:
    """Whether this process may open enough files, and lock enough memory for RDMA."""
    name = "limits"
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    locked, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    found = []
    if 0 <= files < _FEW_FILES:
        message = f"this process may open {files:,} files, and TCP takes some for each peer"
        found.append(warning(name, message, "raise it: ulimit -n 65536"))
    if 0 <= locked < _MUCH_LOCKED and root.is_dir() and any(root.iterdir()):
        message = f"this process may lock {locked:,} bytes of memory, and RDMA locks what is registered"
        found.append(warning(name, message, "raise it: ulimit -l unlimited (containers: --ulimit memlock=-1)"))
    return found or [ok(name, f"{'any number of' if files < 0 else f'{files:,}'} open files")]


def check_environment(environment: Mapping[str, str], namespace: str) -> list[Finding]:
    """Whether variables say one thing and arguments another."""
    name = "environment"
    said = environment.get("NIXL_ETCD_NAMESPACE")
    if said and said != namespace:
        message = f"NIXL_ETCD_NAMESPACE is {said}, and {namespace} was asked for"
        return [warning(name, message, "agents started from this environment use the former")]
    return [ok(name, "no variable contradicts what was asked for")]
