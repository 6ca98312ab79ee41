"""The package as a whole: what it exports, what importing it costs, what was built."""

from __future__ import annotations

import importlib
import os
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import trunkline
from trunkline import errors
from trunkline.coordination.record import encode_value
from trunkline.memory.kind import MemoryKind
from trunkline.metadata.card import Card, encode_card
from trunkline.metadata.catalog import Catalog, TensorEntry, encode_catalog
from trunkline.offer.manifest import DEFAULT_CHUNK_SIZE, DIGEST_SIZE, FileEntry, Manifest, encode_manifest

ROOT = Path(__file__).parents[2]

TURNS = """
import importlib, sys, threading
module, function, data = sys.argv[1], sys.argv[2], bytes.fromhex(sys.argv[3])
decode = getattr(importlib.import_module(f"trunkline.{module}"), function)
decoded = []
def take_turns(frame, event, argument):
    if not frame.f_globals.get("__name__", "").startswith(("trunkline", "__main__")):
        thread = threading.Thread(target=lambda: decoded.append(decode(data)))
        thread.start()
        thread.join()
sys.setprofile(take_turns)
first = decode(data)
sys.setprofile(None)
assert all(each == first for each in (*decoded, decode(data))), decoded
"""
RECORDS = {
    "metadata.presence:decode_presence": (ROOT / "tests/data/golden/presence-2-chunks.json").read_bytes(),
    "metadata.catalog:decode_catalog": encode_catalog(
        Catalog((TensorEntry("kv", MemoryKind.DRAM, "BF16", (4, 16), 4096, 128, 0),), {"all": ("kv",)})
    ),
    "metadata.card:decode_card": encode_card(
        Card(agent="a", incarnation="0" * 32, metadata=b"m", catalog=b"c", attributes={"role": "decode"})
    ),
    "coordination.record:decode_value": encode_value({"a": [1, 2.5, b"x", None]}, "test"),
    "offer.manifest:decode_manifest": encode_manifest(
        Manifest(
            is_directory=True,
            files=(FileEntry("file", 1, bytes(DIGEST_SIZE)),),
            chunk_size=DEFAULT_CHUNK_SIZE,
            total=1,
        )
    ),
    "offer.safetensors:parse_header": b'\x37\0\0\0\0\0\0\0{"bias":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}\0',
}


def test_every_exported_name_is_there_and_public() -> None:
    for name in trunkline.__all__:
        assert getattr(trunkline, name) is not None
    assert set(trunkline.__all__) <= set(dir(trunkline))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = trunkline.nothing


def test_the_version_is_said_once_and_the_same() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == trunkline.__version__


@pytest.mark.parametrize("heavy", ["numpy", "grpc", "google.protobuf", "msgspec", "typer", "rich", "asyncio"])
def test_importing_loads_nothing_heavy(heavy: str) -> None:
    code = f"import sys, trunkline; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_starts_no_thread_and_changes_no_environment() -> None:
    code = (
        "import os, threading\n"
        "before = dict(os.environ)\n"
        "import trunkline\n"
        "[getattr(trunkline, name) for name in trunkline.__all__]\n"
        "assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())\n"
        "assert threading.enumerate() == [threading.main_thread()]\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("decoder", RECORDS)
def test_two_threads_may_decode_the_first_record_at_once(decoder: str) -> None:
    """msgspec completes a type at its first use, and crashes in a thread that meets it half done."""
    command = [sys.executable, "-c", TURNS, *decoder.split(":"), RECORDS[decoder].hex()]
    assert subprocess.run(command, check=False).returncode == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the native module is for Linux only")
@pytest.mark.parametrize("plugin", ["cma", "posix", "ucx"])
def test_the_native_modules_were_built(plugin: str) -> None:
    """They are optional for setuptools, which would leave them out without an error."""
    found = list((ROOT / "src/trunkline/backend/plugins" / plugin).glob("_native*.so"))
    assert found, "no compiled module: pip install shows why with --verbose"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the native modules are for Linux only")
def test_without_a_compiler_the_rest_is_built(tmp_path: Path) -> None:
    places = ["--build-lib", str(tmp_path / "lib"), "--build-temp", str(tmp_path / "temp")]
    command = [sys.executable, "setup.py", "build_ext", *places]
    built = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"CC": "false"}, capture_output=True, text=True, timeout=300, check=False
    )
    assert built.returncode == 0, built.stderr
    for plugin in ("cma", "posix"):
        assert f'building extension "trunkline.backend.plugins.{plugin}._native" failed' in built.stdout + built.stderr
    assert not list(tmp_path.rglob("*.so"))


def test_elsewhere_than_on_linux_nothing_native_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `pip install .` would go on macOS, where there are no UCX wheels; not tried on a real one."""
    asked: dict[str, object] = {}
    setuptools = importlib.import_module("setuptools")  # before the platform seems another
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr(setuptools, "setup", lambda **options: asked.update(options))
    runpy.run_path(str(ROOT / "setup.py"))
    assert asked["ext_modules"] == []
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert all("linux" in requirement for requirement in requires if "ucx" in requirement)


def test_every_error_is_in_the_tree_and_in_its_picture() -> None:
    tree = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert errors.__doc__ is not None
    for kind in tree:
        assert issubclass(kind, errors.TrunklineError), kind
        assert kind.__doc__, kind
        assert f" {kind.__name__}" in errors.__doc__, kind


def test_the_documentation_shows_the_same_tree() -> None:
    page = (ROOT / "docs/errors.md").read_text()
    assert errors.__doc__ is not None
    for line in errors.__doc__.splitlines():
        if "──" in line:
            assert line.strip() in page
