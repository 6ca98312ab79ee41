"""Through an agent, which takes the backend for files of GPU memory by itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from trunkline import Agent, File, TransferError, typed
from trunkline.testing.link import bytes_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from tests.standin.cufile import Standin


def on_gpu(memory: NDArray[Any]) -> Any:
    """Have plain memory say that it is a GPU's."""
    interface = {"version": 3, "shape": memory.shape, "typestr": memory.dtype.str, "data": (memory.ctypes.data, False)}
    return SimpleNamespace(__cuda_array_interface__=interface, __dlpack_device__=lambda: (2, 1))


@pytest.mark.parametrize("backend", ["gds", "gds_mt"])
def test_blocks_of_gpu_memory_go_to_a_file_and_come_back(standin: Standin, tmp_path: Path, backend: str) -> None:
    cache, copy = bytes_of(8 * 4096, 1).reshape(8, 4096), np.zeros((8, 4096), np.uint8)
    blocks = [1, 3, 4, 6]
    standin.record()
    with (
        Agent("gpu", store="", backends=["loopback", backend]) as agent,
        File(tmp_path / "spill", "w+", size=8 * 4096) as file,
    ):
        kv, back = agent.register(on_gpu(cache), name="kv"), agent.register(on_gpu(copy), name="back")
        spill = agent.register(typed(file, dtype="U8", shape=(8, 4096)), name="spill")
        agent.write(kv[blocks], to=spill[blocks]).wait()
        assert (np.fromfile(tmp_path / "spill", np.uint8).reshape(8, 4096)[blocks] == cache[blocks]).all()
        standin.fail("cuFileRead", 5, times=99)
        with pytest.raises(TransferError, match=f"{tmp_path}/spill failed: .*EIO"):
            agent.read(spill[blocks], into=back[blocks]).wait()
        standin.fail("", 0)
        transfer = agent.read(spill[blocks], into=back[blocks])
        assert transfer.wait().telemetry.backend == backend.upper()
        assert (copy[blocks] == cache[blocks]).all()
        assert not copy[0].any()
    assert all("gpu=1" in call for call in standin.calls if call.startswith(("cuFileBuf", "cuFileRead", "cuFileWrite")))
