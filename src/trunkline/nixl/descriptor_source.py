"""What a ``nixl_agent`` takes as descriptors: lists of tuples, arrays, tensors."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from trunkline.nixl.descriptor_list import DList, decode_list, nixlRegDList, nixlRemoteDList, nixlXferDList
from trunkline.nixl.enumeration import nixl_mem_t
from trunkline.nixl.exception import nixlMismatchError, translated
from trunkline.nixl.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Sequence

    L = TypeVar("L", bound=DList)

log = get_logger("api")

KINDS = {
    "DRAM": nixl_mem_t.DRAM_SEG,
    "VRAM": nixl_mem_t.VRAM_SEG,
    "FILE": nixl_mem_t.FILE_SEG,
    "BLOCK": nixl_mem_t.BLK_SEG,
    "OBJ": nixl_mem_t.OBJ_SEG,
    "cpu": nixl_mem_t.DRAM_SEG,
    "cuda": nixl_mem_t.VRAM_SEG,
}
"""Kinds of memory by the names that calls take; the last two are NIXL's old ones."""


class DescriptorSource:
    """What ``nixl_agent`` inherits. As in NIXL, what can't be used gives None and a line in the log."""

    nixl_mems = KINDS

    def get_xfer_descs(self, descs: Any, mem_type: str | None = None) -> nixlXferDList | None:
        """Return descriptors for a transfer.

        Args:
            descs: A list of (address, length, device), an N×3 array of them (uint64 or int64), a contiguous tensor, a
                list of such on one device, or a nixlXferDList, which is returned itself.
            mem_type: The kind of memory; not needed for tensors and lists of NIXL's.
        """
        return self._list_of(descs, mem_type, nixlXferDList, 3)

    def get_reg_descs(self, descs: Any, mem_type: str | None = None) -> nixlRegDList | None:
        """Return descriptors to register memory by; as :meth:`get_xfer_descs`, but tuples have a fourth element,
        text or bytes.
        """
        return self._list_of(descs, mem_type, nixlRegDList, 4)

    def get_remote_descs(
        self, descs: nixlRemoteDList | Sequence[tuple[Any, ...]], mem_type: str | None = None
    ) -> nixlRemoteDList | None:
        """Return descriptors of several agents' memory, from a list of (address, length, device, agent)."""
        if isinstance(descs, nixlRemoteDList):
            return descs
        return self._of_tuples(descs, mem_type, nixlRemoteDList, 4) if isinstance(descs[0], tuple) else None

    def get_serialized_descs(self, descs: nixlXferDList | nixlRegDList) -> bytes:
        """Return a descriptor list as bytes: NIXL's container, not a pickle as with NIXL."""
        return descs.to_bytes()

    @translated
    def deserialize_descs(self, serialized_descs: bytes) -> nixlXferDList | nixlRegDList:
        """Return the list that :meth:`get_serialized_descs` wrote.

        Raises:
            nixlMismatchError: The bytes are anything else; a pickle, as NIXL's own agents send, is never opened.
        """
        if bytes(serialized_descs[:1]) == b"\x80":
            raise nixlMismatchError(
                "these descriptors are a pickle, as NIXL's own get_serialized_descs makes; Trunkline opens none, since "
                "a pickle can run any code: send an N×3 array, or what the list's __getstate__() returns"
            )
        return decode_list(serialized_descs)

    def _list_of(self, descs: Any, mem_type: str | None, kind: type[L], width: int) -> L | None:
        if isinstance(descs, kind):
            return descs
        if isinstance(descs, DList):
            log.error("a %s is needed here, not a %s", kind.__name__, type(descs).__name__)
            return None
        if _is_tensor(descs):
            return self._of_tensors([descs], kind)
        if isinstance(descs[0], tuple):
            return self._of_tuples(descs, mem_type, kind, width)
        if isinstance(descs, np.ndarray):
            if mem_type is None:
                log.error("give the mem_type of an array of descriptors")
            elif descs.ndim == 2 and descs.shape[1] == 3:
                return kind(self.nixl_mems[mem_type], descs)
            else:
                log.error("an array of descriptors has the shape N×3, not %s", descs.shape)
            return None
        return self._of_tensors(descs, kind) if _is_tensor(descs[0]) else None

    def _of_tuples(self, descs: Any, mem_type: str | None, kind: type[L], width: int) -> L | None:
        if mem_type is None:
            log.error("give the mem_type of a list of descriptors")
        elif len(descs[0]) == width:
            return kind(self.nixl_mems[mem_type], list(descs))
        else:
            log.error("a %s is made of tuples of %d, not of %d", kind.__name__, width, len(descs[0]))
        return None

    def _of_tensors(self, tensors: Sequence[Any], kind: type[L]) -> L | None:
        if any(tensor.device != tensors[0].device for tensor in tensors):
            return None
        if not all(tensor.is_contiguous() for tensor in tensors):
            log.error("tensors must be contiguous")
            return None
        device = tensors[0].get_device()  # -1 for the host's memory
        rows = [(tensor.data_ptr(), tensor.numel() * tensor.element_size(), max(device, 0)) for tensor in tensors]
        return kind(self.nixl_mems["DRAM" if device == -1 else "VRAM"], np.array(rows, np.uint64))


def _is_tensor(value: object) -> bool:
    """Whether it is a torch tensor: then torch was imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)
