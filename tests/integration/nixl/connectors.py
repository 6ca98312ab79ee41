"""What clients' connectors call on NIXL, in their order and with their arguments, over the host's memory.

Each class is one worker; the methods that tests call take and return what JSON can carry.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from trunkline.nixl import _api
from trunkline.nixl._api import nixl_agent_config, nixl_thread_sync_t
from trunkline.nixl._bindings import nixlBackendError, nixlCancelledError, nixlRemoteDisconnectError

if TYPE_CHECKING:
    from numpy.typing import NDArray

nixl_agent: Any = _api.nixl_agent
"""Clients check no types."""

PATIENCE = 30.0
REGIONS = 48
"""Of each worker's cache: keys and values of 24 layers."""
BLOCKS = 64
BLOCK = 1024


class Cache:
    """A paged KV cache: one region for each layer's keys and values, all of equal blocks."""

    def __init__(self) -> None:
        self.regions = [np.zeros((BLOCKS, BLOCK), np.uint8) for _ in range(REGIONS)]

    @property
    def bases(self) -> list[int]:
        return [int(region.ctypes.data) for region in self.regions]

    def fill(self, seed: int) -> None:
        for number, region in enumerate(self.regions):
            region[:] = content(seed, number)


def content(seed: int, region: int) -> NDArray[np.uint8]:
    """Return what a region holds that was filled with a seed."""
    return np.random.default_rng([seed, region]).integers(0, 256, (BLOCKS, BLOCK), np.uint8)


def block_rows(bases: list[int]) -> NDArray[np.uint64]:
    """One row for each block of each region, region by region."""
    rows = np.empty((len(bases), BLOCKS, 3), np.uint64)
    rows[:, :, 0] = np.array(bases, np.uint64)[:, None] + np.arange(BLOCKS, dtype=np.uint64) * np.uint64(BLOCK)
    rows[:, :, 1:] = BLOCK, 0
    return rows.reshape(-1, 3)


class VllmWorker:
    """vLLM's NixlConnectorWorker: the decoder reads blocks, and tells the producer with the last of them."""

    def __init__(self, name: str) -> None:
        self.cache = Cache()
        self.wrapper = nixl_agent(name, nixl_agent_config(num_threads=4, capture_telemetry=True))
        caches = [(base, BLOCKS * BLOCK, 0, "") for base in self.cache.bases]
        self.registered = self.wrapper.get_reg_descs(caches, "DRAM")
        self.wrapper.register_memory(self.registered, backends=["UCX"])
        self.local = self.wrapper.prep_xfer_dlist("NIXL_INIT_AGENT", self._descs(self.cache.bases))
        self.remotes: dict[str, tuple[Any, Any]] = {}

    def _descs(self, bases: list[int]) -> Any:
        return self.wrapper.get_xfer_descs(block_rows(bases), "DRAM")

    def fill(self, seed: int) -> None:
        self.cache.fill(seed)

    def handshake_metadata(self) -> list[Any]:
        return [self.wrapper.get_agent_metadata().hex(), self.cache.bases]

    def add_remote(self, engine: str, metadata: str, bases: list[int]) -> None:
        name = self.wrapper.add_remote_agent(bytes.fromhex(metadata))
        self.remotes[engine] = name, self.wrapper.prep_xfer_dlist(name, self._descs(bases))

    def read_blocks(self, engine: str, local: list[int], remote: list[int], request: str) -> list[int]:
        """Read some blocks of every region; return the telemetry's bytes and descriptors."""
        wrapper, (name, side) = self.wrapper, self.remotes[engine]
        message = f"{request}:1".encode()
        if not local:
            wrapper.send_notif(name, notif_msg=message)
            return [0, 0]
        local_ids, remote_ids = (
            np.concatenate([np.array(blocks) + region * BLOCKS for region in range(REGIONS)])
            for blocks in (local, remote)
        )
        handle = wrapper.make_prepped_xfer("READ", self.local, local_ids, side, remote_ids, notif_msg=message)
        wrapper.transfer(handle)
        pending = [handle]
        end = time.monotonic() + PATIENCE
        while pending and time.monotonic() < end:  # as get_finished, once a step
            for each in pending[:]:
                state = wrapper.check_xfer_state(each)
                if state == "PROC":
                    continue
                assert state == "DONE", state
                figures = wrapper.get_xfer_telemetry(each)
                assert figures.xferDuration > 0
                assert figures.postDuration >= 0
                wrapper.release_xfer_handle(each)
                pending.remove(each)
        assert not pending
        return [int(figures.totalBytes), int(figures.descCount)]

    def take_done_requests(self, count: int) -> list[str]:
        found: list[str] = []
        end = time.monotonic() + PATIENCE
        while len(found) < count and time.monotonic() < end:
            for messages in self.wrapper.get_new_notifs().values():
                found += [message.decode("utf-8").rsplit(":", 1)[0] for message in messages]
        return found

    def shut_down(self) -> None:
        self.wrapper.release_dlist_handle(self.local)
        for name, side in self.remotes.values():
            self.wrapper.release_dlist_handle(side)
            self.wrapper.remove_remote_agent(name)
        self.remotes.clear()
        self.wrapper.deregister_memory(self.registered)


