"""The low-level agent's settings."""

from __future__ import annotations

import datetime as dt

from trunkline.nixl.enumeration import DEFAULT_COMM_PORT, nixl_thread_sync_t


class nixlAgentConfig:
    """Settings of ``nixlAgent``, in NIXL's order.

    Trunkline's agent always has a progress thread and may be used from any thread, so most have no effect: only
    ``captureTelemetry``, ``etcdWatchTimeout``, ``useListenThread`` and ``listenPort``.

    Args:
        use_prog_thread: No effect.
        use_listen_thread: Whether to listen for peers that send or ask for metadata: on 127.0.0.1, or where
            ``TRUNKLINE_LISTEN_HOST`` says.
        port: The port; 0 for a free one.
        sync_mode: No effect.
        num_workers: No effect.
        pthr_delay: No effect.
        lthr_delay: No effect.
        capture_telemetry: Whether transfers can be asked for their telemetry, where ``NIXL_TELEMETRY_ENABLE`` doesn't
            say.

    Attributes:
        etcdWatchTimeout: How long a fetch waits for an agent to publish. NIXL's default is 5 s.
    """

    def __init__(
        self,
        use_prog_thread: bool = False,
        use_listen_thread: bool = False,
        port: int = DEFAULT_COMM_PORT,
        sync_mode: nixl_thread_sync_t = nixl_thread_sync_t.NIXL_THREAD_SYNC_DEFAULT,
        num_workers: int = 1,
        pthr_delay: int = 0,
        lthr_delay: int = 100_000,
        capture_telemetry: bool = False,
    ) -> None:
        self.useProgThread = use_prog_thread
        self.useListenThread = use_listen_thread
        self.listenPort = port
        self.syncMode = sync_mode
        self.pthrDelay = pthr_delay
        self.lthrDelay = lthr_delay
        self.captureTelemetry = capture_telemetry
        self.etcdWatchTimeout = dt.timedelta(seconds=30)
        del num_workers
