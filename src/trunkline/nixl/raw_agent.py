"""The low-level agent, ``nixlAgent``: backends, memory, notifications. Its base classes have metadata and transfers."""

from __future__ import annotations

import itertools
import logging
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from trunkline.agent.agent import Agent
from trunkline.agent.opening import open_companion
from trunkline.backend.contract import QueryableBackend
from trunkline.backend.registry import backend_names, backend_options, create_backend
from trunkline.config import Settings
from trunkline.errors import (
    BackendUnavailableError,
    ConfigurationError,
    DeadlineError,
    TrunklineError,
)
from trunkline.exchange.address import Address
from trunkline.memory.kind import MemoryKind
from trunkline.metadata.key import NIXL_NAMESPACE, is_agent_name
from trunkline.nixl.agent_config import nixlAgentConfig
from trunkline.nixl.descriptor_list import DList, nixlRegDList
from trunkline.nixl.enumeration import NIXL_SUCCESS, nixl_mem_t, nixl_status_t
from trunkline.nixl.exception import (
    nixl_error,
    nixlInvalidParamError,
    nixlNotFoundError,
    nixlNotSupportedError,
    translated,
)
from trunkline.nixl.exchange import Exchange, load_as, load_from
from trunkline.nixl.fetching import Fetching
from trunkline.nixl.listener import Listener
from trunkline.nixl.tcp_store import TcpStore
from trunkline.nixl.telemetry import is_captured
from trunkline.nixl.transfers import payload_of, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from trunkline.backend.contract import Backend
    from trunkline.exchange.client import FrameClients

log = logging.getLogger(__name__)

WIRE_TIMEOUT = 5.0
"""Seconds that ``makeConnection`` waits for the peer's answer."""

CLOSE_TIMEOUT = 2.0
"""Seconds that the end of an agent that was let go may take."""

_UCX_PARAMS = {"ucx_devices": "", "num_workers": "1", "ucx_error_handling_mode": "peer"}
_HIDDEN = "LOOPBACK"  # NIXL knows no such backend; transfers within an agent go through UCX


