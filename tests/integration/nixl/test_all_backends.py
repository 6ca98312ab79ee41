"""What NIXL's API makes of the backends that this machine has."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline.nixl import nixl_agent, nixl_agent_config
from trunkline.nixl._bindings import nixlBackendError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="UCX's wheels are for Linux only")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("NIXL_ETCD_ENDPOINTS", "AWS_DEFAULT_BUCKET"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("UCX_NET_DEVICES", "lo")


def test_all_that_work_here_are_opened(caplog: pytest.LogCaptureFixture) -> None:
    agent = nixl_agent("a", instantiate_all=True)
    try:
        assert {"UCX", "CMA", "POSIX"} <= set(agent.backends)
        assert agent.get_plugin_list() == ["CMA", "GDS", "GDS_MT", "OBJ", "POSIX", "UCX"]
        for missing in set(agent.get_plugin_list()) - set(agent.backends):
            assert any(f"backend {missing} is left out" in message for message in caplog.messages)
    finally:
        agent.close()


def test_memory_goes_to_a_file_and_back(tmp_path: Path) -> None:
    agent = nixl_agent("a", nixl_agent_config(backends=["UCX"]))
    try:
        agent.create_backend("POSIX", {"threads": "2"})
        path = tmp_path / "spill"
        number = os.open(path, os.O_RDWR | os.O_CREAT)
        memory = np.arange(1 << 16, dtype=np.uint8)
        mine = agent.register_memory([(memory.ctypes.data, memory.nbytes, 0, "")], "DRAM")
        file = agent.register_memory([(0, memory.nbytes, number, "")], "FILE")
        for operation in ("WRITE", "READ"):
            handle = agent.initialize_xfer(operation, mine.trim(), file.trim(), "a", b"done")
            state = agent.transfer(handle)
            while state != "DONE":
                state = agent.check_xfer_state(handle)
            assert agent.query_xfer_backend(handle) == "POSIX"
            for there in (np.fromfile(path, np.uint8), memory):
                np.testing.assert_array_equal(there, np.arange(1 << 16, dtype=np.uint8))
            memory[:] = 0  # the write's; the read brings it back
        assert agent.query_memory([(0, 0, 0, str(path)), (0, 0, 0, "/nowhere/x")], "POSIX", "FILE")[0] is not None
        with pytest.raises(nixlBackendError, match="name too long"):
            agent.query_memory([(0, 0, 0, "x" * 300)], "POSIX", "FILE")
        agent.deregister_memory(file)
        os.close(number)
    finally:
        agent.close()


def test_ucx_brings_cma_along(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting, expected in (("on", ["UCX", "CMA"]), ("off", ["UCX"])):
        monkeypatch.setenv("TRUNKLINE_CMA", setting)
        agent = nixl_agent("a", nixl_agent_config(backends=["UCX"]))
        reports = {each.name: each for each in agent.trunkline.backends()}
        assert [name for name, each in reports.items() if each.is_open] == expected
        assert reports["CMA"].reason == (None if setting == "on" else "TRUNKLINE_CMA=off")
        assert list(agent.backends) == ["UCX"]
        agent.close()
