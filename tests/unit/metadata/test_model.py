from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.metadata.model import RemoteKeys

keys = st.lists(st.binary(max_size=6), max_size=10)


@given(keys)
def test_packed_keys_are_the_keys(listed: list[bytes]) -> None:
    packed = RemoteKeys.of(listed)
    assert list(packed) == listed
    assert len(packed) == len(listed)
    assert [packed[row] for row in range(len(listed))] == listed


@given(keys.filter(bool), st.data())
def test_take_shares_the_buffer(listed: list[bytes], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(listed) - 1), max_size=8))
    packed = RemoteKeys.of(listed)
    taken = packed.take(np.array(rows, dtype=np.intp))
    assert list(taken) == [listed[row] for row in rows]
    assert taken.data is packed.data


@given(st.lists(st.tuples(st.binary(max_size=2), st.binary(max_size=2)), max_size=10))
def test_equal_rows(pairs: list[tuple[bytes, bytes]]) -> None:
    mine, theirs = RemoteKeys.of([one for one, _ in pairs]), RemoteKeys.of([other for _, other in pairs])
    assert mine.equal_rows(theirs).tolist() == [one == other for one, other in pairs]


def test_a_row_that_is_not_there() -> None:
    with pytest.raises(IndexError):
        RemoteKeys.of([b"a"])[1]