class nixlAgent(Exchange):
    """NIXL's agent over one of Trunkline's. Any thread may call any method.

    Trunkline's agent is opened with the first backend. Calls raise NIXL's exceptions, whose causes are Trunkline's.

    Args:
        name: Unique among the agents that meet.
        config: Its settings.

    Attributes:
        listen_address: Where it listens; None if it does not.

    Raises:
        ValueError: The name is empty.
        nixlInvalidParamError: No key in a store can have the name; or it can't listen where it should; or the variables
            for a TCPStore can't be used.
    """

    @translated
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
        super().__init__(
            name, captures_telemetry=is_captured(config.captureTelemetry), tcp_store=TcpStore.from_environment()
        )
        self._config = config
        self._backends: dict[int, str] = {}
        self._params: dict[int, dict[str, str]] = {}
        self._backend_numbers = itertools.count(1)
        self._opening = threading.Lock()  # one backend at a time; the first one makes Trunkline's agent
        self._listener: Listener | None = None
        if config.useListenThread:
            address = Address(Settings.from_environment().listen_host, config.listenPort)
            self._listener = Listener(self, name, address)
        self.listen_address = None if self._listener is None else self._listener.address

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
        if plugin == "UCX":
            return dict(_UCX_PARAMS), _kinds(opened) if opened is not None else ["DRAM_SEG", "VRAM_SEG"]
        try:
            options = backend_options(plugin)
        except BackendUnavailableError:
            return {}, []
        params = {name: "" if value is None else str(value) for name, value in options.items() if name != "**"}
        return params, [] if opened is None else _kinds(opened)

    @translated
    def createBackend(self, backend: str, params: Mapping[str, str]) -> int:
        """Open a backend, and with the first one Trunkline's agent; return its number.

        Args:
            backend: Its name.
            params: Its parameters. Of UCX's only ``ucx_devices`` has an effect; unknown ones have none, as in NIXL.
                Those of others are their options by name (``getPluginParams``).

        Raises:
            nixlNotFoundError: There is none of that name.
            nixlInvalidParamError: It is open already.
            nixlNotAllowedError: A live agent in the store has this agent's name.
            nixlBackendError: It can't be opened here, or the store does not answer.
        """
        if not all(isinstance(text, str) for pair in params.items() for text in pair):
            raise TypeError(f"a backend's parameters are strings: {dict(params)!r}")
        with self._opening:
            return self._create(backend, params)

    def _create(self, backend: str, params: Mapping[str, str]) -> int:
        if backend not in self.getAvailPlugins():
            raise nixlNotFoundError(f"there is no plugin {backend!r}; installed: {self.getAvailPlugins()}")
        if backend in self._backends.values():
            raise nixlInvalidParamError(f"agent {self._name!r} has its backend {backend!r} already")
        name, settings = backend.lower(), Settings.from_environment()
        options = _options(name, params)
        if self._agent is None:
            namespace = settings.namespace or NIXL_NAMESPACE
            first = create_backend(name, self._name, **options)
            try:
                self._agent = Agent(self._name, namespace=namespace, backends=[first])
            except BaseException:
                first.close()
                raise
            waiting = self._config.etcdWatchTimeout.total_seconds()
            self._fetching = Fetching(partial(_fetch, self._agent, self._clients, self._tcp_store, waiting))
        elif backend not in self._agent.engine.backends:  # CMA comes with UCX
            self._agent.create_backend(name, **options)
        if backend == "UCX":
            open_companion(self._agent.engine, settings)
        number = next(self._backend_numbers)
        self._backends[number] = backend
        self._params[number] = dict(params)
        return number

    def getBackendParams(self, backend: int) -> tuple[dict[str, str], list[str]]:
        """Return the parameters that a backend was created with, and the kinds of memory it takes here."""
        name = self._backend_name(backend)
        return dict(self._params[backend]), _kinds(self.trunkline.engine.backends[name])

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
        self._agent.register(descs.checked(), keys=_keys(descs))
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

    @translated
    def queryMem(self, descs: nixlRegDList, backend: int) -> list[dict[str, str] | None]:
        """Ask a backend about files or objects, whose paths or keys stand fourth in the descriptors.

        Raises:
            nixlNotSupportedError: It is not one for files or objects.
            nixlBackendError: It could not find out.
        """
        self._check(descs, nixlRegDList)
        name = self._backend_name(backend)
        asked = self.trunkline.engine.backends[name]
        if not isinstance(asked, QueryableBackend):
            raise nixlNotSupportedError(f"backend {name!r} can't be asked about memory")
        names = [meta.decode(errors="surrogateescape") for meta in descs.meta]
        return [None if found is None else dict(found) for found in asked.query(descs.kind, names)]

    # -- peers, notifications ----------------------------------------------------------------------------------

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
        if self._listener is not None:
            self._listener.close()
        self._clients.close()
        if self._tcp_store is not None:
            self._tcp_store.close()
        if self._agent is not None and self._fetching is not None:
            self._fetching.stop()
            self._agent.close(timeout)
            self._fetching.join()

    def __del__(self) -> None:
        is_open = getattr(self, "_agent", None) is not None or getattr(self, "_listener", None) is not None
        if is_open and not sys.is_finalizing():
            self.close()

    def _backend_name(self, number: int) -> str:
        try:
            return self._backends[number]
        except KeyError:
            raise nixlInvalidParamError(f"agent {self._name!r} has no backend number {number!r}") from None

    def _backend_number(self, name: str) -> int:
        """Return a backend's number; CMA, which UCX brings along, counts as UCX unless it was created itself."""
        numbers = {each: number for number, each in self._backends.items()}
        return numbers[name if name in numbers else "UCX"]

    def _check_backends(self, numbers: Iterable[int]) -> frozenset[str]:
        """Return the names of backends; raises nixlInvalidParamError for one that is not there."""
        names = frozenset(self._backend_name(number) for number in numbers)
        return names | {"CMA"} if "UCX" in names else names


def _fetch(
    agent: Agent, clients: FrameClients, store: TcpStore | None, timeout: float, name: str, source: str | Address
) -> None:
    if isinstance(source, Address):
        load_from(agent, clients, source, name)
    elif store is not None:
        load_as(agent, name, store.fetch(name, source), f"label {source!r} in the TCPStore at {store.address}")
    else:
        agent.fetch(name, label=source, timeout=timeout)


def _kinds(backend: Backend) -> list[str]:
    capabilities = backend.capabilities
    return [nixl_mem_t(int(kind)).name for kind in sorted(capabilities.local_kinds | capabilities.own_kinds)]


def _options(name: str, params: Mapping[str, str]) -> dict[str, Any]:
    """Return a backend's options of NIXL's strings, in the types of their defaults; unknown ones are left out.

    Raises:
        ConfigurationError: A string stands for no value of its option's type.
    """
    if name == "ucx":
        return {"devices": params["ucx_devices"]} if params.get("ucx_devices") else {}
    known = backend_options(name)
    options: dict[str, Any] = {}
    for key, text in params.items():
        default = known.get(key)
        if key not in known and "**" not in known:
            continue
        try:
            options[key] = _value(text, default)
        except ValueError as error:
            raise ConfigurationError(f"backend {name!r}: {key}={text!r}: {error}", backend=name) from None
    return options


def _value(text: str, default: object) -> object:
    if isinstance(default, bool):
        if text.lower() not in ("true", "false", "1", "0"):
            raise ValueError("true or false")
        return text.lower() in ("true", "1")
    return type(default)(text) if isinstance(default, int | float) else text


def _keys(descs: nixlRegDList) -> list[str]:
    """Return the paths or keys of files and objects, if any; of memory NIXL's clients write anything there."""
    if descs.kind in (MemoryKind.DRAM, MemoryKind.VRAM) or not any(descs.meta):
        return []
    return [meta.decode(errors="surrogateescape") for meta in descs.meta]
