"""An agent's memory and objects on a real S3 server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline import Agent, MemoryKind, StoredObject
from trunkline.errors import MemoryInUseError, TransferCancelledError, TransferDeadlineError, TransferError
from trunkline.nixl._api import nixl_agent, nixl_agent_config
from trunkline.testing.link import bytes_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trunkline.testing.proxy import HttpProxy
    from trunkline.testing.s3 import S3Server

MIB = 1 << 20


MIB = 1 << 20


@pytest.fixture
def agent(s3: S3Server, bucket: str, s3_proxy: HttpProxy) -> Iterator[Agent]:
    with Agent("a", store="", devices="lo") as agent:
        agent.create_backend("object", bucket=bucket, **s3.options(endpoint=s3_proxy.endpoint))
        yield agent


def test_writes_an_object_and_reads_ranges_of_it(agent: Agent, s3: S3Server, bucket: str) -> None:
    data, back = bytes_of(20 * MIB, 1), np.zeros(20 * MIB, np.uint8)
    memory, result = agent.register(data), agent.register(back)
    stored = agent.register(StoredObject("kv/block", data.nbytes))
    handle = agent.write(memory, to=stored).wait()
    assert handle.telemetry.backend == "OBJ"
    assert s3.client().get_object(Bucket=bucket, Key="kv/block")["Body"].read() == data.tobytes()
    agent.read(stored, into=result).wait()
    np.testing.assert_array_equal(back, data)
    found, missing = agent.query(["kv/block", "kv/other"], kind=MemoryKind.OBJECT)
    assert found is not None
    assert found["size"] == str(data.nbytes)
    assert missing is None


def test_what_the_store_refuses_is_in_the_error(agent: Agent, bucket: str) -> None:
    memory, stored = agent.register(np.zeros(100, np.uint8)), agent.register(StoredObject("none", 100))
    with pytest.raises(TransferError, match=rf"READ of bytes 0 to 99 of s3://{bucket}/none failed: HTTP 404"):
        agent.read(stored, into=memory).wait()


def test_a_deadline_and_a_cancel_end_a_transfer_with_a_store_that_hangs(
    agent: Agent, s3_proxy: HttpProxy, s3: S3Server, bucket: str
) -> None:
    s3.client().put_object(Bucket=bucket, Key="k", Body=b"x" * 100)
    data = np.zeros(100, np.uint8)
    memory, stored = agent.register(data), agent.register(StoredObject("k", 100))
    s3_proxy.is_stalled = True
    with pytest.raises(TransferDeadlineError):
        agent.read(stored, into=memory, deadline=0.2).wait(20)
    handle = agent.read(stored, into=memory)
    with pytest.raises(MemoryInUseError):
        agent.deregister(memory, timeout=0)
    handle.cancel()
    with pytest.raises(TransferCancelledError):
        handle.wait(20)
    assert not data.any()
    s3_proxy.is_stalled = False
    agent.read(stored, into=memory).wait()
    assert data.tobytes() == b"x" * 100


def test_nixl_s_api_moves_objects(s3: S3Server, bucket: str, s3_proxy: HttpProxy) -> None:
    agent = nixl_agent("n", nixl_agent_config(backends=[]))
    params = {
        "bucket": bucket,
        "endpoint_override": s3_proxy.endpoint.removeprefix("http://"),
        "scheme": "http",
        "access_key": s3.access_key_id,
        "secret_key": s3.secret_access_key,
        "use_virtual_addressing": "false",
        "req_checksum": "required",
        "num_threads": "4",
    }
    agent.create_backend("OBJ", params)
    data, back = bytes_of(1000, 1), np.zeros(1000, np.uint8)
    descs = agent.register_memory([(data.ctypes.data, 1000, 0, ""), (back.ctypes.data, 1000, 0, "")], "DRAM")
    objects = agent.register_memory([(0, 1000, 5, "named"), (0, 1000, 6, "")], "OBJ")
    assert descs
    assert objects
    far = agent.get_xfer_descs([(0, 1000, 5), (0, 1000, 6)], "OBJ")
    near = agent.get_xfer_descs([(data.ctypes.data, 1000, 0)] * 2, "DRAM")
    for operation, local in (
        ("WRITE", near),
        ("READ", agent.get_xfer_descs([(back.ctypes.data, 1000, 0)] * 2, "DRAM")),
    ):
        assert local is not None
        assert far is not None
        handle = agent.initialize_xfer(operation, local, far, "n")
        agent.transfer(handle)
        while (state := agent.check_xfer_state(handle)) == "PROC":
            pass
        assert state == "DONE"
    np.testing.assert_array_equal(back, data)
    for key in ("named", "6"):
        assert s3.client().get_object(Bucket=bucket, Key=key)["Body"].read() == data.tobytes()
    asked = agent.query_memory([(0, 0, 0, "named"), (0, 0, 0, "other")], "OBJ", "OBJ")
    assert asked[0] is not None
    assert asked[0]["size"] == "1000"
    assert asked[1] is None
    agent.close()
