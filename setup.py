"""Build the native modules; everything else is in pyproject.toml.

They are Linux only. They are optional, so that the control plane installs where a compiler or UCX's headers
are missing; the test suite asserts on Linux that they were really built.
"""

import importlib.util
import sys
from pathlib import Path

from setuptools import Extension, setup

PLUGINS = "src/trunkline/backend/plugins"
ARGUMENTS = ["-O3", "-g0", "-fno-strict-aliasing", "-Wall", "-Wno-unused-function"]


def extension(plugin: str, **options: list[str]) -> Extension:
    folder = Path(PLUGINS, plugin)
    return Extension(
        f"trunkline.backend.plugins.{plugin}._native",
        [f"{folder}/_native.pyx"],
        depends=sorted(str(path) for pattern in ("*.pxd", "native/*.pxi", "../*.pxi") for path in folder.glob(pattern)),
        extra_compile_args=ARGUMENTS,
        **options,
    )


def native_extensions() -> list[Extension]:
    if not sys.platform.startswith("linux"):
        return []
    from Cython.Build import cythonize

    extensions = [extension("cma"), extension("posix")]
    spec = importlib.util.find_spec("libucx")
    if spec is None or not spec.submodule_search_locations:
        print("libucx is not installed: building without the native module for UCX", file=sys.stderr)
    else:
        root = Path(next(iter(spec.submodule_search_locations)))
        extensions.append(
            extension(
                "ucx",
                include_dirs=[str(root / "include")],
                library_dirs=[str(root / "lib")],
                libraries=["ucp", "ucs"],
            )
        )
    made = cythonize(extensions, language_level=3)
    for each in made:
        each.optional = True  # cythonize makes new ones, without this
    return made


setup(ext_modules=native_extensions())
