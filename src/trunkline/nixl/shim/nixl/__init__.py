"""``nixl`` for programs written for NVIDIA's package: Trunkline's API of the same form.

``trunkline as-nixl`` and ``trunkline nixl-path`` put the directory above on a program's path.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

_REAL = ("nixl_cu12", "nixl_cu13")
_SUBMODULES = ("_bindings", "_utils", "logging", "_api")

_loaded = [_name for _name in _REAL if _name in sys.modules]
if _loaded:
    raise ImportError(
        f"NVIDIA's {_loaded[0]} is loaded in this process already, and its UCX and Trunkline's don't get along: use "
        "one of the two in a process, or take Trunkline's directory out of PYTHONPATH",
        name="nixl",
    )
try:
    importlib.import_module("trunkline.nixl")
except ModuleNotFoundError as _error:
    if _error.name not in ("trunkline", "trunkline.nixl"):
        raise
    raise ImportError(
        f"Trunkline's nixl is on the path of {sys.executable}, which has no Trunkline: install it there too, or take "
        "its directory out of PYTHONPATH",
        name="nixl",
    ) from _error

# The very modules, so that there is one class of each name in the process. Their names are the package's too.
for _name in _SUBMODULES:
    _module = importlib.import_module(f"trunkline.nixl.{_name}")
    sys.modules[f"nixl.{_name}"] = _module
    globals()[_name] = _module
    _found = {name: value for name, value in vars(_module).items() if not name.startswith("_")}
    globals().update({name: value for name, value in _found.items() if not isinstance(value, ModuleType)})

from trunkline.nixl import *  # noqa: E402, F403
from trunkline.nixl import __all__ as __all__  # noqa: E402
