from __future__ import annotations

import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import trunkline
from trunkline.bench.environment import describe

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_this_machine() -> None:
    facts = describe(store_version="etcd 3.5.1")
    assert facts["store"] == "etcd 3.5.1"
    assert facts["trunkline"] == trunkline.__version__
    assert facts["kernel"].startswith("Linux ")
    assert facts["ucx"].startswith("1.")
    assert facts["memory"].endswith(" GiB")
    assert "usable of" in facts["cores"]
    assert "lo" in facts["network devices"]


def test_facts_of_a_made_up_machine(tmp_path: Path) -> None:
    def put(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    put("proc/cpuinfo", "processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\nflags\t\t: fpu hypervisor\n")
    put("proc/meminfo", "MemTotal:       1048576 kB\nHugePages_Total:       7\n")
    put("sys/class/dmi/id/sys_vendor", "Some Maker\n")
    put("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n")
    put("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n")
    put("sys/class/net/eth0/speed", "25000\n")
    put("sys/class/net/lo/mtu", "65536\n")
    put("sys/class/net/eth1/speed", "-1\n")
    put("sys/class/infiniband/mlx5_0/ports/1/rate", "400 Gb/sec (4X NDR)\n")
    put("proc/driver/nvidia/gpus/0000/information", "Model: \t NVIDIA H200\nIRQ: 1\n")
    facts = describe(root=tmp_path)
    assert facts["processor"] == "Some CPU @ 3 GHz"
    assert facts["memory"] == "1.0 GiB"
    assert facts["hypervisor"] == "Some Maker"
    assert facts["huge pages"] == "transparent: madvise, reserved: 7"
    assert facts["scaling governor"] == "performance"
    assert facts["network devices"] == "eth0 (25 Gb/s), eth1, lo"
    assert facts["RDMA devices"] == "mlx5_0 (400 Gb/sec (4X NDR))"
    assert facts["GPUs"] == "NVIDIA H200"
    assert "store" not in facts


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    facts = describe(root=tmp_path)
    assert "memory" not in facts
    assert facts["python"]


def test_settings_are_told_and_secrets_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UCX_TLS", "tcp")
    monkeypatch.setenv("TRUNKLINE_STORE_CREDENTIALS", "/secret/place")
    monkeypatch.setenv("UCX_SOME_PASSWORD", "hidden")
    monkeypatch.setenv("TRUNKLINE_CMA", "off")
    facts = describe()
    assert "UCX_TLS=tcp" in facts["ucx settings"]
    assert facts["trunkline settings"] == "TRUNKLINE_CMA=off"
    assert "secret" not in repr(facts)
    assert "hidden" not in repr(facts)


def test_nothing_names_the_host() -> None:
    assert socket.gethostname() not in repr(describe())


def test_without_ucx_it_says_why() -> None:
    code = (
        "import os; os.environ['TRUNKLINE_UCX_LIBRARY'] = '/nowhere/libucp.so'\n"
        "from trunkline.bench.environment import describe\n"
        "print(describe()['ucx'])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("can't be used: ")
    assert "/nowhere" in ended.stdout
