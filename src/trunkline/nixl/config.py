"""How a ``nixl_agent`` is made."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from trunkline.nixl import enumeration
from trunkline.nixl.enumeration import DEFAULT_COMM_PORT

if TYPE_CHECKING:
    from collections.abc import Sequence


class nixl_thread_sync_t(Enum):
    """How NIXL's agent is locked. Trunkline's may be used from any thread whatever is chosen."""

    NIXL_THREAD_SYNC_NONE = enumeration.nixl_thread_sync_t.NIXL_THREAD_SYNC_NONE
    NIXL_THREAD_SYNC_STRICT = enumeration.nixl_thread_sync_t.NIXL_THREAD_SYNC_STRICT
    NIXL_THREAD_SYNC_RW = enumeration.nixl_thread_sync_t.NIXL_THREAD_SYNC_RW
    NIXL_THREAD_SYNC_DEFAULT = enumeration.nixl_thread_sync_t.NIXL_THREAD_SYNC_DEFAULT


class nixl_agent_config:
    """Settings of a ``nixl_agent``.

    Args:
        enable_prog_thread: No effect: there always is a progress thread, which sleeps when nothing is under way.
        enable_listen_thread: Whether to listen for peers that send or ask for metadata: on 127.0.0.1, or where
            ``TRUNKLINE_LISTEN_HOST`` says.
        listen_port: The port. With 0 it is a free one: ``agent.agent.listen_address.port``.
        capture_telemetry: Whether ``get_xfer_telemetry`` can be asked, where ``NIXL_TELEMETRY_ENABLE`` doesn't say.
        num_threads: Given to backends that take it; UCX's does not.
        backends: Which backends to open; others may follow by ``create_backend``.
        sync_mode: No effect: every call may come from any thread.

    Raises:
        TypeError: ``sync_mode`` is none.
    """

    def __init__(
        self,
        enable_prog_thread: bool = True,
        enable_listen_thread: bool = False,
        listen_port: int = DEFAULT_COMM_PORT,
        capture_telemetry: bool = False,
        num_threads: int = 0,
        backends: Sequence[str] = ("UCX",),
        sync_mode: nixl_thread_sync_t | None = None,
    ) -> None:
        if sync_mode is not None and not isinstance(sync_mode, nixl_thread_sync_t):
            raise TypeError(f"sync_mode must be a nixl_thread_sync_t or None, not a {type(sync_mode).__name__}")
        self.backends = list(backends)
        self.enable_pthread = enable_prog_thread
        self.enable_listen = enable_listen_thread
        self.port = listen_port
        self.capture_telemetry = capture_telemetry
        self.num_threads = num_threads
        self.sync_mode = sync_mode
