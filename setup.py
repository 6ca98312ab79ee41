"""Build the native modules; everything else is in pyproject.toml.

They are Linux only. They are optional, so that the control plane installs where a compiler or UCX's headers
are missing; the test suite asserts on Linux that they were really built.
"""

import importlib.util
import sys
from pathlib import Path

from setuptools import Extension, setup

PLUGINS = "src/trunkline/backend/plugins"
FLAGS = ["-O3", "-g0", "-fno-strict-aliasing", "-Wall", "-Wno-unused-function"]


def native_extensions() -> list[Extension]:
    if not sys.platform.startswith("linux"):
        return []
    from Cython.Build import cythonize

    extensions = [_extension("cma")]
    spec = importlib.util.find_spec("libucx")
    if spec is None or not spec.submodule_search_locations:
        print("libucx is not installed: building without the UCX backend's native module", file=sys.stderr)
    else:
        root = Path(next(iter(spec.submodule_search_locations)))
        extensions.append(
            _extension(
                "ucx",
                include_dirs=[str(root / "include")],
                library_dirs=[str(root / "lib")],
                libraries=["ucp", "ucs"],
            )
        )
    return cythonize(extensions, language_level=3)


def _extension(plugin: str, **options) -> Extension:
    folder = f"{PLUGINS}/{plugin}"
    parts = sorted(str(path) for pattern in ("*.pxd", "native/*.pxi") for path in Path(folder).glob(pattern))
    return Extension(
        f"trunkline.backend.plugins.{plugin}._native",
        [f"{folder}/_native.pyx"],
        depends=parts,
        extra_compile_args=FLAGS,
        optional=True,
        **options,
    )


setup(ext_modules=native_extensions())
