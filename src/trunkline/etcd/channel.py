"""One gRPC channel to one etcd member."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from trunkline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trunkline.etcd.config import EtcdConfig
    from trunkline.etcd.messages import Method

Metadata = tuple[tuple[str, str], ...]

# etcd drops clients that ping more often than every 5 s, or that ping with no call under way.
_OPTIONS = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", -1),  # a range or a replay may be any size
    ("grpc.max_send_message_length", -1),  # the server knows its own limit and says so
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # despite its name the time-out of one attempt to connect
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),  # else equal channels share one TCP connection
    ("grpc.enable_http_proxy", 0),  # a proxy for the web is no way to etcd
)


class Channel:
    """A connection to one member. gRPC connects on first use and again by itself. Any thread may use it."""

    def __init__(self, endpoint: str, config: EtcdConfig) -> None:
        self.endpoint = endpoint
        self._channel = (
            grpc.secure_channel(endpoint, _credentials(config), options=_OPTIONS)
            if config.is_secure
            else grpc.insecure_channel(endpoint, options=_OPTIONS)
        )
        self._calls: dict[str, Any] = {}

    def call(self, method: Method, request: Any, timeout: float | None, metadata: Metadata) -> Any:
        """Send one request and return its response; raises what gRPC raises."""
        call = self._calls.get(method.path)
        if call is None:
            call = self._calls[method.path] = self._channel.unary_unary(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
        return call(request, timeout=timeout, metadata=metadata)

    def stream(self, method: Method, requests: Iterator[Any], metadata: Metadata) -> Any:
        """Open a stream in both directions and return gRPC's call, an iterator of responses."""
        return self._channel.stream_stream(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )(requests, metadata=metadata)

    def close(self) -> None:
        """Close it; calls under way end with status CANCELLED."""
        self._channel.close()


def _credentials(config: EtcdConfig) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=_read(config.ca), certificate_chain=_read(config.cert), private_key=_read(config.key)
    )


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"certificate file for etcd: {error}", path=str(path)) from error
