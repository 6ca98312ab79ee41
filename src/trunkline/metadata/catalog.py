"""The catalog: which tensors an agent offers, by name. A JSON value beside the metadata.

Trunkline's own; NIXL's agents neither write nor read it. Fields a reader does not know are ignored; a catalog
whose ``min_reader`` is newer than :data:`FORMAT` is refused.
"""

from __future__ import annotations

from math import prod
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from trunkline.errors import ConfigurationError, MetadataDecodeError
from trunkline.memory.dtype import DTYPES
from trunkline.memory.kind import MemoryKind  # noqa: TC001 -- msgspec reads the annotations

FORMAT = 1
"""The format written, and the newest ``min_reader`` that is understood."""

MAX_BYTES = 256 << 20
"""The largest encoded catalog that is read."""

MAX_TENSORS = 1_000_000

TensorName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=1024)]
# Bounds in msgspec end at 2^63 - 1; that of Uint64 is checked by _flaw.
Natural: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Uint64: TypeAlias = Annotated[int, Meta(ge=0)]


class TensorEntry(msgspec.Struct, frozen=True):
    """One tensor, C-contiguous in one segment.

    Attributes:
        name: Unique in the catalog.
        kind: Kind of memory.
        dtype: safetensors' name of the element type, or None for bytes without a type.
        shape: Elements along each axis, at most 64 axes, none of them empty.
        address: Address of the first element.
        nbytes: Size in bytes.
        device: Device number.
    """

    name: TensorName
    kind: MemoryKind
    dtype: str | None
    shape: Annotated[tuple[Natural, ...], Meta(max_length=64)]
    address: Uint64
    nbytes: Natural
    device: Uint64


class Catalog(msgspec.Struct, frozen=True):
    """What an agent offers.

    Attributes:
        tensors: All tensors, at most ``MAX_TENSORS``.
        groups: Tensor names by name of the group, in the group's order; its name is no tensor's.
    """

    tensors: Annotated[tuple[TensorEntry, ...], Meta(max_length=MAX_TENSORS)] = ()
    groups: Annotated[
        dict[TensorName, Annotated[tuple[TensorName, ...], Meta(min_length=1, max_length=MAX_TENSORS)]],
        Meta(max_length=MAX_TENSORS),
    ] = {}


class _Record(Catalog, frozen=True, kw_only=True):
    format: Natural
    min_reader: Natural


class _Version(msgspec.Struct):
    min_reader: Natural


# Made with the module, as those of presence records are.
_VERSION = msgspec.json.Decoder(_Version)
_RECORD = msgspec.json.Decoder(_Record)


def item_bits(dtype: str | None) -> int:
    """Return the size of one element in bits; bytes without a type (None) count as elements of one byte."""
    return 8 if dtype is None else DTYPES[dtype].bits


def encode_catalog(catalog: Catalog) -> bytes:
    """Return the catalog as JSON.

    Raises:
        ConfigurationError: It is not one that :func:`decode_catalog` would take; the message says why.
    """
    record = _Record(catalog.tensors, catalog.groups, format=FORMAT, min_reader=FORMAT)
    try:
        data = msgspec.json.encode(record)
        decode_catalog(data)
    except (MetadataDecodeError, UnicodeEncodeError) as error:
        raise ConfigurationError(f"these tensors can't be offered: {error}") from error
    return data


def decode_catalog(data: bytes) -> Catalog:
    """Return the catalog that :func:`encode_catalog` wrote.

    Raises:
        MetadataDecodeError: Larger than ``MAX_BYTES``, not such JSON, for newer readers only, a name that occurs
            twice or stands for nothing, an unknown dtype, or a tensor whose size, shape and place don't fit.
    """
    if len(data) > MAX_BYTES:
        raise MetadataDecodeError(f"catalog of {len(data)} bytes: at most {MAX_BYTES} are read", field="size")
    try:
        version = _VERSION.decode(data)
        if version.min_reader > FORMAT:
            raise MetadataDecodeError(
                f"the catalog is for readers of format {version.min_reader} and up; this is {FORMAT}: update trunkline",
                field="min_reader",
            )
        record = _RECORD.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MetadataDecodeError(f"bad catalog: {error}", field="catalog") from error
    _check(record)
    return Catalog(record.tensors, record.groups)


def _check(catalog: Catalog) -> None:
    names = {entry.name for entry in catalog.tensors}
    if len(names) != len(catalog.tensors):
        raise MetadataDecodeError("bad catalog: two tensors have one name", field="name")
    for entry in catalog.tensors:
        flaw = _flaw(entry)
        if flaw is not None:
            raise MetadataDecodeError(f"bad catalog: tensor {entry.name!r} {flaw}", field=entry.name)
    for group, members in catalog.groups.items():
        if group in names:
            raise MetadataDecodeError(f"bad catalog: {group!r} is both a group and a tensor", field=group)
        if not names.issuperset(members) or len(set(members)) != len(members):
            raise MetadataDecodeError(f"bad catalog: group {group!r} names a tensor twice or none", field=group)


def _flaw(entry: TensorEntry) -> str | None:
    """Return what is wrong with a tensor, or None."""
    if entry.dtype is not None and entry.dtype not in DTYPES:
        return f"has the unknown dtype {entry.dtype[:32]!r}"
    if prod(entry.shape) * item_bits(entry.dtype) != entry.nbytes * 8 or not entry.nbytes:
        return f"has {entry.nbytes} bytes, which does not fit shape {entry.shape} of {entry.dtype or 'bytes'}"
    if entry.address + entry.nbytes >= 2**64 or entry.device >= 2**64:
        return f"lies at no possible place: address {entry.address}, device {entry.device}"
    return None
