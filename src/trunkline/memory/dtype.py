"""Element types, named as in safetensors."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ElementType:
    """One element type.

    Attributes:
        bits: Size of an element.
        alias: What numpy, ml_dtypes and torch call it; None where they have no such elements.
        is_numpy: Whether plain numpy has it (``np.dtype(alias)`` works).
    """

    bits: int
    alias: str | None = None
    is_numpy: bool = False


DTYPES = {
    "BOOL": ElementType(8, "bool", is_numpy=True),
    "F4": ElementType(4),
    "F6_E2M3": ElementType(6),
    "F6_E3M2": ElementType(6),
    "U8": ElementType(8, "uint8", is_numpy=True),
    "I8": ElementType(8, "int8", is_numpy=True),
    "F8_E5M2": ElementType(8, "float8_e5m2"),
    "F8_E4M3": ElementType(8, "float8_e4m3fn"),
    "F8_E8M0": ElementType(8, "float8_e8m0fnu"),
    "F8_E4M3FNUZ": ElementType(8, "float8_e4m3fnuz"),
    "F8_E5M2FNUZ": ElementType(8, "float8_e5m2fnuz"),
    "I16": ElementType(16, "int16", is_numpy=True),
    "U16": ElementType(16, "uint16", is_numpy=True),
    "F16": ElementType(16, "float16", is_numpy=True),
    "BF16": ElementType(16, "bfloat16"),
    "I32": ElementType(32, "int32", is_numpy=True),
    "U32": ElementType(32, "uint32", is_numpy=True),
    "F32": ElementType(32, "float32", is_numpy=True),
    "C64": ElementType(64, "complex64", is_numpy=True),
    "F64": ElementType(64, "float64", is_numpy=True),
    "I64": ElementType(64, "int64", is_numpy=True),
    "U64": ElementType(64, "uint64", is_numpy=True),
}
"""The element types of safetensors 0.8 (its ``Dtype``), by name."""

NAME_OF_ALIAS = {element.alias: name for name, element in DTYPES.items() if element.alias is not None}
"""safetensors' name by numpy's, ml_dtypes' and torch's."""
