"""NIXL's descriptor lists; what they do like NIXL's own is compared in tests/integration/nixl/test_api.py."""

from __future__ import annotations

import contextlib
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.errors import MetadataDecodeError
from trunkline.memory.kind import MemoryKind
from trunkline.nixl._bindings import DRAM_SEG, VRAM_SEG, nixlMismatchError, nixlRegDList, nixlRemoteDList, nixlXferDList
from trunkline.nixl.descriptor_list import DList, decode_list
from trunkline.nixl.descriptor_source import DescriptorSource

ROWS = [(1, 2, 3), (4, 5, 6)]
numbers = st.integers(0, 2**64 - 1)
triples = st.lists(st.tuples(numbers, numbers, numbers), max_size=20)
regions = st.lists(st.tuples(numbers, numbers, numbers, st.binary(max_size=12)), max_size=20)


@given(triples)
def test_a_list_comes_back_from_its_bytes(rows: list[tuple[int, int, int]]) -> None:
    descs = nixlXferDList(VRAM_SEG, rows)
    found = decode_list(descs.to_bytes())
    assert found == descs
    assert list(found) == rows
    assert found.getType() == VRAM_SEG


@given(regions)
def test_a_list_of_regions_comes_back_from_its_bytes(rows: list[tuple[int, int, int, bytes]]) -> None:
    # A segment whose end does not fit into 64 bits is refused, as in metadata.
    rows = [(address % 2**63, length % 2**63, device, meta) for address, length, device, meta in rows]
    descs = nixlRegDList(DRAM_SEG, rows)
    found = decode_list(descs.to_bytes())
    assert found == descs
    assert list(found) == rows


@pytest.mark.parametrize("descs", [nixlXferDList(DRAM_SEG, ROWS), nixlRegDList(DRAM_SEG, [(1, 2, 3, "m|m")])])
def test_bytes_that_are_cut_or_go_on_are_refused(descs: Any) -> None:
    data = descs.to_bytes()
    for size in range(len(data)):
        with pytest.raises(MetadataDecodeError):
            decode_list(data[:size])
    with pytest.raises(MetadataDecodeError):
        decode_list(data + b"x")


@given(st.binary(max_size=80), st.integers(0, 120), st.integers(0, 255))
def test_bytes_from_anywhere_are_a_list_or_refused(noise: bytes, position: int, value: int) -> None:
    mutant = bytearray(nixlRegDList(DRAM_SEG, [(1, 2, 3, b"meta"), (4, 5, 6, b"")]).to_bytes())
    mutant[position % len(mutant)] = value
    for data in (noise, b"nixlSerDes|" + noise, bytes(mutant)):
        with contextlib.suppress(MetadataDecodeError):
            assert isinstance(decode_list(data), DList)


def test_a_pickle_is_never_opened() -> None:
    source = DescriptorSource()
    with pytest.raises(nixlMismatchError, match="these descriptors are a pickle"):
        source.deserialize_descs(pickle.dumps(ROWS))
    with pytest.raises(TypeError, match="are bytes, not a list"):
        decode_list(ROWS)  # type: ignore[arg-type]


def test_the_claimed_count_allocates_nothing() -> None:
    data = nixlXferDList(DRAM_SEG, ROWS).to_bytes()
    at = data.index(b"|n\x08") + 10
    with pytest.raises(MetadataDecodeError, match="is more than"):
        decode_list(data[:at] + b"\xff" * 8 + data[at + 8 :])


@pytest.mark.parametrize("descs", [nixlXferDList(DRAM_SEG, ROWS), nixlRegDList(DRAM_SEG, [(1, 2, 3, "m")])])
def test_an_application_may_pickle_a_list_itself(descs: Any) -> None:
    assert pickle.loads(pickle.dumps(descs)) == descs


def test_bytes_of_another_list_are_not_taken_for_it() -> None:
    with pytest.raises(MetadataDecodeError, match="these bytes are a nixlRegDList, not a nixlXferDList"):
        nixlXferDList.from_bytes(nixlRegDList(DRAM_SEG).to_bytes())