class SglangManager:
    """SGLang's NixlKVManager: the prefiller writes pages, chunk by chunk, and tells the decoder with each."""

    def __init__(self, name: str) -> None:
        self.cache = Cache()
        config = nixl_agent_config(backends=[], sync_mode=nixl_thread_sync_t.NIXL_THREAD_SYNC_STRICT)
        self.agent = nixl_agent(name, config)
        self.agent.create_backend("UCX", {})
        assert "UCX" in self.agent.backends
        self.kv_descs = self.agent.register_memory([(base, BLOCKS * BLOCK, 0, "") for base in self.cache.bases], "DRAM")
        assert self.kv_descs
        self.aux = np.zeros((16, 64), np.uint8)
        self.aux_descs = self.agent.register_memory([(self.aux.ctypes.data, self.aux.nbytes, 0, "")], "DRAM")
        self.sides: dict[str, Any] = {}
        self.local = self._side("", self.cache.bases)

    def _side(self, peer: str, bases: list[int]) -> Any:
        rows = np.array([(base, BLOCK, 0, BLOCK, BLOCKS) for base in bases], np.uint64)
        return self.agent.prep_xfer_dlist(peer, rows, "DRAM")

    def fill(self, seed: int) -> None:
        self.cache.fill(seed)
        self.aux[:] = seed

    def registration(self) -> list[Any]:
        return [self.agent.name, self.agent.get_agent_metadata().hex(), self.cache.bases, int(self.aux.ctypes.data)]

    def add_peer(self, name: str, metadata: str, bases: list[int]) -> None:
        self.agent.add_remote_agent(bytes.fromhex(metadata))
        assert self.agent.check_remote_metadata(name)
        self.sides[name] = self._side(name, bases)

    def send_chunks(self, peer: str, chunks: list[list[list[int]]], aux: int, room: int) -> list[str]:
        """Write chunks of pages, then the auxiliary data; return the states in which they ended."""
        handles = []
        try:
            for number, (source, target) in enumerate(chunks):
                pages = [
                    (np.arange(REGIONS)[:, None] * BLOCKS + np.array(part)).ravel().astype(np.int32)
                    for part in (source, target)
                ]
                message = f"{room}_kv_{number}_{int(number == len(chunks) - 1)}"
                handle = self.agent.make_prepped_xfer(
                    "WRITE", self.local, pages[0], self.sides[peer], pages[1], message.encode("ascii")
                )
                assert self.agent.transfer(handle) != "ERR"
                handles.append(handle)
            near, far = (
                self.agent.get_xfer_descs([(base, 64, 0)], "DRAM") for base in (int(self.aux.ctypes.data), aux)
            )
            last = self.agent.initialize_xfer("WRITE", near, far, peer, f"{room}_aux".encode("ascii"))
            assert self.agent.transfer(last) != "ERR"
            handles.append(last)
            states = ["PROC"]
            end = time.monotonic() + PATIENCE
            while "PROC" in states and time.monotonic() < end:
                states = [self.agent.check_xfer_state(handle) for handle in handles]
        except (nixlBackendError, nixlCancelledError, nixlRemoteDisconnectError) as error:
            return [type(error).__name__]
        for handle in handles:
            self.agent.release_xfer_handle(handle)
        return states

    def take_messages(self, peer: str, count: int) -> list[str]:
        found: list[str] = []
        end = time.monotonic() + PATIENCE
        while len(found) < count and time.monotonic() < end:
            found += [message.decode("ascii") for message in self.agent.get_new_notifs().get(peer, [])]
        return found

    def shut_down(self) -> None:
        for descs in (self.kv_descs, self.aux_descs):
            self.agent.deregister_memory(descs)


