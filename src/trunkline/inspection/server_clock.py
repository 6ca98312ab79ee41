"""What an etcd's HTTP side tells that its gRPC side does not: its clock, and the certificate it shows."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trunkline.etcd.config import EtcdConfig


def read_clock(config: EtcdConfig, endpoint: str, timeout: float) -> float | str:
    """Return how many seconds a server's clock is ahead of this machine's, or why that is not known.

    HTTP tells whole seconds, so what it says is right within one.
    """
    host, port = _split(endpoint)
    connection: http.client.HTTPConnection
    try:
        if config.is_secure:
            connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=_context(config))
        else:
            connection = http.client.HTTPConnection(host, port, timeout=timeout)
        try:
            connection.request("GET", "/version")
            date = connection.getresponse().getheader("Date")
        finally:
            connection.close()
        if date is None:
            return "it does not say what time it is"
        return parsedate_to_datetime(date).timestamp() + 0.5 - time.time()
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"it does not say what time it is: {error}"


def read_certificate(config: EtcdConfig, endpoint: str, timeout: float) -> float | str:
    """Return the seconds that a server's certificate lasts, once it is verified, or what is wrong with it."""
    host, port = _split(endpoint)
    try:
        with (
            socket.create_connection((host, port), timeout) as plain,
            _context(config).wrap_socket(plain, server_hostname=host) as secure,
        ):
            ends = (secure.getpeercert() or {}).get("notAfter")
    except (OSError, ValueError) as error:  # ssl's errors are OSErrors
        return str(error)
    return ssl.cert_time_to_seconds(str(ends)) - time.time() if ends else "it shows no certificate"


def _context(config: EtcdConfig) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=config.credentials.ca)
    if config.credentials.cert is not None:
        context.load_cert_chain(config.credentials.cert, config.credentials.key)
    return context


def _split(endpoint: str) -> tuple[str, int]:
    host, _, port = endpoint.rpartition(":")
    return host.strip("[]"), int(port)
