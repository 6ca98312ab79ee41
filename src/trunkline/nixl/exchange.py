"""The low-level agent's metadata: as bytes, in the store, and by socket."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from trunkline.errors import (
    DescriptorError,
    MetadataDecodeError,
    MetadataMismatchError,
    NoStoreError,
    PeerGoneError,
    PeerUnreachableError,
    UnknownPeerError,
)
from trunkline.exchange.address import Address
from trunkline.exchange.client import FrameClients
from trunkline.exchange.nixl_message import INVALIDATE, LOAD, MAX_BYTES, SEND, NixlMessage, decode_message
from trunkline.metadata.codec import decode
from trunkline.metadata.key import DEFAULT_LABEL
from trunkline.nixl.descriptor_list import nixlRegDList, nixlXferDList
from trunkline.nixl.enumeration import NIXL_SUCCESS, nixl_status_t
from trunkline.nixl.exception import nixlBackendError, nixlInvalidParamError, translated
from trunkline.nixl.transfers import Transfers, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trunkline.agent.agent import Agent
    from trunkline.nixl.fetching import Fetching
    from trunkline.nixl.tcp_store import TcpStore

log = logging.getLogger(__name__)

ADDED = "add_remote_agent"
"""The label of metadata that came as bytes. A part is added to what was loaded so, since bytes don't say what they are
a part of."""


class Exchange(Transfers):
    """What ``nixlAgent`` inherits. Any thread may call any method.

    Args:
        name: The agent's name.
        captures_telemetry: Whether telemetry can be asked for.
        tcp_store: The TCPStore that metadata go through instead of Trunkline's store, if any.
    """

    _fetching: Fetching | None = None

    def __init__(self, name: str, *, captures_telemetry: bool, tcp_store: TcpStore | None) -> None:
        super().__init__(name, captures_telemetry=captures_telemetry)
        self._clients = FrameClients()
        self._tcp_store = tcp_store

    @property
    def trunkline(self) -> Agent:
        """Trunkline's agent behind it, which can do more.

        Raises:
            nixlBackendError: It is not open yet, for want of a backend.
        """
        if self._agent is None:
            raise nixlBackendError(f"agent {self._name!r} has no backend yet: create one first")
        return self._agent

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
        """Publish the agent in the store, or send its metadata to who listens at an address.

        Returns once the store has answered, or the bytes are on their way: a listener does not answer.

        Raises:
            nixlInvalidParamError: There is no store: set ``NIXL_ETCD_ENDPOINTS``; or the port is none.
            nixlBackendError: The store did not answer, or refused; or nobody listens there.
        """
        if ip_addr:
            self._clients.send(_address(ip_addr, port), NixlMessage(LOAD, self.getLocalMD()).encode())
        elif self._tcp_store is not None:
            self._tcp_store.publish(self._name, DEFAULT_LABEL, self.getLocalMD())
        else:
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
        """Publish a part of the agent's metadata under a label, or send it, which takes no label, to an address.

        Raises:
            As :meth:`sendLocalMD`, and:
            nixlInvalidParamError: The store is to have it, and there is no label, or that of the full metadata.
            nixlNotFoundError: A range is not registered.
        """
        self._check(descs, nixlRegDList)
        self._check_backends(backends)
        if ip_addr:
            part = self.getLocalPartialMD(descs, inc_conn_info, backends)
            self._clients.send(_address(ip_addr, port), NixlMessage(LOAD, part).encode())
            return
        if not label:
            raise nixlInvalidParamError("a part of the metadata is published under a label: give one")
        label = text_of(label)
        if self._tcp_store is not None:
            if label == DEFAULT_LABEL:
                raise nixlInvalidParamError(f"the label {label!r} is the full set: give another one for a part")
            part = self.getLocalPartialMD(descs, inc_conn_info, backends)
            self._tcp_store.publish(self._name, label, part)
            return
        parts, connection_info = _part(descs, inc_conn_info)
        self.trunkline.publish(label=label, segments=parts, connection_info=connection_info)

    @translated
    def fetchRemoteMD(
        self, remote_agent: str | bytes, ip_addr: str = "", port: int = 0, label: str | bytes = ""
    ) -> None:
        """Start to fetch an agent from the store, or from where it listens, and return at once; ``checkRemoteMD`` tells
        how it ended.

        In the background it waits until the agent publishes, as long as ``etcdWatchTimeout`` says, or for a TCPStore
        ``NIXL_TCPSTORE_TIMEOUT_MS``. A listener is asked once, for all the agent has; if it is another agent's, nothing
        is loaded.

        Raises:
            nixlInvalidParamError: There is no store; or the port is none.
        """
        agent = self.trunkline
        if ip_addr:
            address = _address(ip_addr, port)
            if self._fetching is not None:
                self._fetching.start(text_of(remote_agent), address)
            return
        if self._tcp_store is None and agent.health().store_age is None:
            raise NoStoreError(f"agent {self._name!r} has no store to fetch from: set NIXL_ETCD_ENDPOINTS")
        name = text_of(remote_agent)
        if name != self._name and self._fetching is not None:
            self._fetching.start(name, text_of(label) or DEFAULT_LABEL)

    @translated
    def invalidateLocalMD(self, ip_addr: str = "", port: int = 0) -> None:
        """Withdraw the agent from the store: peers forget it, but with a TCPStore, which tells nobody; or have who
        listens at an address forget it.

        If nobody can be reached there, a warning is logged: programs say so at their end, when peers may be gone.

        Raises:
            As :meth:`sendLocalMD`, but for who can't be reached.
        """
        if ip_addr:
            message = NixlMessage(INVALIDATE, self._name.encode())
            try:
                self._clients.send(_address(ip_addr, port), message.encode())
            except PeerUnreachableError as error:
                log.warning(
                    "agent %r: who listened at %s:%s was not told to forget it: %s", self._name, ip_addr, port, error
                )
        elif self._tcp_store is not None:
            self.trunkline.engine.check_open()
            self._tcp_store.withdraw()
        else:
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


def load_from(agent: Agent, clients: FrameClients, address: Address, name: str) -> None:
    """Ask a listener for all its agent has, and load it.

    Raises:
        PeerUnreachableError: Nobody listens there, or the answer did not come.
        MetadataDecodeError: The answer is none.
        MetadataMismatchError: It is that of another agent; nothing is loaded.
    """
    message = decode_message(clients.ask(address, NixlMessage(SEND).encode(), MAX_BYTES))
    if message.verb != LOAD:
        raise MetadataDecodeError(f"{address} answers with {message.verb!r} instead of metadata", field="verb")
    load_as(agent, name, message.body, f"who listens at {address}")


def load_as(agent: Agent, name: str, metadata: bytes, origin: str) -> None:
    """Load an agent, or add to what is loaded of it, if it is the one of that name.

    Args:
        agent: Who loads it.
        name: Its name.
        metadata: Its metadata.
        origin: Where they come from, in words.

    Raises:
        MetadataDecodeError: The bytes are no metadata.
        MetadataMismatchError: They are those of another agent; nothing is loaded.
    """
    found = decode(metadata).agent
    if found != name:
        raise MetadataMismatchError(
            f"the metadata of {origin} are those of agent {found!r}, not of {name!r}; nothing was loaded", agent=name
        )
    agent.load_peer(metadata, label=ADDED, extend=True)


def _address(host: str, port: int) -> Address:
    if not 1 <= port <= 65535:
        raise nixlInvalidParamError(f"{host!r} has no port {port}: 1 to 65535")
    return Address(host, port)


def _part(descs: nixlRegDList, inc_conn_info: bool) -> tuple[list[Any], bool]:
    """Return the ranges, as a list of descriptor lists, and whether connection info goes with them."""
    return ([], True) if descs.isEmpty() else ([descs.checked()], inc_conn_info)
