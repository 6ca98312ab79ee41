"""``nixl_agent``, NIXL's Python API: names for numbers, lists of all sorts for descriptor lists, strings for states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trunkline.nixl import _bindings, enumeration
from trunkline.nixl.agent_config import nixlAgentConfig
from trunkline.nixl.config import nixl_agent_config, nixl_thread_sync_t
from trunkline.nixl.descriptor_list import nixlRegDList, nixlRemoteDList, nixlXferDList
from trunkline.nixl.descriptor_source import DescriptorSource
from trunkline.nixl.enumeration import DEFAULT_COMM_PORT, NIXL_IN_PROG, NIXL_INIT_AGENT, NIXL_SUCCESS
from trunkline.nixl.exception import nixlBackendError, nixlNotFoundError
from trunkline.nixl.handle import nixl_prepped_dlist_handle, nixl_xfer_handle
from trunkline.nixl.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from trunkline.agent.agent import Agent
    from trunkline.nixl.telemetry import nixlXferTelemetry

log = get_logger("api")

nixl_backend_handle = int

_THREAD_PARAMS = {
    "UCX": "num_threads",
    "OBJ": "num_threads",
    "LIBFABRIC": "num_threads",
    "GDS_MT": "thread_count",
    "UCCL": "num_cpus",
}
"""What backends call the number of threads."""


class nixl_agent(DescriptorSource):
    """An agent with NIXL's Python API. Any thread may call any method.

    Its exceptions have NIXL's names and are in ``trunkline.nixl._bindings``; for an unknown backend it is KeyError. It
    ends when its last reference goes, or with :meth:`close`.

    Args:
        agent_name: Unique among the agents that meet.
        nixl_conf: How it is made; UCX alone, if not given.
        instantiate_all: Whether to open all backends that are installed; only without ``nixl_conf``.

    Attributes:
        agent: The low-level agent.
        name: Its name.
        notifs: What :meth:`update_notifs` has gathered.
        backends: The numbers of the open backends, by name.
    """

    nixl_ops = {  # noqa: RUF012 - never changed
        "WRITE": enumeration.nixl_xfer_op_t.NIXL_WRITE,
        "READ": enumeration.nixl_xfer_op_t.NIXL_READ,
    }

    def __init__(
        self, agent_name: str, nixl_conf: nixl_agent_config | None = None, instantiate_all: bool = False
    ) -> None:
        if nixl_conf and instantiate_all:
            log.warning("instantiate_all is ignored beside a config, which says which backends there are")
        wanted = nixl_conf or nixl_agent_config()
        config = nixlAgentConfig(wanted.enable_pthread, wanted.enable_listen, wanted.port)
        default = "NIXL_THREAD_SYNC_STRICT" if wanted.enable_listen else "NIXL_THREAD_SYNC_NONE"
        config.syncMode = (wanted.sync_mode or nixl_thread_sync_t[default]).value
        config.captureTelemetry = wanted.capture_telemetry
        self.agent = _bindings.nixlAgent(agent_name, config)  # looked up late: tests of others put their own there
        self.name = agent_name
        self.notifs: dict[str, list[bytes]] = {}
        self.backends: dict[str, nixl_backend_handle] = {}
        self.backend_mems: dict[str, list[str]] = {}
        self.backend_options: dict[str, dict[str, str]] = {}
        self.plugin_list = self.agent.getAvailPlugins()
        takes_all = instantiate_all and nixl_conf is None
        for backend in self.plugin_list if takes_all else wanted.backends:
            if backend not in self.plugin_list:
                log.warning("backend %s is left out: there is no such plugin", backend)
                continue
            threads = {_THREAD_PARAMS[backend]: str(wanted.num_threads)} if backend in _THREAD_PARAMS else {}
            try:
                self.create_backend(backend, threads if wanted.num_threads > 0 else {})
            except nixlBackendError as error:
                if not takes_all:
                    raise
                log.warning("backend %s is left out: %s", backend, error)
        log.debug("agent %s is open, with %s", agent_name, ", ".join(self.backends) or "no backend")

    @property
    def trunkline(self) -> Agent:
        """Trunkline's agent behind it: for what NIXL's API lacks, such as calls that wait or raise."""
        return self.agent.trunkline

    def close(self) -> None:
        """End the agent now. Not in NIXL's API. Idempotent."""
        self.agent.close()

    # -- backends ----------------------------------------------------------------------------------------------

    def get_plugin_list(self) -> list[str]:
        """Return the names of the backends that are installed; some may need what this machine lacks."""
        return self.plugin_list

    def get_plugin_mem_types(self, backend: str) -> list[str]:
        """Return the kinds of memory that a plugin is for; none for one that is not there."""
        return self._plugin(backend)[1]

    def get_plugin_params(self, backend: str) -> dict[str, str]:
        """Return the parameters that a plugin takes, with their defaults; none for one that is not there."""
        return self._plugin(backend)[0]

    def get_backend_mem_types(self, backend: str) -> list[str]:
        """Return the kinds of memory that an open backend takes; none for one that is not open."""
        if backend not in self.backend_mems:
            log.warning("backend %s is not open: it has no memory types", backend)
        return self.backend_mems.get(backend, [])

    def get_backend_params(self, backend: str) -> dict[str, str]:
        """Return the parameters that a backend was opened with; none for one that is not open."""
        if backend not in self.backend_options:
            log.warning("backend %s is not open: it has no parameters", backend)
        return self.backend_options.get(backend, {})

    def create_backend(self, backend: str, initParams: Mapping[str, str] | None = None) -> None:
        """Open a backend; see ``nixlAgent.createBackend``."""
        number = self.agent.createBackend(backend, initParams or {})
        self.backends[backend] = number
        self.backend_options[backend], self.backend_mems[backend] = self.agent.getBackendParams(number)

    # -- memory ------------------------------------------------------------------------------------------------

    def register_memory(self, reg_list: Any, mem_type: str | None = None, backends: Sequence[str] = ()) -> nixlRegDList:
        """Register memory, and return its descriptors, for :meth:`deregister_memory`.

        Args:
            reg_list: As for ``get_reg_descs``.
            mem_type: As for ``get_reg_descs``.
            backends: Names that must be open ones; all that take this kind of memory get it.
        """
        descs = self.get_reg_descs(reg_list, mem_type)
        self.agent.registerMem(descs, self._numbers(backends))  # type: ignore[arg-type] # None is refused there
        assert descs is not None
        return descs

    def deregister_memory(self, dereg_list: nixlRegDList, backends: Sequence[str] = ()) -> None:
        """Deregister memory, registered in one call or in several."""
        self.agent.deregisterMem(dereg_list, self._numbers(backends))

    def query_memory(self, reg_list: Any, backend: str, mem_type: str | None = None) -> list[dict[str, str] | None]:
        """Ask a backend about files or objects.

        Raises:
            ValueError: The backend is not open.
            nixlNotSupportedError: It is not one for files or objects.
        """
        descs = self.get_reg_descs(reg_list, mem_type)
        if backend not in self.backends:
            raise ValueError(f"Backend {backend!r} not found. Available backends: {list(self.backends)}")
        return self.agent.queryMem(descs, self.backends[backend])  # type: ignore[arg-type] # as above

    def make_connection(self, remote_agent: str | bytes, backends: Sequence[str] = ()) -> None:
        """Connect to a loaded agent now, so that the first transfer needn't."""
        self.agent.makeConnection(remote_agent, self._numbers(backends))

    # -- transfers ---------------------------------------------------------------------------------------------

    def prep_xfer_dlist(
        self, agent_name: str | bytes, xfer_list: Any, mem_type: str | None = None, backends: Sequence[str] = ()
    ) -> nixl_prepped_dlist_handle:
        """Prepare one side of transfers, to make them from its blocks by number.

        Args:
            agent_name: ``"NIXL_INIT_AGENT"`` or ``""`` for the local side; a peer's name, or this agent's own for
                transfers within it, for the remote side.
            xfer_list: As for ``get_xfer_descs``; or an N×5 array of address, length, device, stride and count, whose
                rows stand for ``count`` blocks each.
            mem_type: Needed for arrays and tuples.
            backends: Names that must be open ones.

        Raises:
            ValueError: An N×5 array without ``mem_type``.
        """
        name = NIXL_INIT_AGENT if agent_name == "NIXL_INIT_AGENT" else agent_name
        numbers = self._numbers(backends)
        if isinstance(xfer_list, np.ndarray) and xfer_list.ndim == 2 and xfer_list.shape[1] == 5:
            if mem_type is None:
                raise ValueError("Please specify a mem type for strided descriptors")
            number = self.agent.prepXferDlist(name, self.nixl_mems[mem_type], xfer_list, numbers)
        else:
            number = self.agent.prepXferDlist(name, self.get_xfer_descs(xfer_list, mem_type), numbers)
        return nixl_prepped_dlist_handle(self.agent, number)

    def make_prepped_xfer(
        self,
        operation: str,
        local_xfer_side: nixl_prepped_dlist_handle,
        local_indices: Sequence[int] | NDArray[Any],
        remote_xfer_side: nixl_prepped_dlist_handle,
        remote_indices: Sequence[int] | NDArray[Any],
        notif_msg: bytes | str = b"",
        backends: Sequence[str] = (),
        skip_desc_merge: bool = False,
    ) -> nixl_xfer_handle:
        """Make a transfer of blocks of two prepared sides.

        Args:
            operation: ``"READ"`` or ``"WRITE"``.
            local_xfer_side: The local side.
            local_indices: Which blocks of it; any integers.
            remote_xfer_side: The remote side.
            remote_indices: As many of it.
            notif_msg: What the peer is told once the data is there.
            backends: Names that must be open ones.
            skip_desc_merge: Has an effect on ``descCount`` in the telemetry only: neighbours are always merged.
        """
        number = self.agent.makeXferReq(
            self.nixl_ops[operation],
            local_xfer_side._handle,  # noqa: SLF001 - the handle is this class's own
            local_indices,
            remote_xfer_side._handle,  # noqa: SLF001
            remote_indices,
            notif_msg,
            self._numbers(backends),
            skip_desc_merge,
        )
        return nixl_xfer_handle(self.agent, number)

    def initialize_xfer(
        self,
        operation: str,
        local_descs: nixlXferDList,
        remote_descs: nixlXferDList,
        remote_agent: str | bytes,
        notif_msg: bytes | str = b"",
        backends: Sequence[str] = (),
    ) -> nixl_xfer_handle:
        """Make a transfer between two lists; a peer's, or with this agent's own name within it."""
        number = self.agent.createXferReq(
            self.nixl_ops[operation], local_descs, remote_descs, remote_agent, notif_msg, self._numbers(backends)
        )
        return nixl_xfer_handle(self.agent, number)

    def transfer(self, handle: nixl_xfer_handle, notif_msg: bytes | str = b"") -> str:
        """Start a transfer, or start it again; return ``"DONE"`` or ``"PROC"``. What went wrong is raised.

        Args:
            handle: The transfer.
            notif_msg: Replaces the message that it has, for later rounds too.
        """
        return _state(self.agent.postXferReq(handle._handle, notif_msg))  # noqa: SLF001

    def check_xfer_state(self, handle: nixl_xfer_handle) -> str:
        """Return ``"DONE"`` or ``"PROC"``. What went wrong is raised."""
        return "DONE" if self.agent.getXferStatus(handle._handle) is NIXL_SUCCESS else "PROC"  # noqa: SLF001

    def get_xfer_telemetry(self, handle: nixl_xfer_handle) -> nixlXferTelemetry:
        """Return what the last round of a transfer cost."""
        return self.agent.getXferTelemetry(handle._handle)  # noqa: SLF001

    def estimate_xfer_cost(self, req_handle: nixl_xfer_handle) -> tuple[int, int, str]:
        """Return (duration in microseconds, error, method); see ``nixlAgent.estimateXferCost``."""
        duration, margin, method = self.agent.estimateXferCost(req_handle._handle)  # noqa: SLF001
        is_known = method == enumeration.nixl_cost_t.NIXL_COST_ANALYTICAL_BACKEND.value
        return duration, margin, "ANALYTICAL_BACKEND" if is_known else "UNKNOWN"

    def query_xfer_backend(self, handle: nixl_xfer_handle) -> str:
        """Return the name of the backend that moves a transfer."""
        number = self.agent.queryXferBackend(handle._handle)  # noqa: SLF001
        return next(name for name, each in self.backends.items() if each == number)

    def release_xfer_handle(self, handle: nixl_xfer_handle) -> None:
        """Let go of a transfer; one that runs is cancelled."""
        handle.release()

    def release_dlist_handle(self, handle: nixl_prepped_dlist_handle) -> None:
        """Let go of a prepared side."""
        handle.release()

    def prep_mem_view(self, dlist: nixlXferDList | nixlRemoteDList, *, backends: Sequence[str] | None = None) -> int:
        """Not supported: transfers that a GPU starts. Raises nixlNotSupportedError."""
        return self.agent.prepMemView(dlist, self._numbers(backends or ()))

    def release_mem_view(self, mvh: int) -> None:
        """Not supported, as :meth:`prep_mem_view`."""
        self.agent.releaseMemView(mvh)

    # -- notifications -----------------------------------------------------------------------------------------

    def get_new_notifs(self, backends: Sequence[str] = ()) -> dict[str, list[bytes]]:
        """Return what arrived since the last call, by sender."""
        return self.agent.getNotifs({}, self._numbers(backends) if backends else ())

    def update_notifs(self, backends: Sequence[str] = ()) -> dict[str, list[bytes]]:
        """Add what arrived to :attr:`notifs`, and return that; the caller may take messages out of it."""
        self.notifs = self.agent.getNotifs(self.notifs, self._numbers(backends) if backends else ())
        return self.notifs

    def check_remote_xfer_done(
        self, remote_agent_name: str, lookup_tag: bytes, backends: Sequence[str] = (), tag_is_prefix: bool = True
    ) -> bool:
        """Return whether a message of an agent has come, and take the first such one out of :attr:`notifs`.

        Args:
            remote_agent_name: The sender.
            lookup_tag: What the message begins with, or holds.
            backends: Names that must be open ones.
            tag_is_prefix: Whether it begins with it.
        """
        messages = self.update_notifs(backends).get(remote_agent_name, [])
        for position, message in enumerate(messages):
            if message.startswith(lookup_tag) if tag_is_prefix else lookup_tag in message:
                del messages[position]
                return True
        return False

    def send_notif(self, remote_agent_name: str | bytes, notif_msg: bytes | str, backend: str | None = None) -> None:
        """Send a message to a loaded agent, or to this one."""
        numbers = () if backend is None else self._numbers([backend])
        self.agent.genNotif(remote_agent_name, notif_msg, numbers)

    # -- metadata ----------------------------------------------------------------------------------------------

    def get_agent_metadata(self) -> bytes:
        """Return what a peer needs to reach all memory that is registered now."""
        return self.agent.getLocalMD()

    def get_partial_agent_metadata(
        self, descs: nixlRegDList, inc_conn_info: bool = False, backends: Sequence[str] = ()
    ) -> bytes:
        """Return what a peer needs to reach some memory; with an empty list only how it reaches the agent."""
        return self.agent.getLocalPartialMD(descs, inc_conn_info, self._numbers(backends))

    def add_remote_agent(self, metadata: bytes) -> bytes:
        """Load a peer from its metadata, or add to what is loaded; return its name, as bytes."""
        return self.agent.loadRemoteMD(metadata)

    def remove_remote_agent(self, agent: str | bytes) -> None:
        """Forget a peer; transfers to it end. An unknown one is no error."""
        self.agent.invalidateRemoteMD(agent)

    def send_local_metadata(self, ip_addr: str = "", port: int = DEFAULT_COMM_PORT) -> None:
        """Publish the agent in the store; returns once the store has answered, and raises if it does not."""
        self.agent.sendLocalMD(ip_addr, port)

    def send_partial_agent_metadata(
        self,
        descs: nixlRegDList,
        inc_conn_info: bool = False,
        backends: Sequence[str] = (),
        ip_addr: str = "",
        port: int = DEFAULT_COMM_PORT,
        label: str = "",
    ) -> None:
        """Publish a part of the agent's metadata under a label; as :meth:`send_local_metadata`."""
        self.agent.sendLocalPartialMD(descs, inc_conn_info, self._numbers(backends), ip_addr, port, label)

    def fetch_remote_metadata(
        self, remote_agent: str | bytes, ip_addr: str = "", port: int = DEFAULT_COMM_PORT, label: str = ""
    ) -> None:
        """Start to fetch an agent from the store; returns at once. Ask :meth:`check_remote_metadata` how it ended."""
        self.agent.fetchRemoteMD(remote_agent, ip_addr, port, label)

    def invalidate_local_metadata(self, ip_addr: str = "", port: int = DEFAULT_COMM_PORT) -> None:
        """Withdraw the agent from the store: peers forget it."""
        self.agent.invalidateLocalMD(ip_addr, port)

    def check_remote_metadata(self, agent: str | bytes, descs: nixlXferDList | None = None) -> bool:
        """Return whether an agent is loaded, and offers all ranges of a list; raises, once, how its fetch failed."""
        if descs is None:
            descs = nixlXferDList(enumeration.nixl_mem_t.DRAM_SEG)
        return self.agent.checkRemoteMD(agent, descs) is NIXL_SUCCESS

    # -- inside ------------------------------------------------------------------------------------------------

    def _plugin(self, name: str) -> tuple[dict[str, str], list[str]]:
        try:
            return self.agent.getPluginParams(name)
        except nixlNotFoundError as error:
            log.warning("%s", error)
            return {}, []

    def _numbers(self, names: Sequence[str]) -> list[int]:
        """Return the numbers of open backends; an unknown one is a KeyError, as in NIXL."""
        return [self.backends[name] for name in names]


def _state(status: enumeration.nixl_status_t) -> str:
    return "DONE" if status is NIXL_SUCCESS else "PROC" if status is NIXL_IN_PROG else "ERR"
