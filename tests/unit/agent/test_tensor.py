from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.agent.tensor import LocalTensor, RemoteTensor, TensorGroup, as_views, pair_views
from trunkline.errors import ShapeMismatchError, UnsupportedBufferError
from trunkline.memory.kind import MemoryKind


def local(shape: tuple[int, ...], *, address: int = 4096, **changes: Any) -> LocalTensor:
    return LocalTensor(**{**fields(shape), "address": address, **changes})


def remote(shape: tuple[int, ...], *, address: int = 1 << 20, **changes: Any) -> RemoteTensor:
    return RemoteTensor(**{**fields(shape), "address": address, "agent": "prefill-0", **changes})


def fields(shape: tuple[int, ...]) -> dict[str, Any]:
    return {
        "name": "kv",
        "agent": "decode-0",
        "kind": MemoryKind.DRAM,
        "device": 0,
        "dtype": "I32",
        "shape": shape,
        "item_bits": 32,
    }


INDEX = st.one_of(
    st.integers(-6, 6),
    st.slices(7),
    st.lists(st.integers(-7, 6), min_size=1, max_size=9),
    st.lists(st.booleans(), min_size=7, max_size=7).map(np.array),
)


@given(st.lists(INDEX, min_size=1, max_size=3))
def test_a_view_stands_for_the_same_elements_as_numpy(indices: list[Any]) -> None:
    array = np.arange(7 * 5 * 3, dtype=np.int32).reshape(7, 5, 3)
    view, expected = local((7, 5, 3), address=0), array
    for index in indices:
        try:
            picked = expected[index]
        except IndexError:
            with pytest.raises(IndexError):
                view[index]
            return
        if picked.size == 0:
            with pytest.raises(IndexError, match="empty selection"):
                view[index]
            return
        if expected.ndim == 0:
            return
        view, expected = view[index], picked
    assert view.shape == expected.shape
    assert view.nbytes == expected.nbytes
    flat = array.tobytes()
    moved = b"".join(flat[int(a) : int(a) + int(n)] for a, n, _ in view.descriptors())
    assert moved == expected.tobytes()


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (7, "row 7 is out of range"),
        ([0, 9], "row 9 is out of range"),
        ([0, -8], "row -8 is out of range"),
        ([[0], [1]], "one-dimensional"),
        ([0.5], "by integers"),
        ([], "empty selection"),
        (slice(3, 3), "empty selection"),
        (np.array([True]), "a mask of 1 for the 7 rows"),
        ((0, 1), "along its leading axis"),
        ("x", "along its leading axis"),
        (None, "along its leading axis"),
    ],
)
def test_bad_indices(index: Any, message: str) -> None:
    with pytest.raises(IndexError, match=message):
        local((7, 2))[index]


def test_a_scalar_has_no_axis() -> None:
    with pytest.raises(IndexError, match="no axis"):
        local(())[0]
    with pytest.raises(TypeError):
        len(local(()))


def test_contiguous_views_are_one_block_each() -> None:
    near, far = pair_views({"": local((8, 4))[2:6]}, {"": remote((8, 4))[0:4]})
    assert near.rows.tolist() == [[4096 + 2 * 16, 64, 0]]
    assert far.rows.tolist() == [[1 << 20, 64, 0]]


def test_a_scattered_side_breaks_the_other_into_rows() -> None:
    near, far = pair_views({"": local((2, 4))}, {"": remote((8, 4))[[5, 1]]})
    assert near.rows[:, 0].tolist() == [4096, 4096 + 16]
    assert far.rows[:, 0].tolist() == [(1 << 20) + 80, (1 << 20) + 16]


def test_a_group_selects_the_same_rows_of_every_member() -> None:
    group = TensorGroup("kv", {"0": local((8, 4)), "1": local((8, 2), address=8192)})
    picked = group[[1, 3]]
    assert [view.shape for _, view in picked.items()] == [(2, 4), (2, 2)]
    assert picked["1"].descriptors()[:, 0].tolist() == [8192 + 8, 8192 + 24]
    assert group.nbytes == 8 * 16 + 8 * 8
    with pytest.raises(KeyError, match="no member '2'"):
        group["2"]


def test_a_group_of_different_lengths_can_be_taken_whole_only() -> None:
    group = TensorGroup("state", {"weight": local((8, 4)), "bias": local((3,), address=8192)})
    with pytest.raises(ShapeMismatchError, match="leading axes"):
        group[0]
    near, _ = pair_views(dict(group.items()), {"weight": remote((8, 4)), "bias": remote((3,), address=1 << 21)})
    assert len(near) == 2


@pytest.mark.parametrize(
    "other",
    [remote((8, 5)), remote((7, 4)), remote((8, 4), dtype="F32"), remote((8, 4), dtype="F16", item_bits=16)],
)
def test_shape_and_dtype_must_fit(other: RemoteTensor) -> None:
    with pytest.raises(ShapeMismatchError, match="don't fit"):
        pair_views({"": local((8, 4))}, {"": other})


def test_members_must_be_the_same() -> None:
    with pytest.raises(ShapeMismatchError, match="different members"):
        pair_views({"a": local((8, 4))}, {"b": remote((8, 4))})


@pytest.mark.parametrize("side", [np.zeros((2, 2)), [1, 2], b"bytes", None])
def test_what_is_no_view_is_refused_by_name(side: Any) -> None:
    with pytest.raises(UnsupportedBufferError, match="index what register\\(\\) returned"):
        as_views(side, LocalTensor, "into")


def test_the_wrong_side_is_refused() -> None:
    with pytest.raises(UnsupportedBufferError, match="must be a view of this agent's registered memory, not Remote"):
        as_views(remote((2,)), LocalTensor, "into")
    with pytest.raises(UnsupportedBufferError, match="must be a view of a peer's memory"):
        as_views(TensorGroup("kv", {"0": local((2,))}), RemoteTensor, "the remote side")


def test_members_of_groups_pair_by_name_in_whatever_order() -> None:
    mine = {"k": local((4,), address=4096), "v": local((4,), address=8192)}
    theirs = {"v": remote((4,), address=1 << 21), "k": remote((4,), address=1 << 20)}
    near, far = pair_views(mine, theirs)
    assert [row[0] for row in near] == [4096, 8192]
    assert [row[0] for row in far] == [1 << 20, 1 << 21]


def test_rows_that_start_within_a_byte_are_not_indexed() -> None:
    view = local((4, 3), dtype="F4", item_bits=4)
    assert view.nbytes == 6
    assert len(view.descriptors()) == 1
    for index in (1, slice(1, 3), [0, 2]):
        with pytest.raises(IndexError, match="whole bytes"):
            view[index].descriptors()