class DynamoConnection:
    """Dynamo's nixl_connect: no config, everything by keyword, notifications taken out of the agent's own dict."""

    def __init__(self, name: str) -> None:
        self.memory = np.zeros(4096, np.uint8)
        self.nixl = nixl_agent(name)
        self.handle = self.nixl.register_memory([(int(self.memory.ctypes.data), 4096, 0, "")], "DRAM")

    def descriptor(self) -> list[Any]:
        return [self.nixl.name, self.nixl.get_agent_metadata().hex(), int(self.memory.ctypes.data)]

    def fill(self, seed: int) -> None:
        self.memory[:] = seed

    def read(self, name: str, metadata: str, address: int, key: str) -> Any:
        added = self.nixl.add_remote_agent(bytes.fromhex(metadata))
        remote_name = added.decode("utf-8") if isinstance(added, bytes) else added
        assert remote_name == name
        local = self.nixl.get_xfer_descs(descs=[(int(self.memory.ctypes.data), 4096, 0)], mem_type="DRAM")
        remote = self.nixl.get_xfer_descs(descs=[(address, 4096, 0)], mem_type="DRAM")
        handle = self.nixl.initialize_xfer(
            operation="READ", local_descs=local, remote_descs=remote, remote_agent=remote_name, notif_msg=key.encode()
        )
        state = self.nixl.transfer(handle, key.encode())
        end = time.monotonic() + PATIENCE
        while state == "PROC" and time.monotonic() < end:
            state = self.nixl.check_xfer_state(handle)
        self.nixl.release_xfer_handle(handle)
        self.nixl.remove_remote_agent(remote_name)
        return str(state)

    def wait_for(self, name: str, key: str) -> list[str]:
        """Wait for a message, take it out, and return what is left."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            notifs = self.nixl.update_notifs()
            if key.encode() in notifs.get(name, []):
                notifs[name].remove(key.encode())
                break
        return [message.decode() for message in self.nixl.update_notifs().get(name, [])]

    def shut_down(self) -> None:
        self.nixl.deregister_memory(self.handle)


class RayTransport:
    """Ray's tensor transport: descriptors travel serialised, and an agent that is known is added again."""

    def __init__(self, name: str) -> None:
        self.agent = nixl_agent(name, nixl_agent_config(backends=["UCX"]))
        self.tensors: list[NDArray[np.uint8]] = []

    def put(self, seed: int) -> list[str]:
        """Register one more tensor; return its descriptors and the agent's metadata."""
        tensor = np.full(4096, seed, np.uint8)
        self.tensors.append(tensor)
        self.agent.register_memory([(int(tensor.ctypes.data), tensor.nbytes, 0, "")], mem_type="cpu")
        descs = self.agent.get_xfer_descs([(int(tensor.ctypes.data), tensor.nbytes, 0)], mem_type="cpu")
        assert descs is not None
        return [self.agent.get_serialized_descs(descs).hex(), self.agent.get_agent_metadata().hex()]

    def get(self, serialised: str, metadata: str) -> int:
        """Fetch a tensor; return its value."""
        remote = self.agent.deserialize_descs(bytes.fromhex(serialised))
        name = self.agent.add_remote_agent(bytes.fromhex(metadata))
        assert remote.descCount() == 1
        _, length, _ = remote[0]
        tensor = np.zeros(length, np.uint8)
        mine = self.agent.register_memory([(int(tensor.ctypes.data), length, 0, "")], mem_type="cpu")
        local = mine.trim()
        handle = self.agent.initialize_xfer("READ", local, remote, name.decode(), b"")
        state = self.agent.transfer(handle)
        end = time.monotonic() + PATIENCE
        while state == "PROC" and time.monotonic() < end:
            state = self.agent.check_xfer_state(handle)
        assert state == "DONE", state
        self.agent.release_xfer_handle(handle)
        self.agent.deregister_memory(mine)
        (value,) = set(tensor.tolist())
        return int(value)


class LmcacheChannel:
    """LMCache's NIXL channel: one buffer each, cut into chunks; indices are lists."""

    def __init__(self, name: str) -> None:
        self.memory = np.zeros((32, 512), np.uint8)
        self.agent = nixl_agent(name, nixl_agent_config(backends=["UCX"]))
        base = int(self.memory.ctypes.data)
        descs = self.agent.get_reg_descs([(base, self.memory.nbytes, 0, "")], mem_type="cpu")
        self.agent.register_memory(descs)
        self.chunks = self.agent.get_xfer_descs([(base + row * 512, 512, 0) for row in range(32)], mem_type="cpu")
        self.local = self.agent.prep_xfer_dlist("", self.chunks, mem_type="cpu")
        self.remote: Any = None

    def metadata(self) -> list[str]:
        assert self.chunks is not None
        return [self.agent.get_agent_metadata().hex(), self.agent.get_serialized_descs(self.chunks).hex()]

    def fill(self, seed: int) -> None:
        self.memory[:] = np.arange(32)[:, None] + seed

    def connect(self, metadata: str, serialised: str) -> None:
        name = self.agent.add_remote_agent(bytes.fromhex(metadata))
        self.remote = self.agent.prep_xfer_dlist(name, self.agent.deserialize_descs(bytes.fromhex(serialised)))

    def put(self, local: list[int], remote: list[int]) -> Any:
        handle = self.agent.make_prepped_xfer("WRITE", self.local, local, self.remote, remote)
        self.agent.transfer(handle)
        state = "PROC"
        end = time.monotonic() + PATIENCE
        while state == "PROC" and time.monotonic() < end:
            state = self.agent.check_xfer_state(handle)
        self.agent.release_xfer_handle(handle)
        return state
