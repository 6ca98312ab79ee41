"""NIXL's enumerations. They behave as pybind11's do: members have a name and a value, are no integers but convert to
them, and some compare equal to them.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, Self, SupportsIndex

DEFAULT_COMM_PORT = 8888
"""The port of NIXL's listener, if none is given."""

NIXL_INIT_AGENT = ""
"""Stands for the local side in ``prepXferDlist``."""


class BoundEnum:
    """Base of the enumerations; a class's members are given where it is made.

    Args:
        value: Any integer; one that no member has makes an object without a name, as in NIXL.
    """

    __slots__ = ("_value",)

    __members__: ClassVar[dict[str, Any]]
    _equals_integers: ClassVar[bool]

    def __init_subclass__(cls, *, members: dict[str, int], equals_integers: bool = True) -> None:
        cls._equals_integers = equals_integers
        cls.__members__ = {name: cls(value) for name, value in members.items()}
        for name, member in cls.__members__.items():
            setattr(cls, name, member)

    def __init__(self, value: SupportsIndex) -> None:
        if not isinstance(value, SupportsIndex):
            raise TypeError(f"{type(self).__name__}() takes an integer, not a {type(value).__name__}")
        self._value = value.__index__()

    @property
    def name(self) -> str:
        """The member's name, or ``???``."""
        return next((name for name, member in self.__members__.items() if member.value == self._value), "???")

    @property
    def value(self) -> int:
        return self._value

    def __int__(self) -> int:
        return self._value

    def __index__(self) -> int:
        return self._value

    def __eq__(self, other: object) -> bool:
        if type(other) is type(self):
            return self._value == other._value
        if not self._equals_integers:
            return False
        return isinstance(other, SupportsIndex) and self._value == other.__index__()

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> tuple[type[Self], tuple[int]]:
        return type(self), (self._value,)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}.{self.name}: {self._value}>"

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


class nixl_mem_t(BoundEnum, members={"DRAM_SEG": 0, "VRAM_SEG": 1, "BLK_SEG": 2, "OBJ_SEG": 3, "FILE_SEG": 4}):
    """Kinds of memory."""

    DRAM_SEG: ClassVar[nixl_mem_t]
    VRAM_SEG: ClassVar[nixl_mem_t]
    BLK_SEG: ClassVar[nixl_mem_t]
    OBJ_SEG: ClassVar[nixl_mem_t]
    FILE_SEG: ClassVar[nixl_mem_t]


class nixl_xfer_op_t(BoundEnum, members={"NIXL_READ": 0, "NIXL_WRITE": 1}):
    """What a transfer does with the remote side."""

    NIXL_READ: ClassVar[nixl_xfer_op_t]
    NIXL_WRITE: ClassVar[nixl_xfer_op_t]


class nixl_status_t(
    BoundEnum,
    members={
        "NIXL_IN_PROG": 1,
        "NIXL_SUCCESS": 0,
        "NIXL_ERR_NOT_POSTED": -1,
        "NIXL_ERR_INVALID_PARAM": -2,
        "NIXL_ERR_BACKEND": -3,
        "NIXL_ERR_NOT_FOUND": -4,
        "NIXL_ERR_MISMATCH": -5,
        "NIXL_ERR_NOT_ALLOWED": -6,
        "NIXL_ERR_REPOST_ACTIVE": -7,
        "NIXL_ERR_UNKNOWN": -8,
        "NIXL_ERR_NOT_SUPPORTED": -9,
    },
):
    """What a call of the low-level agent returns; errors are raised instead, with few exceptions."""

    NIXL_IN_PROG: ClassVar[nixl_status_t]
    NIXL_SUCCESS: ClassVar[nixl_status_t]
    NIXL_ERR_NOT_POSTED: ClassVar[nixl_status_t]
    NIXL_ERR_INVALID_PARAM: ClassVar[nixl_status_t]
    NIXL_ERR_BACKEND: ClassVar[nixl_status_t]
    NIXL_ERR_NOT_FOUND: ClassVar[nixl_status_t]
    NIXL_ERR_MISMATCH: ClassVar[nixl_status_t]
    NIXL_ERR_NOT_ALLOWED: ClassVar[nixl_status_t]
    NIXL_ERR_REPOST_ACTIVE: ClassVar[nixl_status_t]
    NIXL_ERR_UNKNOWN: ClassVar[nixl_status_t]
    NIXL_ERR_NOT_SUPPORTED: ClassVar[nixl_status_t]


class nixl_thread_sync_t(
    BoundEnum,
    members={"NIXL_THREAD_SYNC_NONE": 0, "NIXL_THREAD_SYNC_STRICT": 1, "NIXL_THREAD_SYNC_RW": 2},
    equals_integers=False,
):
    """How NIXL's agent is locked. Trunkline's may be used from any thread whatever is chosen."""

    NIXL_THREAD_SYNC_NONE: ClassVar[nixl_thread_sync_t]
    NIXL_THREAD_SYNC_STRICT: ClassVar[nixl_thread_sync_t]
    NIXL_THREAD_SYNC_RW: ClassVar[nixl_thread_sync_t]
    NIXL_THREAD_SYNC_DEFAULT: ClassVar[nixl_thread_sync_t]


nixl_thread_sync_t.NIXL_THREAD_SYNC_DEFAULT = nixl_thread_sync_t.NIXL_THREAD_SYNC_NONE


class nixl_cost_t(BoundEnum, members={"NIXL_COST_ANALYTICAL_BACKEND": 0}, equals_integers=False):
    """How a cost was estimated."""

    NIXL_COST_ANALYTICAL_BACKEND: ClassVar[nixl_cost_t]


NIXL_SUCCESS: Final = nixl_status_t.NIXL_SUCCESS
NIXL_IN_PROG: Final = nixl_status_t.NIXL_IN_PROG
