"""What memory of GPUs is registered as, up to the call of UCX: there is no GPU here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="UCX's wheels are for Linux only")

HERE = Path(__file__).parent
HOST, CUDA = 0, 1  # ucs_memory_type_t
FIELDS = 1 | 2 | 16  # address, length, memory type: UCX need not find out by itself


def test_ucx_is_told_the_memory_type_and_peers_the_device(tmp_path: Path) -> None:
    libucx = pytest.importorskip("libucx")
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc): UCX's calls can't be recorded")
    source, library = HERE.parents[1] / "standin" / "ucp_memory.c", tmp_path / "ucp_memory.so"
    headers = Path(libucx.__file__).parent / "include"
    command = [compiler, "-shared", "-fPIC", f"-I{headers}", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True, timeout=120)
    record = tmp_path / "record"
    child = subprocess.run(
        [sys.executable, HERE / "gpu_process.py"],
        env=os.environ | {"LD_PRELOAD": str(library), "UCP_MEMORY_RECORD": str(record)},
        check=True,
        timeout=120,
        stdout=subprocess.PIPE,
    )
    found = json.loads(child.stdout)
    calls = [tuple(map(int, line.split())) for line in record.read_text().splitlines()]
    assert calls[1:] == [  # the first is the backend's own
        (found["host"], 64, HOST, FIELDS),
        (0x7F0000000000, 1024, CUDA, FIELDS),
        (0x7F0000100000, 1024, CUDA, FIELDS),
        (0x7F0000200000, 1024, CUDA, FIELDS),
        (0x7F0000300000, 1024, CUDA, FIELDS),
        (0x7F0000400000, 1024, CUDA, FIELDS),
        (found["pinned"], 1024, HOST, FIELDS),
    ]
    assert found["sections"]["DRAM"] == sorted([[found["host"], 64, 0], [found["pinned"], 1024, 0]])
    assert found["sections"]["VRAM"] == [
        [0x7F0000000000, 1024, 0],
        [0x7F0000100000, 1024, 3],
        [0x7F0000200000, 1024, 1],
        [0x7F0000300000, 1024, 2],
        [0x7F0000400000, 1024, 5],
    ]
