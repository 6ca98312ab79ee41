from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest

from trunkline.backend import registry
from trunkline.backend.plugins.loopback import LoopbackBackend
from trunkline.backend.registry import available_backends, create_backend
from trunkline.errors import BackendUnavailableError, ConfigurationError


class PickyBackend(LoopbackBackend):
    def __init__(self, agent_name: str, *, colour: str = "green") -> None:
        super().__init__(agent_name)
        if colour == "red":
            raise BackendUnavailableError("red is sold out")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    points = EntryPoints(
        [
            EntryPoint("picky", f"{__name__}:PickyBackend", registry.ENTRY_POINTS),
            EntryPoint("broken", "no.such.module:Backend", registry.ENTRY_POINTS),
            EntryPoint("loopback", "no.such.module:Backend", registry.ENTRY_POINTS),
        ]
    )

    def load(name: str) -> Any:
        module = sys.modules.get(name)
        if module is None:
            raise ImportError(f"No module named {name!r}")
        return module

    monkeypatch.setattr(registry, "entry_points", lambda group: points.select(group=group))
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__, sys.modules["__main__"]))
    monkeypatch.setattr(sys.modules[__name__], "PickyBackend", PickyBackend, raising=False)


def test_makes_built_in_backends_in_any_case() -> None:
    backend = create_backend("Loopback", "agent")
    assert isinstance(backend, LoopbackBackend)


@pytest.mark.usefixtures("installed")
def test_makes_installed_backends_with_their_options() -> None:
    assert type(create_backend("picky", "agent", colour="blue")).__name__ == "PickyBackend"
    with pytest.raises(BackendUnavailableError, match="sold out"):
        create_backend("picky", "agent", colour="red")
    with pytest.raises(ConfigurationError, match=r"refused its options: .*size"):
        create_backend("picky", "agent", size=3)


@pytest.mark.usefixtures("installed")
def test_a_built_in_name_can_not_be_taken_over() -> None:
    assert isinstance(create_backend("loopback", "agent"), LoopbackBackend)


@pytest.mark.usefixtures("installed")
def test_says_what_is_wrong_with_a_name() -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"no backend 'smoke'; installed: broken, cma, gds, gds_mt, loopback, obj, picky, posix, ucx",
    ):
        create_backend("smoke", "agent")
    with pytest.raises(BackendUnavailableError, match=r"no\.such\.module"):
        create_backend("broken", "agent")


@pytest.mark.usefixtures("installed")
def test_lists_what_can_be_used_and_why_not() -> None:
    reasons = available_backends()
    assert reasons["loopback"] is None
    assert reasons["picky"] is None
    assert "no.such.module" in (reasons["broken"] or "")


def test_importing_it_loads_neither_numpy_nor_ucx() -> None:
    code = (
        "import sys, trunkline.backend.registry as r;"
        "assert 'numpy' not in sys.modules and 'trunkline.backend.plugins.ucx._native' not in sys.modules;"
        "import trunkline.backend.plugins.ucx;"
        "assert 'libucp' not in open('/proc/self/maps').read() if sys.platform == 'linux' else True"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
