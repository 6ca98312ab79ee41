"""Build the one native module; everything else is in pyproject.toml.

The module is Linux only. It is optional, so that the control plane installs where UCX's headers
are missing; the test suite asserts on Linux that it was really built.
"""

import importlib.util
import sys
from pathlib import Path

from setuptools import Extension, setup

FOLDER = "src/trunkline/backend/plugins/ucx"


def native_extensions() -> list[Extension]:
    if not sys.platform.startswith("linux"):
        return []
    spec = importlib.util.find_spec("libucx")
    if spec is None or not spec.submodule_search_locations:
        print("libucx is not installed: building without the native module", file=sys.stderr)
        return []
    from Cython.Build import cythonize

    root = Path(next(iter(spec.submodule_search_locations)))
    extension = Extension(
        "trunkline.backend.plugins.ucx._native",
        [f"{FOLDER}/_native.pyx"],
        depends=[f"{FOLDER}/ucp.pxd", *sorted(str(path) for path in Path(FOLDER, "native").glob("*.pxi"))],
        include_dirs=[str(root / "include")],
        library_dirs=[str(root / "lib")],
        libraries=["ucp", "ucs"],
        extra_compile_args=["-O3", "-g0", "-fno-strict-aliasing", "-Wall", "-Wno-unused-function"],
        optional=True,
    )
    return cythonize([extension], language_level=3)


setup(ext_modules=native_extensions())
