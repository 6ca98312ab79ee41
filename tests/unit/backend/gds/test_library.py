from __future__ import annotations

import ctypes
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.unit.backend.gds.test_cufile import wheel

from trunkline.backend.plugins.gds import GdsBackend, GdsMtBackend, cuda, library
from trunkline.backend.registry import available_backends
from trunkline.errors import BackendUnavailableError, ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.standin.cufile import Standin


def has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def test_names_the_libraries_that_were_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(library.ENVIRONMENT, raising=False)
    monkeypatch.setattr(library, "SYSTEM_NAMES", ("libnosuchcufile.so.0", "libnosuchcufile.so"))
    with pytest.raises(BackendUnavailableError) as caught:
        GdsBackend("agent")
    text = str(caught.value)
    assert "libcufile is missing; tried libnosuchcufile.so.0 (" in text
    assert "libnosuchcufile.so (" in text
    assert "pip install 'trunkline[gds]'" in text
    assert "$TRUNKLINE_CUFILE_LIBRARY" in text


def test_names_a_library_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.ENVIRONMENT, "/nowhere/libcufile.so")
    with pytest.raises(BackendUnavailableError, match=r"can't be loaded: /nowhere/libcufile\.so .*\$TRUNKLINE_CUFILE"):
        GdsMtBackend("agent")
    with pytest.raises(BackendUnavailableError, match=r"no libcufile with a batch API .*cuFileDriverOpen"):
        GdsMtBackend("agent", library="libc.so.6")


def test_the_wheel_is_found_before_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = wheel("lib/libcufile.so.0")
    assert list(library._candidates()) == [str(installed), *library.SYSTEM_NAMES]
    monkeypatch.delenv(library.ENVIRONMENT, raising=False)
    assert library._load(None)[0] == str(installed)


def test_without_cudas_driver_it_says_so_and_leaves_no_trace(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if has_driver():
        pytest.skip("this machine has CUDA's driver")
    installed = wheel("lib/libcufile.so.0")
    monkeypatch.delenv(library.ENVIRONMENT, raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BackendUnavailableError, match=r"CUDA driver's library is missing \(libcuda\.so\.1: "):
        GdsBackend("agent")
    reasons = available_backends()
    assert "libcuda.so.1" in (reasons["gds"] or "")
    assert "libcuda.so.1" in (reasons["gds_mt"] or "")
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    # What it would come to if cuFile were asked.
    code = f"""if True:
        import ctypes
        from trunkline.backend.plugins.gds.cufile import CuFile, CuFileError
        try:
            CuFile(ctypes.CDLL({str(installed)!r})).open_driver()
        except CuFileError as error:
            print(error)
    """
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "cuFileDriverOpen returned CU_FILE_NVFS_SETUP_ERROR (5033)" in child.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["cufile.log"]


def test_without_a_gpu_it_says_so(standin: Standin) -> None:
    standin.fail("cuInit", 100)
    with pytest.raises(BackendUnavailableError, match=r"cuInit returned CUDA_ERROR_NO_DEVICE \(100\); is there a GPU"):
        GdsBackend("agent")


def test_a_driver_that_is_too_old_is_told(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "LIBRARY", "libc.so.6")
    with pytest.raises(BackendUnavailableError, match=r"lacks cuInit: NVIDIA's driver is too old"):
        GdsBackend("agent")


def test_without_the_kernel_module_it_says_so(
    standin: Standin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(library, "KERNEL_MODULE", tmp_path / "nvidia-fs")
    standin.fail("cuFileDriverOpen", 5001)
    with pytest.raises(BackendUnavailableError) as caught:
        GdsBackend("agent")
    text = str(caught.value)
    assert "cuFileDriverOpen returned CU_FILE_DRIVER_NOT_INITIALIZED (5001)" in text
    assert f"nvidia-fs is not loaded ({tmp_path}/nvidia-fs is missing)" in text
    assert "allow_compat_mode" in text
    (tmp_path / "nvidia-fs").mkdir()
    standin.fail("cuFileDriverOpen", 5011)
    with pytest.raises(BackendUnavailableError, match=r"CU_FILE_CUDA_DRIVER_ERROR \(5011\), CUDA error 2$"):
        GdsMtBackend("agent")


def test_backends_of_a_process_share_the_driver(standin: Standin) -> None:
    first, second = GdsBackend("first", batch_pool_size=2), GdsMtBackend("second")
    assert standin.alive == {"drivers": 1, "files": 0, "buffers": 0, "batches": 2, "contexts": 0}
    first.close()
    assert standin.alive["drivers"] == 1
    second.close()
    assert standin.alive["drivers"] == 0


def test_a_driver_that_another_package_opened_is_left_open(standin: Standin) -> None:
    standin.record()
    standin.fail("cuFileDriverOpen", 5026)
    GdsMtBackend("agent").close()
    assert standin.names == ["cuFileDriverOpen"]


def test_a_driver_that_does_not_close_is_no_error(standin: Standin, caplog: pytest.LogCaptureFixture) -> None:
    backend = GdsMtBackend("agent")
    standin.fail("cuFileDriverClose", 5006)
    backend.close()
    assert "CU_FILE_DRIVER_CLOSING" in caplog.text


def test_batches_that_cufile_refuses_are_told_by_their_options(standin: Standin) -> None:
    with pytest.raises(BackendUnavailableError, match=r"0 of 16 batches of 129 entries .*CU_FILE_INVALID_VALUE"):
        GdsBackend("agent", batch_limit=129)
    standin.fail("cuFileBatchIOSetUp", 5036, after=3)
    with pytest.raises(BackendUnavailableError, match=r"3 of 16 batches of 128 .*CU_FILE_GPU_MEMORY_PINNING_FAILED"):
        GdsBackend("agent")


@pytest.mark.parametrize("option", ["batch_pool_size", "batch_limit", "max_request_size"])
@pytest.mark.parametrize("value", [0, -1, "many", 1.5, 2**31])
def test_a_number_that_is_none_is_refused(option: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=option):
        GdsBackend("agent", **{option: value})  # type: ignore[arg-type]


def test_options_may_be_texts_as_in_nixl(standin: Standin) -> None:
    standin.record()
    GdsBackend("agent", batch_pool_size="2", batch_limit="16").close()  # type: ignore[arg-type]
    assert standin.calls[1:3] == ["cuFileBatchIOSetUp nr=16"] * 2
    GdsMtBackend("agent", thread_count="0").close()  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="thread_count=-2"):
        GdsMtBackend("agent", thread_count=-2)
