from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trunkline.etcd import request


def test_prefix_end() -> None:
    assert request.prefix_end(b"/a/") == b"/a0"
    assert request.prefix_end(b"a\xff\xff") == b"b"
    assert request.prefix_end(b"\xff") == b"\0"  # all keys
    assert request.prefix_end(b"") == b"\0"


@given(st.binary(min_size=1, max_size=4), st.binary(max_size=6))
def test_a_range_holds_exactly_the_keys_with_the_prefix(prefix: bytes, key: bytes) -> None:
    end = request.prefix_end(prefix)
    assert (prefix <= key and (end == b"\0" or key < end)) == key.startswith(prefix)


def test_conditions() -> None:
    assert request.absent(b"k").create_revision == 0
    assert request.absent(b"k").target == 1
    assert request.revision_is(b"k", 5).mod_revision == 5
    assert request.lease_is(b"k", 9).lease == 9


def test_operations() -> None:
    assert request.put(b"k", b"v", lease=3).request_put.lease == 3
    assert request.delete(b"k", b"l").request_delete_range.range_end == b"l"
    assert request.read(b"k").request_range.key == b"k"
