"""One gRPC channel to one etcd member."""

from __future__ import annotations

import ssl
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
    """Return what gRPC needs. What it would only log, or report as a failure to connect, is refused here."""
    given = config.credentials
    ca, cert, key = (
        _read(getattr(given, name), what, config.url)
        for name, what in (("ca", "CA certificates"), ("cert", "client certificate"), ("key", "private key"))
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is not None:
        try:
            context.load_verify_locations(cadata=ca.decode("ascii"))
        except (ssl.SSLError, ValueError):
            raise _unusable("CA certificates", given.ca, config.url, "they are no PEM certificates") from None
    if cert is not None:
        assert given.cert is not None
        try:
            context.load_cert_chain(given.cert, given.key, password=_refuse)
        except (OSError, ValueError) as error:  # what OpenSSL says of it is an OSError, too
            reason = getattr(error, "reason", None) or error
            flaw = f"it is no PEM certificate with the private key in {given.key}, unencrypted ({reason})"
            raise _unusable("client certificate", given.cert, config.url, flaw) from None
    return grpc.ssl_channel_credentials(root_certificates=ca, certificate_chain=cert, private_key=key)


def _refuse() -> str:
    raise ValueError("the key is encrypted")


def _read(path: Path | None, what: str, url: str) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unusable(what, path, url, f"{error.strerror}") from error


def _unusable(what: str, path: Path | None, url: str, flaw: str) -> ConfigurationError:
    return ConfigurationError(f"{what} for etcd at {url}: {path} can't be used: {flaw}", path=str(path), url=url)
