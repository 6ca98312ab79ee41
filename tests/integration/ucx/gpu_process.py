"""Registers arrays that say they are memory of GPUs, and prints what the agent's metadata says of them."""

from __future__ import annotations

import ctypes
import json
from types import SimpleNamespace
from typing import Any

import numpy as np

from trunkline import Agent
from trunkline.memory import dlpack
from trunkline.metadata.codec import decode

new_capsule = ctypes.pythonapi.PyCapsule_New
new_capsule.restype = ctypes.py_object
new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class Exported:
    """An array known by DLPack alone, as JAX's are."""

    def __init__(self, address: int, device_type: int, device: int) -> None:
        self._tensor = dlpack._Tensor(
            data=address, device_type=device_type, device_id=device, ndim=1, code=2, bits=32, lanes=1
        )
        self._tensor.shape = (ctypes.c_int64 * 1)(256)
        self._device = (device_type, device)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device

    def __dlpack__(self) -> Any:
        return new_capsule(ctypes.addressof(self._tensor), b"dltensor", None)


class Tensor:
    """What Trunkline looks at of a torch tensor."""

    dtype = "torch.float16"
    shape = (512,)

    def __init__(self, address: int, device: int) -> None:
        self._address = address
        self.device = SimpleNamespace(type="cuda", index=device)

    def data_ptr(self) -> int:
        return self._address

    def element_size(self) -> int:
        return 2

    def is_contiguous(self) -> bool:
        return True


def cuda_array(address: int) -> Any:
    interface = {"version": 3, "shape": (128, 2), "typestr": "<f4", "data": (address, False), "strides": None}
    return SimpleNamespace(__cuda_array_interface__=interface)


def main() -> None:
    with Agent("gpu", store="", devices="lo") as agent:
        host = np.zeros(64, np.uint8)
        agent.register(host, name="host")
        agent.register(cuda_array(0x7F0000000000), name="numba")
        agent.register(Exported(0x7F0000100000, 2, 3), name="jax")
        agent.register(Exported(0x7F0000200000, 13, 1), name="managed")
        layers: dict[str, Any] = {"0": Tensor(0x7F0000300000, 2), "1": Tensor(0x7F0000400000, 5)}
        agent.register(layers, name="torch")
        pinned = np.zeros(256, np.float32)
        agent.register(Exported(pinned.ctypes.data, 3, 0), name="pinned")
        sections = {
            section.kind.name: sorted(section.segments.tolist()) for section in decode(agent.local_metadata()).sections
        }
        print(json.dumps({"host": host.ctypes.data, "pinned": pinned.ctypes.data, "sections": sections}))


main()