def test_an_array_is_copied_and_what_is_appended_follows() -> None:
    array = np.array(ROWS, np.uint64)
    descs = nixlXferDList(DRAM_SEG, array)
    array[:] = 0
    for number in range(3):
        descs.append((number, number, number))
    assert list(descs) == [*ROWS, (0, 0, 0), (1, 1, 1), (2, 2, 2)]
    assert (descs.descCount(), descs.rows.shape, descs.kind) == (5, (5, 3), MemoryKind.DRAM)
    assert descs.rows is descs.rows
    assert (1, 1, 1) in descs
    assert (9, 9, 9) not in descs


def test_an_index_outside_is_refused_where_nixl_reads_or_writes_there() -> None:
    descs = nixlXferDList(DRAM_SEG, ROWS)
    for index in (2, -1):
        with pytest.raises(IndexError, match=f"index {index} is outside this list of 2 descriptors"):
            descs[index]
        with pytest.raises(IndexError):
            descs[index] = (1, 1, 1)
        with pytest.raises(IndexError):
            descs.remDesc(index)


def test_a_region_s_meta_moves_with_it() -> None:
    descs = nixlRegDList(DRAM_SEG, np.array(ROWS, np.uint64))
    assert [desc[3] for desc in descs] == [b"", b""]
    descs.append((7, 8, 9, "seven"))
    descs[0] = (1, 1, 1, b"one")
    descs.remDesc(1)
    assert list(descs) == [(1, 1, 1, b"one"), (7, 8, 9, b"seven")]
    descs.clear()
    assert descs.isEmpty()
    assert descs == nixlRegDList(DRAM_SEG)
    with pytest.raises(RuntimeError, match="a str or bytes"):
        descs.append((1, 1, 1, 1))


def test_a_remote_list_says_whose_each_range_is() -> None:
    descs = nixlRemoteDList(DRAM_SEG, [(1, 2, 3, "a")])
    descs.append((4, 5, 6, "b"))
    descs[0] = (7, 7, 7, "c")
    assert list(descs) == [(7, 7, 7, "c"), (4, 5, 6, "b")]
    descs.remDesc(0)
    assert descs[0] == (4, 5, 6, "b")
    descs.clear()
    assert descs.descCount() == 0
    assert nixlRemoteDList(DRAM_SEG, 2)[1] == (0, 0, 0, "")
    with pytest.raises(TypeError):
        nixlRemoteDList(DRAM_SEG, np.array(ROWS, np.uint64))


def test_printing_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    nixlXferDList(DRAM_SEG, ROWS).print()
    assert capsys.readouterr().out == "DescList of mem type 0\n(1, 2, 3)\n(4, 5, 6)\n"


class Tensor:
    """As much of a torch tensor as is asked for."""

    def __init__(self, address: int, device: int, *, contiguous: bool = True) -> None:
        self.device = device
        self._address = address
        self._contiguous = contiguous

    def is_contiguous(self) -> bool:
        return self._contiguous

    def get_device(self) -> int:
        return self.device

    def data_ptr(self) -> int:
        return self._address

    def numel(self) -> int:
        return 10

    def element_size(self) -> int:
        return 4


def test_tensors_become_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch is not installed where tests run; what is asked of a tensor is what NIXL's API asks."""
    import sys
    import types

    torch = types.SimpleNamespace(Tensor=Tensor)
    monkeypatch.setitem(sys.modules, "torch", torch)
    source = DescriptorSource()
    one = source.get_xfer_descs(Tensor(64, -1))
    assert one == nixlXferDList(DRAM_SEG, [(64, 40, 0)])
    several = source.get_reg_descs([Tensor(64, 1), Tensor(128, 1)])
    assert several == nixlRegDList(VRAM_SEG, [(64, 40, 1, ""), (128, 40, 1, "")])
    assert source.get_xfer_descs([Tensor(64, 1), Tensor(128, 0)]) is None
    assert source.get_xfer_descs([Tensor(64, 1, contiguous=False)]) is None
