from __future__ import annotations

import pytest

from trunkline.etcd import messages


def test_bytes_on_the_wire_are_etcds() -> None:
    # Written out by hand from rpc.proto: field 1 and 2 are bytes, field 8 a bool.
    request = messages.RANGE.request(key=b"a", range_end=b"b", keys_only=True)
    assert request.SerializeToString() == b"\x0a\x01a\x12\x01b\x40\x01"


def test_a_nested_response_comes_back() -> None:
    response = messages.WATCH.response(
        header={"cluster_id": 2**63, "revision": 7},
        watch_id=3,
        events=[{"type": 1, "kv": {"key": b"k", "mod_revision": 7}}],
    )
    again = messages.WATCH.response.FromString(response.SerializeToString())
    assert again == response
    assert again.header.cluster_id == 2**63
    assert again.events[0].kv.key == b"k"


def test_one_part_of_a_oneof_replaces_another() -> None:
    request = messages.WATCH.request(create_request={"key": b"k"})
    request.cancel_request.watch_id = 4
    assert request.WhichOneof("request_union") == "cancel_request"


def test_an_unset_message_is_told_from_an_empty_one() -> None:
    operation = messages.RequestOp(request_range={})
    assert operation.WhichOneof("request") == "request_range"


def test_lease_zero_is_sent_as_a_condition() -> None:
    compare = messages.Compare(target=4, key=b"k", lease=0)
    assert compare.WhichOneof("target_union") == "lease"
    assert b"\x40\x00" in compare.SerializeToString()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (messages.RANGE, "/etcdserverpb.KV/Range"),
        (messages.COMPACT, "/etcdserverpb.KV/Compact"),
        (messages.LEASE_TIME_TO_LIVE, "/etcdserverpb.Lease/LeaseTimeToLive"),
        (messages.STATUS, "/etcdserverpb.Maintenance/Status"),
    ],
)
def test_paths(method: messages.Method, path: str) -> None:
    assert method.path == path


def test_names_stay_out_of_protobufs_global_pool() -> None:
    from google.protobuf import descriptor_pool

    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("etcdserverpb.RangeRequest")
