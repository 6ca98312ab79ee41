"""The binding against NVIDIA's own header and library, from the wheel nvidia-cufile-cu12."""

from __future__ import annotations

import ctypes
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trunkline.backend.plugins.gds import cufile
from trunkline.backend.plugins.gds.cufile import IO_EVENTS, IO_PARAMS, CuFile, CuFileError, Descr, Error

if TYPE_CHECKING:
    import numpy as np

CHECK = r"""
#define _GNU_SOURCE
#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>
#include <time.h>
#include "cufile.h"
CUfileError_t (*driver_open)(void) = cuFileDriverOpen;
CUfileError_t (*driver_close)(void) = cuFileDriverClose_v2;
CUfileError_t (*register_file)(void **, CUfileDescr_t *) = cuFileHandleRegister;
void (*deregister_file)(void *) = cuFileHandleDeregister;
CUfileError_t (*register_buffer)(const void *, size_t, int) = cuFileBufRegister;
CUfileError_t (*deregister_buffer)(const void *) = cuFileBufDeregister;
ssize_t (*read_file)(void *, void *, size_t, off_t, off_t) = cuFileRead;
ssize_t (*write_file)(void *, const void *, size_t, off_t, off_t) = cuFileWrite;
CUfileError_t (*set_up)(void **, unsigned) = cuFileBatchIOSetUp;
CUfileError_t (*submit)(void *, unsigned, CUfileIOParams_t *, unsigned) = cuFileBatchIOSubmit;
CUfileError_t (*status)(void *, unsigned, unsigned *, CUfileIOEvents_t *, struct timespec *) = cuFileBatchIOGetStatus;
CUfileError_t (*cancel)(void *) = cuFileBatchIOCancel;
void (*destroy)(void *) = cuFileBatchIODestroy;
#define P(field) offsetof(CUfileIOParams_t, field)
#define E(field) offsetof(CUfileIOEvents_t, field)
int main(void) {
    printf("params %zu %zu %zu %zu %zu %zu %zu %zu %zu\n", sizeof(CUfileIOParams_t), P(mode), P(u.batch.devPtr_base),
           P(u.batch.file_offset), P(u.batch.devPtr_offset), P(u.batch.size), P(fh), P(opcode), P(cookie));
    printf("events %zu %zu %zu %zu\n", sizeof(CUfileIOEvents_t), E(cookie), E(status), E(ret));
    printf("descr %zu %zu %zu %zu\n", sizeof(CUfileDescr_t), offsetof(CUfileDescr_t, type),
           offsetof(CUfileDescr_t, handle), offsetof(CUfileDescr_t, fs_ops));
    printf("error %zu %zu %zu\n", sizeof(CUfileError_t), offsetof(CUfileError_t, err), offsetof(CUfileError_t, cu_err));
    printf("values %d %d %d %d %d %d\n", CUFILE_READ, CUFILE_WRITE, CUFILE_BATCH, CU_FILE_HANDLE_TYPE_OPAQUE_FD,
           CUFILE_CANCELED, CUFILE_COMPLETE);
    return 0;
}
"""


def wheel(part: str) -> Path:
    spec = importlib.util.find_spec("nvidia.cufile") if importlib.util.find_spec("nvidia") else None
    for root in (spec.submodule_search_locations or ()) if spec is not None else ():
        if Path(root, part).exists():
            return Path(root, part)
    pytest.skip("nvidia-cufile-cu12 is not installed")


def test_its_structures_and_signatures_are_those_of_the_header(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc)")
    tmp_path.joinpath("cuda.h").write_text("typedef int CUresult; typedef void *CUstream;\n")
    source, program = tmp_path / "check.c", tmp_path / "check"
    source.write_text(CHECK)
    library = tmp_path / "libcufile.so"
    library.symlink_to(wheel("lib/libcufile.so.0"))
    include = f"-I{wheel('include')}"
    options = ["-Werror", "-Wno-comment", "-Wl,--unresolved-symbols=ignore-all"]
    command = [
        compiler,
        *options,
        f"-I{tmp_path}",
        include,
        "-o",
        str(program),
        str(source),
        f"-L{tmp_path}",
        "-lcufile",
    ]
    subprocess.run(command, check=True, timeout=120)
    # Only its own numbers are printed: no call is made.
    found = subprocess.run(
        [program],
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
        env={"LD_LIBRARY_PATH": str(library.resolve().parent)},
    ).stdout
    lines = dict(line.split(" ", 1) for line in found.splitlines())

    def numbers(*values: int) -> str:
        return " ".join(map(str, values))

    def offsets(kind: np.dtype[np.void]) -> list[int]:
        assert kind.fields is not None
        return [kind.fields[name][1] for name in kind.names or ()]

    assert lines["params"] == numbers(IO_PARAMS.itemsize, *offsets(IO_PARAMS))
    assert lines["events"] == numbers(IO_EVENTS.itemsize, *offsets(IO_EVENTS))
    assert lines["descr"] == numbers(ctypes.sizeof(Descr), Descr.type.offset, Descr.handle.offset, Descr.fs_ops.offset)
    assert lines["error"] == numbers(ctypes.sizeof(Error), Error.err.offset, Error.cu_err.offset)
    assert lines["values"] == numbers(cufile.READ, cufile.WRITE, 1, 1, cufile.CANCELED, cufile.COMPLETE)


def test_its_error_names_are_those_of_the_header() -> None:
    text = wheel("include/cufile.h").read_text()
    entries = re.findall(r"CUFILE_OP\(CUFILEOP_BASE_ERR \+\s*(\d+),\s*(\w+),", text)
    assert {5000 + int(number): name for number, name in entries} == cufile.ERROR_NAMES


def test_nvidias_library_has_all_calls() -> None:
    CuFile(ctypes.CDLL(str(wheel("lib/libcufile.so.0"))))


def test_errors_have_names() -> None:
    assert cufile.explain(-5) == "EIO (Input/output error)"
    assert cufile.explain(-5011) == "CU_FILE_CUDA_DRIVER_ERROR (5011)"
    assert cufile.explain(5999) == "an unknown CUfileOpError (5999)"
    error = CuFileError("cuFileBufRegister", 5011, 2)
    assert str(error) == "cuFileBufRegister returned CU_FILE_CUDA_DRIVER_ERROR (5011), CUDA error 2"
    assert error.code == 5011
