"""Hypothesis strategies for Trunkline's values; import it in tests only (it needs ``hypothesis``)."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import strategies as st

from trunkline.memory.descriptor import DescriptorList
from trunkline.memory.dtype import DTYPES
from trunkline.memory.kind import MemoryKind
from trunkline.metadata.card import Card
from trunkline.metadata.catalog import Catalog, TensorEntry
from trunkline.metadata.key import is_agent_name
from trunkline.metadata.model import AgentMetadata, RemoteKeys, SectionMetadata

if TYPE_CHECKING:
    from numpy.typing import NDArray

kinds = st.sampled_from(MemoryKind)
"""Kinds of memory."""

agent_names = st.text(min_size=1, max_size=20).filter(is_agent_name)
"""Names an agent can have."""

backend_names = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=8)
"""Names of backends."""

_DEVICES = st.integers(0, 2) | st.integers(0, 2**64 - 1)


@st.composite
def segments(draw: st.DrawFn, *, min_size: int = 1, max_size: int = 12) -> NDArray[np.uint64]:
    """Draw checked plain rows, shape (N, 3), from anywhere in the address space."""
    rows = []
    for _ in range(draw(st.integers(min_size, max_size))):
        length = draw(st.integers(1, 64) | st.integers(1, 2**63 - 1))
        rows.append((draw(st.integers(0, 2**64 - 1 - length)), length, draw(_DEVICES)))
    return np.array(rows, dtype=np.uint64).reshape(-1, 3)


@st.composite
def neighbours(draw: st.DrawFn, *, max_size: int = 12) -> NDArray[np.uint64]:
    """Draw plain rows, shape (N, 3), many of which begin where the one before ends."""
    rows, end = [], 1000
    steps = st.tuples(st.sampled_from((0, 0, 0, 1, -1)), st.integers(1, 9), st.sampled_from((0, 0, 0, 1)))
    for gap, length, device in draw(st.lists(steps, min_size=1, max_size=max_size)):
        rows.append((end + gap, length, device))
        end += gap + length
    return np.array(rows, dtype=np.uint64)


@st.composite
def strided_lists(draw: st.DrawFn, *, max_size: int = 6) -> DescriptorList:
    """Draw strided lists, with up to 5 blocks in each row."""
    rows = []
    for _ in range(draw(st.integers(1, max_size))):
        length, count = draw(st.integers(1, 100)), draw(st.integers(1, 5))
        stride = draw(st.integers(length if count > 1 else 0, 1000))
        end = (count - 1) * stride + length
        address = draw(st.integers(0, 10_000) | st.just(2**64 - 1 - end))
        rows.append((address, length, draw(_DEVICES), stride, count))
    return DescriptorList.of(draw(kinds), rows)


@st.composite
def _sections(draw: st.DrawFn, backend: str, kind: MemoryKind) -> SectionMetadata:
    rows = draw(segments())
    size = draw(st.just(st.integers(0, 40)) | st.integers(0, 40).map(st.just))  # of keys: various, or all the same
    keys = [draw(size.flatmap(lambda n: st.binary(min_size=n, max_size=n))) for _ in rows]
    return SectionMetadata(backend, kind, rows, RemoteKeys.of(keys))


@st.composite
def agent_metadata(draw: st.DrawFn) -> AgentMetadata:
    """Draw metadata, full or partial, of several backends."""
    connections = draw(st.dictionaries(backend_names, st.binary(min_size=1, max_size=64), max_size=3))
    owners = draw(st.lists(st.tuples(backend_names, kinds), max_size=4, unique=True))
    sections = tuple(draw(_sections(backend, kind)) for backend, kind in owners)
    return AgentMetadata(draw(agent_names), connections, sections)


@st.composite
def catalogs(draw: st.DrawFn) -> Catalog:
    """Draw catalogs of up to 5 tensors and 2 groups."""
    dtypes = st.sampled_from([name for name, element in DTYPES.items() if element.bits >= 8])
    names = draw(st.lists(st.text(min_size=1, max_size=8), max_size=7, unique=True).filter(_is_encodable))
    entries = []
    for name in names[2:]:
        dtype = draw(st.none() | dtypes)
        shape = tuple(draw(st.lists(st.integers(1, 9), max_size=4)))
        nbytes = prod(shape) * (1 if dtype is None else DTYPES[dtype].bits // 8)
        address = draw(st.integers(0, 2**64 - 1 - nbytes))
        entries.append(TensorEntry(name, draw(kinds), dtype, shape, address, nbytes, draw(_DEVICES)))
    members = st.lists(st.sampled_from(names[2:]), min_size=1, unique=True).map(tuple) if entries else st.nothing()
    groups = {name: draw(members) for name in names[:2]} if entries else {}
    return Catalog(tuple(entries), groups)


def _is_encodable(names: list[str]) -> bool:
    return "".join(names).isprintable()


@st.composite
def cards(draw: st.DrawFn) -> Card:
    """Draw cards with any bytes as metadata and catalog."""
    return Card(
        agent=draw(agent_names),
        incarnation=draw(st.integers(0, 2**128 - 1).map("{:032x}".format)),
        metadata=draw(st.binary(max_size=64)),
        catalog=draw(st.none() | st.binary(max_size=64)),
        attributes=draw(
            st.dictionaries(st.text("ab-", min_size=1, max_size=4), st.text("xyz", max_size=4), max_size=3)
        ),
    )
