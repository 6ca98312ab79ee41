"""Trunkline's agent as an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from trunkline.agent.agent import Agent
from trunkline.agent.side import PreparedSide, prepare_side, prepare_transfer
from trunkline.backend.registry import create_backend
from trunkline.bench.coordinator import TTL
from trunkline.transfer.state import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trunkline.backend.contract import Backend, Operation
    from trunkline.bench.options import Options
    from trunkline.memory.descriptor import DescriptorList
    from trunkline.store.contract import Store
    from trunkline.transfer.handle import TransferHandle


class TrunklineRequest:
    """A transfer handle."""

    __slots__ = ("_handle",)

    def __init__(self, handle: TransferHandle) -> None:
        self._handle = handle

    def post(self) -> None:
        self._handle.post()

    def poll(self) -> bool:
        state = self._handle.poll()
        if not state.is_quiet:
            return False
        if state is not State.DONE:
            self._handle.wait(0)  # raises the reason
        return True

    def wait(self, timeout: float) -> None:
        self._handle.wait(timeout)


class Sides(NamedTuple):
    """Both sides of a transfer, looked up."""

    near: PreparedSide
    far: PreparedSide


class TrunklineMessenger:
    """What any engine does with an agent of ours.

    Args:
        agent: Closed with this.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def notify(self, peer: str, payload: bytes) -> None:
        self._agent.notify(peer, payload)

    def wait_notification(self, timeout: float) -> bytes:
        return self._agent.wait_notification(timeout=timeout).payload

    def rest(self) -> None:
        """Nothing: the agent's progress thread sleeps when nothing is to be done."""

    def wake(self) -> None:
        """Nothing."""

    def close(self) -> None:
        self._agent.close(drain=0)


class TrunklineEngine(TrunklineMessenger):
    """An agent with one backend, and for CMA the UCX that it needs beside it.

    Args:
        name: The agent's name.
        store: Where agents find each other; None if they are handed each other's cards.
        namespace: The run's own corner of the store.
        options: The run's.
    """

    name = "trunkline"

    def __init__(self, name: str, store: Store | None, namespace: str, options: Options) -> None:
        self._backend = options.backend
        super().__init__(open_agent(name, store, namespace, options))
        self._has_store = store is not None

    def register(self, descriptors: DescriptorList, keys: Sequence[str] = ()) -> None:
        self._agent.register(descriptors, keys=keys)

    def deregister(self, descriptors: DescriptorList) -> None:
        self._agent.deregister(descriptors, drain=0)

    def publish(self) -> bytes:
        if not self._has_store:
            return self._agent.card()
        self._agent.publish()
        return b""

    def load(self, name: str, handed: bytes, timeout: float) -> None:
        if name == self._agent.name:
            return
        peer = self._agent.load_peer(handed) if handed else self._agent.fetch(name, timeout=timeout)
        peer.connect(timeout)

    def match(self, peer: str, near: DescriptorList, far: DescriptorList) -> Sides:
        engine = self._agent.engine
        return Sides(prepare_side(engine, near), prepare_side(engine, far, self._agent.peer(peer).target))

    def prepare(self, operation: Operation, sides: Sides) -> TrunklineRequest:
        return TrunklineRequest(
            prepare_transfer(self._agent.engine, operation, sides.near, sides.far, backends=(self._backend,))
        )

    def transport(self, peer: str) -> str:
        link = self._agent.peer(peer).target.links.get(self._backend)
        return ", ".join(link.transports if link is not None else ()) or self._backend.lower()


def open_agent(name: str, store: Store | None, namespace: str, options: Options) -> Agent:
    """Open an agent with a run's backend; arguments as for :class:`TrunklineEngine`."""
    return Agent(
        name,
        store="" if store is None else store,
        namespace=namespace,
        backends=open_backends(name, options),
        ttl=TTL,  # a run that was killed is in the next one's way that long
        timeout=options.timeout,
    )


def open_backends(agent_name: str, options: Options) -> list[Backend]:
    """Open a run's backend, and what it needs beside it.

    Raises:
        BackendUnavailableError: One can't be used here.
        ConfigurationError: It refuses its options.
    """
    if options.backend not in ("UCX", "CMA"):
        return [create_backend(options.backend, agent_name, **_backend_options(options))]
    devices = None if options.device_list == "all" else options.device_list
    ucx = create_backend("ucx", agent_name, devices=devices)
    if options.backend == "UCX":
        return [ucx]
    try:
        return [ucx, create_backend("cma", agent_name)]
    except BaseException:
        ucx.close()
        raise


def _backend_options(options: Options) -> dict[str, Any]:
    if options.backend == "GDS":
        return {"batch_pool_size": options.gds_batch_pool_size, "batch_limit": options.gds_batch_limit}
    if options.backend == "GDS_MT":
        return {"thread_count": options.gds_mt_num_threads}
    if options.backend == "OBJ":
        given = {
            "bucket": options.obj_bucket_name,
            "access_key": options.obj_access_key,
            "secret_key": options.obj_secret_key,
            "session_token": options.obj_session_token,
            "scheme": options.obj_scheme,
            "region": options.obj_region,
            "endpoint_override": options.obj_endpoint_override,
            "use_virtual_addressing": options.obj_use_virtual_addressing,
            "req_checksum": options.obj_req_checksum,
            "ca_bundle": options.obj_ca_bundle,
        }
        return {name: value for name, value in given.items() if value not in ("", False)}
    return {}
