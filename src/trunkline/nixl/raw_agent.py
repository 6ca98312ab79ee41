"""The low-level agent, ``nixlAgent``: backends, memory, metadata and notifications. Transfers are in its base class."""

from __future__ import annotations

import itertools
import logging
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from trunkline.agent.agent import Agent
from trunkline.backend.registry import backend_names
from trunkline.config import Settings
from trunkline.errors import (
    DeadlineError,
    DescriptorError,
    MetadataMismatchError,
    NoStoreError,
    PeerGoneError,
    TrunklineError,
    UnknownPeerError,
)
from trunkline.metadata.codec import decode
from trunkline.metadata.key import DEFAULT_LABEL, NIXL_NAMESPACE, is_agent_name
from trunkline.nixl.agent_config import nixlAgentConfig
from trunkline.nixl.descriptor_list import DList, nixlRegDList, nixlXferDList
from trunkline.nixl.enumeration import NIXL_SUCCESS, nixl_mem_t, nixl_status_t
from trunkline.nixl.exception import (
    nixl_error,
    nixlBackendError,
    nixlInvalidParamError,
    nixlNotFoundError,
    nixlNotSupportedError,
    translated,
)
from trunkline.nixl.fetching import Fetching
from trunkline.nixl.transfers import Transfers, payload_of, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from trunkline.memory.kind import MemoryKind

log = logging.getLogger(__name__)

ADDED = "add_remote_agent"
"""The label of metadata that came as bytes. A part is added to what was loaded so, since bytes don't say what they are
a part of."""

WIRE_TIMEOUT = 5.0
"""Seconds that ``makeConnection`` waits for the peer's answer."""

CLOSE_TIMEOUT = 2.0
"""Seconds that the end of an agent that was let go may take."""

_UCX_PARAMS = {"ucx_devices": "", "num_workers": "1", "ucx_error_handling_mode": "peer"}
_HIDDEN = "LOOPBACK"  # NIXL knows no such backend; transfers within an agent go through UCX


