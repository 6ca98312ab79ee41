"""What importing costs, and what is there to import."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

import trunkline.nixl
from trunkline.errors import VerificationError
from trunkline.nixl import _api, _utils
from trunkline.nixl import logging as nixl_logging
from trunkline.nixl.enumeration import nixl_mem_t, nixl_status_t, nixl_thread_sync_t


@pytest.mark.parametrize("heavy", ["numpy", "grpc", "msgspec", "trunkline.agent", "trunkline.backend", "nixl_cu12"])
def test_importing_loads_nothing_heavy(heavy: str) -> None:
    code = f"import sys, trunkline.nixl; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_names_are_there_and_one_class_each() -> None:
    for name in ("nixl_agent", "nixl_agent_config", "nixl_thread_sync_t", "nixl_xfer_handle", "DEFAULT_COMM_PORT"):
        assert name in trunkline.nixl.__all__
        assert getattr(trunkline.nixl, name) is getattr(_api, name)
    assert set(trunkline.nixl.__all__) <= set(dir(trunkline.nixl))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = trunkline.nixl.nothing


def test_enumerations_compare_as_pybind11_s() -> None:
    assert nixl_status_t.NIXL_SUCCESS == 0 == nixl_mem_t.DRAM_SEG
    assert nixl_status_t.NIXL_SUCCESS == nixl_mem_t.DRAM_SEG
    assert nixl_thread_sync_t.NIXL_THREAD_SYNC_RW != 2
    assert {nixl_mem_t.DRAM_SEG: 1}[nixl_mem_t(0)] == 1
    assert [nixl_mem_t.VRAM_SEG][int(nixl_mem_t.DRAM_SEG)] is nixl_mem_t.VRAM_SEG
    assert nixl_mem_t.DRAM_SEG != "DRAM_SEG"


def test_differing_memory_is_told_where_nixl_says_nothing() -> None:
    one, other = (_utils.malloc_passthru(16) for _ in range(2))
    _utils.ba_buf(one, 16)
    _utils.ba_buf(other, 15)
    _utils.verify_transfer(one, other, 15)
    _utils.ba_buf(other, 16)
    _utils.verify_transfer(one, other, 16)
    import ctypes

    ctypes.memset(other, 0, 1)
    with pytest.raises(VerificationError, match="16 bytes at"):
        _utils.verify_transfer(one, other, 16)
    for address in (one, other):
        _utils.free_passthru(address)


def run_logging(level: str) -> str:
    code = (
        "from trunkline.nixl.logging import get_logger\n"
        "log = get_logger('_api')\n"
        "log.debug('low'); log.info('mid'); log.error('high'); print(log.name)"
    )
    environment = {"NIXL_LOG_LEVEL": level} if level else {}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    ).stdout


@pytest.mark.parametrize(
    ("level", "seen"), [("", {"mid", "high"}), ("debug", {"low", "mid", "high"}), ("ERROR", {"high"}), ("FATAL", set())]
)
def test_loggers_print_what_the_level_lets_through(level: str, seen: set[str]) -> None:
    output = run_logging(level)
    assert {word for word in ("low", "mid", "high") if f" {word}" in output} == seen
    assert output.splitlines()[-1] == "nixl.api"


def test_a_level_that_is_none_is_said() -> None:
    assert "NIXL_LOG_LEVEL='loud' is none of TRACE" in run_logging("loud")


def test_setting_up_twice_adds_no_handler() -> None:
    nixl_logging.get_logger("x")
    before = list(logging.getLogger("nixl").handlers)
    nixl_logging.setup_logging()
    assert logging.getLogger("nixl").handlers == before
