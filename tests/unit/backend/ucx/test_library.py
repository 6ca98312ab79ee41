from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trunkline.backend.plugins.ucx import library
from trunkline.errors import BackendUnavailableError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="UCX's wheels are for Linux only")


def in_a_child(code: str, **environment: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


TRY = """
from trunkline.backend.plugins.ucx.library import load_native, library_path
from trunkline.errors import BackendUnavailableError
try:
    load_native(LIBRARY)
    print("loaded", library_path())
except BackendUnavailableError as error:
    print(error)
"""


def test_the_native_module_was_built() -> None:
    """An optional extension fails silently; on Linux its absence is an error."""
    library.load_native()
    from trunkline.backend.plugins.ucx import _native

    assert _native.ucp_version() >= library.OLDEST
    path = library.library_path()
    assert path is not None
    assert path.name.startswith("libucp.so")
    assert _native.let_sends_wait()


def test_a_ucx_that_can_not_be_kept_from_aborting_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    library.load_native()
    from trunkline.backend.plugins.ucx import _native

    monkeypatch.setattr(_native, "let_sends_wait", lambda: False)
    library.load_native()
    assert f"at {library.library_path()} does not send in the way" in caplog.text


def test_a_path_that_can_not_be_loaded_is_named() -> None:
    said = in_a_child("LIBRARY = '/nowhere/libucp.so'" + TRY)
    assert "libucp can't be loaded from '/nowhere/libucp.so'" in said
    assert library.ENVIRONMENT in said


def test_the_environment_names_a_library() -> None:
    code = "LIBRARY = None" + TRY
    assert "'/elsewhere/libucp.so'" in in_a_child(code, **{library.ENVIRONMENT: "/elsewhere/libucp.so"})
    library.load_native()
    path = str(library.library_path())
    assert in_a_child(code, **{library.ENVIRONMENT: path}) == f"loaded {path}"


def test_a_second_choice_in_one_process_is_refused() -> None:
    library.load_native()
    with pytest.raises(BackendUnavailableError, match="already uses the UCX at"):
        library.load_native("/another/libucp.so")


def test_another_packages_copy_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_mapped", lambda: [Path("/site-packages/nixl_cu12.libs/libucp-1a2b3c.so.0.0.0")])
    with pytest.raises(BackendUnavailableError, match="different processes"):
        library.load_native()


def test_says_what_to_install() -> None:
    blocked = "import sys; sys.modules['libucx'] = None; LIBRARY = None\n"
    assert "pip install 'trunkline[ucx]'" in in_a_child(blocked + TRY)
    blocked = "import sys; sys.modules['trunkline.backend.plugins.ucx._native'] = None; LIBRARY = None\n"
    assert "native module could not be imported" in in_a_child(blocked + TRY)
