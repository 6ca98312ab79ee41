"""The low-level agent's metadata: as bytes, in the store, and, once there is a listener, by socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trunkline.errors import DescriptorError, MetadataMismatchError, NoStoreError, PeerGoneError, UnknownPeerError
from trunkline.metadata.codec import decode
from trunkline.metadata.key import DEFAULT_LABEL
from trunkline.nixl.descriptor_list import nixlRegDList, nixlXferDList
from trunkline.nixl.enumeration import NIXL_SUCCESS, nixl_status_t
from trunkline.nixl.exception import nixlBackendError, nixlInvalidParamError, nixlNotSupportedError, translated
from trunkline.nixl.transfers import Transfers, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trunkline.agent.agent import Agent
    from trunkline.nixl.fetching import Fetching

ADDED = "add_remote_agent"
"""The label of metadata that came as bytes. A part is added to what was loaded so, since bytes don't say what they are
a part of."""


class Exchange(Transfers):
    """What ``nixlAgent`` inherits. Any thread may call any method."""

    _fetching: Fetching | None = None

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

    def _check_no_listener(self, call: str, ip_addr: str, port: int) -> None:
        """Here the listener will be plugged in."""
        if ip_addr:
            raise nixlNotSupportedError(
                f"{call}(ip_addr={ip_addr!r}, port={port}): metadata by socket is not supported yet; use the store "
                "(NIXL_ETCD_ENDPOINTS), or get_agent_metadata and add_remote_agent"
            )


def _part(descs: nixlRegDList, inc_conn_info: bool) -> tuple[list[Any], bool]:
    """Return the ranges, as a list of descriptor lists, and whether connection info goes with them."""
    return ([], True) if descs.isEmpty() else ([descs.checked()], inc_conn_info)