class nixlAgent(Transfers):
    """NIXL's agent over one of Trunkline's. Any thread may call any method.

    Trunkline's agent is opened with the first backend. Calls raise NIXL's exceptions, whose causes are Trunkline's.

    Args:
        name: Unique among the agents that meet.
        config: Its settings.

    Raises:
        ValueError: The name is empty.
        nixlInvalidParamError: No key in a store can have the name.
    """

    def __init__(self, name: str | bytes, config: nixlAgentConfig) -> None:
        if not isinstance(config, nixlAgentConfig):
            raise TypeError(f"nixlAgent() takes a name and a nixlAgentConfig, not {config!r}")
        name = text_of(name)
        if not name:
            raise ValueError("Agent needs a non-empty name")
        if not is_agent_name(name):
            raise nixlInvalidParamError(
                f"an agent can't be called {name[:80]!r}: no leading dot, no slash, no control character, at most "
                "255 bytes"
            )
        super().__init__(name, captures_telemetry=config.captureTelemetry)
        self._config = config
        self._backends: dict[int, str] = {}
        self._params: dict[int, dict[str, str]] = {}
        self._backend_numbers = itertools.count(1)
        self._fetching: Fetching | None = None

    @property
    def trunkline(self) -> Agent:
        """Trunkline's agent behind it, which can do more.

        Raises:
            nixlBackendError: It is not open yet, for want of a backend.
        """
        if self._agent is None:
            raise nixlBackendError(f"agent {self._name!r} has no backend yet: create one first")
        return self._agent

    # -- backends ----------------------------------------------------------------------------------------------

    def getAvailPlugins(self) -> list[str]:
        """Return the names of the backends that are installed."""
        return [name.upper() for name in backend_names() if name.upper() != _HIDDEN]

    def getPluginParams(self, plugin: str) -> tuple[dict[str, str], list[str]]:
        """Return which parameters ``createBackend`` takes for it, with defaults, and the kinds of memory it is for.

        Raises:
            nixlNotFoundError: There is none of that name.
        """
        if plugin not in self.getAvailPlugins():
            raise nixlNotFoundError(f"there is no plugin {plugin!r}; installed: {self.getAvailPlugins()}")
        opened = self._agent.engine.backends.get(plugin) if self._agent is not None else None
        if opened is not None:
            return dict(_UCX_PARAMS) if plugin == "UCX" else {}, _kinds(opened.capabilities.local_kinds)
        return (dict(_UCX_PARAMS), ["DRAM_SEG", "VRAM_SEG"]) if plugin == "UCX" else ({}, [])

    @translated
    def createBackend(self, backend: str, params: Mapping[str, str]) -> int:
        """Open a backend, and with the first one Trunkline's agent; return its number.

        Args:
            backend: Its name.
            params: Its parameters. Of UCX's only ``ucx_devices`` has an effect; unknown ones have none, as in NIXL.

        Raises:
            nixlNotFoundError: There is none of that name.
            nixlInvalidParamError: It is open already.
            nixlNotAllowedError: A live agent in the store has this agent's name.
            nixlBackendError: It can't be opened here, or the store does not answer.
        """
        if not all(isinstance(text, str) for pair in params.items() for text in pair):
            raise TypeError(f"a backend's parameters are strings: {dict(params)!r}")
        if backend not in self.getAvailPlugins():
            raise nixlNotFoundError(f"there is no plugin {backend!r}; installed: {self.getAvailPlugins()}")
        if backend in self._backends.values():
            raise nixlInvalidParamError(f"agent {self._name!r} has its backend {backend!r} already")
        devices = (params.get("ucx_devices") or None) if backend == "UCX" else None
        if self._agent is None:
            namespace = Settings.from_environment().namespace or NIXL_NAMESPACE
            self._agent = Agent(self._name, namespace=namespace, backends=[backend.lower()], devices=devices)
            waiting = self._config.etcdWatchTimeout.total_seconds()
            self._fetching = Fetching(partial(_fetch, self._agent, waiting))
        else:
            self._agent.create_backend(backend.lower(), **({} if devices is None else {"devices": devices}))
        number = next(self._backend_numbers)
        self._backends[number] = backend
        self._params[number] = dict(params)
        return number

    def getBackendParams(self, backend: int) -> tuple[dict[str, str], list[str]]:
        """Return the parameters that a backend was created with, and the kinds of memory it takes here."""
        name = self._backend_name(backend)
        return dict(self._params[backend]), _kinds(self.trunkline.engine.backends[name].capabilities.local_kinds)

    # -- memory ------------------------------------------------------------------------------------------------

    @translated
    def registerMem(self, descs: nixlRegDList, backends: Sequence[int] = ()) -> nixl_status_t:
        """Register memory, with all backends that take its kind. Registered twice it has to be deregistered twice.

        Raises:
            nixlNotFoundError: No backend takes this kind of memory.
            nixlInvalidParamError: The list is empty, or a range can't be.
            nixlBackendError: A backend refused.
        """
        self._check(descs, nixlRegDList)
        self._check_backends(backends)
        if self._agent is None:
            raise nixlNotFoundError(f"agent {self._name!r} has no backend to register memory with")
        self._agent.register(descs.checked())
        return NIXL_SUCCESS

    @translated
    def deregisterMem(self, descs: nixlRegDList, backends: Sequence[int] = ()) -> nixl_status_t:
        """Deregister ranges that were registered, in one call or in several. What was published is withdrawn first.

        Raises:
            nixlNotFoundError: One is not registered; then none is deregistered.
            nixlBackendError: A transfer still uses it, or it could not be withdrawn; it stays registered.
        """
        self._check(descs, nixlRegDList)
        self._check_backends(backends)
        self.trunkline.deregister(descs.checked())
        return NIXL_SUCCESS

    def queryMem(self, descs: nixlRegDList, backend: int) -> list[dict[str, str] | None]:
        """Ask a backend about files or objects.

        Raises:
            nixlNotSupportedError: It is not one for files or objects.
        """
        self._check(descs, nixlRegDList)
        raise nixlNotSupportedError(f"backend {self._backend_name(backend)!r} can't be asked about memory")

    # -- metadata ----------------------------------------------------------------------------------------------

    @translated
    def getLocalMD(self) -> bytes:
        """Return what a peer needs to reach all memory that is registered now."""
        if self._agent is None:
            raise nixlInvalidParamError(f"agent {self._name!r} has no backend: there is nothing to tell of it")
        return self._agent.local_metadata()

    @translated
    def getLocalPartialMD(
        self, descs: nixlRegDList, inc_conn_info: bool = False, backends: Sequence[int] = ()
    ) -> bytes:
        """Return what a peer needs to reach some memory; with an empty list only how it reaches the agent.

        Raises:
            nixlNotFoundError: A range is not registered.
        """
        self._check(descs, nixlRegDList)
        self._check_backends(backends)
        parts, connection_info = _part(descs, inc_conn_info)
        return self.trunkline.local_metadata(parts, connection_info=connection_info)

    @translated
    def loadRemoteMD(self, data: bytes | bytearray | str) -> bytes:
        """Load a peer, or add to what was loaded of it, and return its name.

        Another incarnation of a known agent replaces it, where NIXL wants it to be invalidated first.

        Raises:
            nixlMismatchError: The bytes are no metadata; nothing changes.
            nixlInvalidParamError: It is this agent's own.
            nixlNotFoundError: The agent is not known, and the part doesn't say how to reach it.
            nixlBackendError: This agent has no backend.
        """
        if isinstance(data, str):
            data = data.encode()
        if not isinstance(data, bytes | bytearray):
            raise TypeError(f"metadata are bytes, not a {type(data).__name__}")
        blob = bytes(data)
        agent = self.trunkline
        try:
            return agent.load_peer(blob, label=ADDED, extend=True).name.encode()
        except MetadataMismatchError as error:
            if decode(blob).agent == self._name:
                raise nixlInvalidParamError(str(error)) from error
            raise

    @translated
    def invalidateRemoteMD(self, name: str | bytes) -> nixl_status_t:
        """Forget a peer; transfers to it end. An unknown one is no error."""
        try:
            self.trunkline.unload_peer(text_of(name))
        except UnknownPeerError:
            return nixl_status_t.NIXL_ERR_NOT_FOUND
        return NIXL_SUCCESS

    @translated
    def sendLocalMD(self, ip_addr: str = "", port: int = 0) -> None:
        """Publish the agent in the store. Returns once the store has answered.

        Raises:
            nixlInvalidParamError: There is no store: set ``NIXL_ETCD_ENDPOINTS``.
            nixlBackendError: The store did not answer, or refused.
        """
        self._check_no_listener("send_local_metadata", ip_addr, port)
        self.trunkline.publish()

    @translated
    def sendLocalPartialMD(
        self,
        descs: nixlRegDList,
        inc_conn_info: bool = False,
        backends: Sequence[int] = (),
        ip_addr: str = "",
        port: int = 0,
        label: str | bytes = "",
    ) -> None:
        """Publish a part of the agent's metadata under a label. Returns once the store has answered.

        Raises:
            As :meth:`sendLocalMD`, and:
            nixlInvalidParamError: There is no label, or it is the one of the full metadata.
            nixlNotFoundError: A range is not registered.
        """
        self._check(descs, nixlRegDList)
        self._check_backends(backends)
        self._check_no_listener("send_partial_agent_metadata", ip_addr, port)
        if not label:
            raise nixlInvalidParamError("a part of the metadata is published under a label: give one")
        parts, connection_info = _part(descs, inc_conn_info)
        self.trunkline.publish(label=text_of(label), segments=parts, connection_info=connection_info)

    @translated
    def fetchRemoteMD(
        self, remote_agent: str | bytes, ip_addr: str = "", port: int = 0, label: str | bytes = ""
    ) -> None:
        """Start to fetch an agent from the store, and return at once; ``checkRemoteMD`` tells how it ended.

        It waits in the background until the agent publishes, as long as ``etcdWatchTimeout`` says.

        Raises:
            nixlInvalidParamError: There is no store.
        """
        self._check_no_listener("fetch_remote_metadata", ip_addr, port)
        agent = self.trunkline
        if agent.health().store_age is None:
            raise NoStoreError(f"agent {self._name!r} has no store to fetch from: set NIXL_ETCD_ENDPOINTS")
        name = text_of(remote_agent)
        if name != self._name and self._fetching is not None:
            self._fetching.start(name, text_of(label) or DEFAULT_LABEL)

    @translated
    def invalidateLocalMD(self, ip_addr: str = "", port: int = 0) -> None:
        """Withdraw the agent from the store: peers forget it. Returns once the store has answered.

        Raises:
            As :meth:`sendLocalMD`.
        """
        self._check_no_listener("invalidate_local_metadata", ip_addr, port)
        self.trunkline.withdraw()

    @translated
    def checkRemoteMD(self, name: str | bytes, descs: nixlXferDList) -> nixl_status_t:
        """Return NIXL_SUCCESS if an agent is loaded, and offers all ranges of the list; else NIXL_ERR_NOT_FOUND.

        Raises:
            nixlNotFoundError, nixlBackendError …: The last fetch of that agent failed, for this reason; told once.
        """
        self._check(descs, nixlXferDList)
        if self._fetching is None:
            return nixl_status_t.NIXL_ERR_NOT_FOUND
        name = text_of(name)
        failure = self._fetching.take_failure(name)
        if failure is not None:
            raise failure
        try:
            peer = self.trunkline.peer(name)
            is_offered = peer.gone is None and (descs.isEmpty() or peer.offers(descs.checked()))
        except (UnknownPeerError, PeerGoneError, DescriptorError):
            is_offered = False
        return NIXL_SUCCESS if is_offered else nixl_status_t.NIXL_ERR_NOT_FOUND

    @translated
    def makeConnection(self, name: str | bytes, backends: Sequence[int] = ()) -> nixl_status_t:
        """Connect to a peer now, so that the first transfer needn't. A peer that does not answer in time is no error.

        Raises:
            nixlNotFoundError: No such peer is loaded.
            nixlRemoteDisconnectError: It is gone.
        """
        self._check_backends(backends)
        name = text_of(name)
        if name == self._name:
            raise nixlNotFoundError(f"agent {name!r} is this agent itself")
        try:
            self.trunkline.peer(name).connect(WIRE_TIMEOUT)
        except DeadlineError as error:
            log.warning("%s", error)
        return NIXL_SUCCESS

    # -- notifications -----------------------------------------------------------------------------------------

    def getNotifs(
        self, notif_map: Mapping[str, Sequence[bytes]], backends: Sequence[int] = ()
    ) -> dict[str, list[bytes]]:
        """Return a map with what was given and what has arrived since the last call, by sender.

        Raises:
            nixlBackendError: This agent has no backend; or notifications were dropped, since too many waited.
        """
        if backends:
            self._check_backends(backends)
        try:
            arrived = self.trunkline.take_notifications()
        except TrunklineError as error:
            raise nixl_error(error) from error
        notifications = {sender: list(messages) for sender, messages in notif_map.items()} if notif_map else {}
        for notification in arrived:
            if notification.ok:
                notifications.setdefault(notification.sender, []).append(notification.payload)
            else:  # NIXL's peers would hear nothing, and take this for success
                log.warning("a transfer of %r failed that promised %r", notification.sender, notification.payload[:80])
        return notifications

    @translated
    def genNotif(self, remote_agent: str | bytes, msg: bytes | str, backends: Sequence[int] = ()) -> nixl_status_t:
        """Send a notification to a peer, or to this agent itself.

        Raises:
            nixlNotFoundError: No such peer is loaded.
            nixlRemoteDisconnectError: It is gone.
        """
        self._check_backends(backends)
        self.trunkline.notify(text_of(remote_agent), payload_of(msg))
        return NIXL_SUCCESS

    # -- memory views ------------------------------------------------------------------------------------------

    def prepMemView(self, dlist: DList, backends: Sequence[int] = ()) -> int:  # noqa: ARG002
        """Not supported: transfers that a GPU starts."""
        raise nixlNotSupportedError("Trunkline prepares no memory views for transfers that a GPU starts")

    def releaseMemView(self, mvh: int) -> None:  # noqa: ARG002
        """Not supported, as :meth:`prepMemView`."""
        raise nixlNotSupportedError("Trunkline prepares no memory views for transfers that a GPU starts")

    # -- end, inside -------------------------------------------------------------------------------------------

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """End the agent; NIXL's API does so when its last reference goes. Idempotent."""
        if self._agent is not None and self._fetching is not None:
            self._fetching.stop()
            self._agent.close(timeout)
            self._fetching.join()

    def __del__(self) -> None:
        if getattr(self, "_agent", None) is not None and not sys.is_finalizing():
            self.close()

    def _backend_name(self, number: int) -> str:
        try:
            return self._backends[number]
        except KeyError:
            raise nixlInvalidParamError(f"agent {self._name!r} has no backend number {number!r}") from None

    def _backend_number(self, name: str) -> int:
        return next(number for number, each in self._backends.items() if each == name)

    def _check_backends(self, numbers: Iterable[int]) -> None:
        """Which backends do something Trunkline chooses; that those that are named exist is checked."""
        for number in numbers:
            self._backend_name(number)

    def _check_no_listener(self, call: str, ip_addr: str, port: int) -> None:
        """Here the listener will be plugged in."""
        if ip_addr:
            raise nixlNotSupportedError(
                f"{call}(ip_addr={ip_addr!r}, port={port}): metadata by socket is not supported yet; use the store "
                "(NIXL_ETCD_ENDPOINTS), or get_agent_metadata and add_remote_agent"
            )


def _fetch(agent: Agent, timeout: float, name: str, label: str) -> None:
    agent.fetch(name, label=label, timeout=timeout)


def _part(descs: nixlRegDList, inc_conn_info: bool) -> tuple[list[Any], bool]:
    """Return the ranges, as a list of descriptor lists, and whether connection info goes with them."""
    return ([], True) if descs.isEmpty() else ([descs.checked()], inc_conn_info)


def _kinds(kinds: Iterable[MemoryKind]) -> list[str]:
    return [nixl_mem_t(int(kind)).name for kind in sorted(kinds)]
