"""The part of etcd's gRPC interface that we speak, as protobuf message classes.

Field numbers and method names are those of etcd's public interface (``rpc.proto``, ``kv.proto``; the same in
3.4, 3.5 and 3.6). The table below is turned into classes in a private descriptor pool when this module is
imported: other etcd clients register the same names in protobuf's global pool and then can't be imported
beside each other, and generated ``_pb2`` modules are tied to one protobuf version.

Enumerations are declared ``int32``, which is the same on the wire.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "etcdserverpb"

# One message per block; a field is "[repeated] type name number [oneof]".
_TABLE = """
ResponseHeader
    uint64 cluster_id 1
    uint64 member_id 2
    int64 revision 3
    uint64 raft_term 4

KeyValue
    bytes key 1
    int64 create_revision 2
    int64 mod_revision 3
    int64 version 4
    bytes value 5
    int64 lease 6

Event
    int32 type 1
    KeyValue kv 2

RangeRequest
    bytes key 1
    bytes range_end 2
    int64 limit 3
    int64 revision 4
    bool keys_only 8

RangeResponse
    ResponseHeader header 1
    repeated KeyValue kvs 2
    bool more 3
    int64 count 4

PutRequest
    bytes key 1
    bytes value 2
    int64 lease 3

PutResponse
    ResponseHeader header 1

DeleteRangeRequest
    bytes key 1
    bytes range_end 2

DeleteRangeResponse
    ResponseHeader header 1
    int64 deleted 2

RequestOp
    RangeRequest request_range 1 request
    PutRequest request_put 2 request
    DeleteRangeRequest request_delete_range 3 request

ResponseOp
    RangeResponse response_range 1 response
    PutResponse response_put 2 response
    DeleteRangeResponse response_delete_range 3 response

Compare
    int32 result 1
    int32 target 2
    bytes key 3
    int64 create_revision 5 target_union
    int64 mod_revision 6 target_union
    int64 lease 8 target_union

TxnRequest
    repeated Compare compare 1
    repeated RequestOp success 2
    repeated RequestOp failure 3

TxnResponse
    ResponseHeader header 1
    bool succeeded 2
    repeated ResponseOp responses 3

CompactionRequest
    int64 revision 1
    bool physical 2

CompactionResponse
    ResponseHeader header 1

LeaseGrantRequest
    int64 TTL 1
    int64 ID 2

LeaseGrantResponse
    ResponseHeader header 1
    int64 ID 2
    int64 TTL 3

LeaseRevokeRequest
    int64 ID 1

LeaseRevokeResponse
    ResponseHeader header 1

LeaseKeepAliveRequest
    int64 ID 1

LeaseKeepAliveResponse
    ResponseHeader header 1
    int64 ID 2
    int64 TTL 3

LeaseTimeToLiveRequest
    int64 ID 1

LeaseTimeToLiveResponse
    ResponseHeader header 1
    int64 ID 2
    int64 TTL 3
    int64 grantedTTL 4

WatchCreateRequest
    bytes key 1
    bytes range_end 2
    int64 start_revision 3
    bool progress_notify 4
    int64 watch_id 7
    bool fragment 8

WatchCancelRequest
    int64 watch_id 1

WatchRequest
    WatchCreateRequest create_request 1 request_union
    WatchCancelRequest cancel_request 2 request_union

WatchResponse
    ResponseHeader header 1
    int64 watch_id 2
    bool created 3
    bool canceled 4
    int64 compact_revision 5
    string cancel_reason 6
    bool fragment 7
    repeated Event events 11

AuthenticateRequest
    string name 1
    string password 2

AuthenticateResponse
    ResponseHeader header 1
    string token 2

StatusRequest

StatusResponse
    ResponseHeader header 1
    string version 2
    int64 dbSize 3
    uint64 leader 4
    repeated string errors 8
"""

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _Field.TYPE_BOOL,
    "bytes": _Field.TYPE_BYTES,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "string": _Field.TYPE_STRING,
    "uint64": _Field.TYPE_UINT64,
}


def _add_field(message: Any, line: str) -> None:
    words = line.split()
    repeated = words[0] == "repeated"
    kind, name, number, *oneof = words[repeated:]
    field = message.field.add(name=name, number=int(number))
    field.label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type = _Field.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{kind}"
    if oneof:
        if not message.oneof_decl:  # no message has more than one
            message.oneof_decl.add(name=oneof[0])
        field.oneof_index = 0


def _build_classes(table: str) -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="trunkline/etcd.proto", package=_PACKAGE, syntax="proto3")
    message: Any = None
    for line in filter(None, table.splitlines()):
        if line.startswith(" "):
            _add_field(message, line)
        else:
            message = file.message_type.add(name=line)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        message.name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{message.name}"))
        for message in file.message_type
    }


_CLASSES = _build_classes(_TABLE)

Compare = _CLASSES["Compare"]
RequestOp = _CLASSES["RequestOp"]
DeleteRangeRequest = _CLASSES["DeleteRangeRequest"]
Event = _CLASSES["Event"]
KeyValue = _CLASSES["KeyValue"]


@dataclass(frozen=True, slots=True)
class Method:
    """A method of etcd's interface.

    Attributes:
        path: The gRPC path.
        request: Class of its requests.
        response: Class of its responses.
    """

    path: str
    request: Any
    response: Any

    @classmethod
    def of(cls, service: str, name: str, message: str) -> Method:
        """Describe ``service``'s method ``name``, whose messages are ``<message>Request`` and ``<message>Response``."""
        return cls(f"/{_PACKAGE}.{service}/{name}", _CLASSES[f"{message}Request"], _CLASSES[f"{message}Response"])


RANGE = Method.of("KV", "Range", "Range")
PUT = Method.of("KV", "Put", "Put")
TXN = Method.of("KV", "Txn", "Txn")
COMPACT = Method.of("KV", "Compact", "Compaction")
LEASE_GRANT = Method.of("Lease", "LeaseGrant", "LeaseGrant")
LEASE_REVOKE = Method.of("Lease", "LeaseRevoke", "LeaseRevoke")
LEASE_KEEP_ALIVE = Method.of("Lease", "LeaseKeepAlive", "LeaseKeepAlive")
LEASE_TIME_TO_LIVE = Method.of("Lease", "LeaseTimeToLive", "LeaseTimeToLive")
WATCH = Method.of("Watch", "Watch", "Watch")
AUTHENTICATE = Method.of("Auth", "Authenticate", "Authenticate")
STATUS = Method.of("Maintenance", "Status", "Status")
