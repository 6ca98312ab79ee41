"""``TRUNKLINE_CMA=strict`` keeps UCX from attaching to processes."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from trunkline import Agent
from trunkline.backend.plugins.ucx import UcxBackend
from trunkline.errors import ConfigurationError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="UCX's wheels are for Linux only")


@pytest.mark.parametrize(("setting", "named"), [("on", "CMA"), ("off", "UCX"), ("strict", "UCX")])
def test_who_attaches_to_whom(monkeypatch: pytest.MonkeyPatch, setting: str, named: str) -> None:
    monkeypatch.setenv("TRUNKLINE_CMA", setting)
    monkeypatch.delenv("UCX_TLS", raising=False)
    with Agent("a", store="", devices="lo") as one, Agent("b", store="", devices="lo") as other:
        data, memory = np.arange(1 << 16, dtype=np.uint8), np.zeros(1 << 16, np.uint8)
        other.register(data, name="data")
        peer = one.load_peer(other.card())
        peer.connect()
        transfer = one.read(peer["data"], into=one.register(memory)).wait()
        assert transfer.telemetry.backend == named
        np.testing.assert_array_equal(memory, data)
        attaches = any("cma" in transport or "process_vm" in transport for transport in transfer.telemetry.transports)
        assert attaches == (setting != "strict")
        reasons = {report.name: report.reason for report in one.backends()}
        assert reasons["CMA"] == (None if setting == "on" else f"TRUNKLINE_CMA={setting}")


@pytest.mark.parametrize("transports", ["all", "tcp,cma", "sm,tcp", "^tcp"])
def test_a_contradiction_is_refused(monkeypatch: pytest.MonkeyPatch, transports: str) -> None:
    monkeypatch.setenv("TRUNKLINE_CMA", "strict")
    monkeypatch.setenv("UCX_TLS", transports)
    with pytest.raises(ConfigurationError, match=f"UCX_TLS={transports.replace('^', r'.')}"):
        UcxBackend("a")


@pytest.mark.parametrize("transports", ["tcp", "^cma", "^cma,sysv"])
def test_what_leaves_it_out_is_kept(monkeypatch: pytest.MonkeyPatch, transports: str) -> None:
    monkeypatch.setenv("TRUNKLINE_CMA", "strict")
    monkeypatch.setenv("UCX_TLS", transports)
    UcxBackend("a", devices="lo").close()
