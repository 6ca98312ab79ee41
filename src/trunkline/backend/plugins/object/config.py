"""From options to an open store: URLs, obstore's own options, and the parameters of NIXL's OBJ plug-in."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from trunkline.backend.plugins.object.failure import Redaction
from trunkline.errors import BackendUnavailableError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from obstore.store import ObjectStore

PART_SIZE = 8 << 20
LEAST_PART_SIZE = 5 << 20
"""S3 refuses smaller parts of an upload, but for the last."""

LONGEST = 365 * 86400.0
"""Seconds; an upper bound for what is meant as a time to wait."""

_NAMES_OF_NIXL = {
    "access_key": "access_key_id",
    "secret_key": "secret_access_key",
    "endpoint_override": "endpoint",
    "use_virtual_addressing": "virtual_hosted_style_request",
}
_NEEDS_SDK = {"resp_checksum": "required", "accelerated": "false", "type": ""}
"""NIXL's parameters that ask for more than this backend can do, with the value that asks for nothing."""


@dataclass(frozen=True, slots=True)
class Location:
    """An open store.

    Attributes:
        store: obstore's.
        label: What it is called in messages, as a URL without secrets.
        redaction: Takes the secrets out of messages.
    """

    store: ObjectStore
    label: str
    redaction: Redaction = field(repr=False)

    def name(self, key: str) -> str:
        """Return what an object is called in messages."""
        return f"{self.label}{key}" if self.label.endswith("/") else f"{self.label}/{key}"


def open_location(
    url: str | None,
    options: dict[str, Any],
    *,
    max_retries: int | None = None,
    retry_timeout: float | None = None,
    timeout: float | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Location:
    """Open the store that a URL or a bucket names; nothing is sent yet.

    Raises:
        BackendUnavailableError: obstore is not installed, or no store was named.
        ConfigurationError: The URL or an option can't be used.
    """
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError as error:
        raise BackendUnavailableError(
            f"object stores need the package obstore ({error}): pip install 'trunkline[object]'"
        ) from error
    redaction = Redaction(options, environment)
    options = _from_nixl(options)
    bucket = options.pop("bucket", None)
    if url is not None and bucket:
        raise ConfigurationError(f"a store is named by url= or by bucket={bucket!r}, not by both", option="bucket")
    if url is None:
        bucket = bucket or environment.get("AWS_DEFAULT_BUCKET")
        if not bucket:
            raise BackendUnavailableError(
                "no object store was named: give url= (s3://bucket, gs://bucket, az://account/container, "
                "file:///folder, memory://) or bucket=, or set AWS_DEFAULT_BUCKET"
            )
        url = f"s3://{bucket}"
    label = _label(url)
    scheme = urlsplit(url).scheme
    client = _client_options(options)
    protocol = options.pop("scheme", "https")
    endpoint = options.get("endpoint") or (environment.get("AWS_ENDPOINT_OVERRIDE") if scheme in {"s3", "s3a"} else "")
    if endpoint:
        options["endpoint"] = endpoint if "://" in endpoint else f"{protocol}://{endpoint}"
        if options["endpoint"].startswith("http://"):
            client.setdefault("allow_http", True)
    if timeout is not None:
        client["timeout"] = timedelta(seconds=timeout)
    retry: dict[str, Any] = {}
    if max_retries is not None:
        retry["max_retries"] = max_retries
    if retry_timeout is not None:
        retry["retry_timeout"] = timedelta(seconds=retry_timeout)
    keywords: dict[str, Any] = dict(options)
    if scheme not in {"file", "memory"}:
        keywords |= {"client_options": client or None, "retry_config": retry or None}
    try:
        store = from_url(url, **keywords)
    except (BaseError, ValueError, TypeError, OSError) as error:
        given = ", ".join(sorted(options)) or "none"
        raise ConfigurationError(
            f"object store {label} could not be opened with these options ({given}): {redaction.clean(error)}",
            url=label,
        ) from None  # the cause may hold the value of an option, and so a secret
    return Location(store, label, redaction)


def whole_number(option: str, value: object, least: int = 1) -> int:
    """Return an option's number; NIXL's API gives texts."""
    try:
        number = int(value) if isinstance(value, int | str) else least - 1
    except ValueError:
        number = least - 1
    if not least <= number < 2**31:
        raise ConfigurationError(f"{option}={value!r}: a whole number from {least} on is needed", option=option)
    return number


def seconds(option: str, value: object) -> float | None:
    """Return an option's seconds, None if it was not given."""
    if value is None:
        return None
    try:
        number = float(value) if isinstance(value, int | float | str) else 0.0
    except ValueError:
        number = 0.0
    if not 0 < number < LONGEST:
        raise ConfigurationError(f"{option}={value!r}: a number of seconds above 0 is needed", option=option)
    return number


def _client_options(options: dict[str, Any]) -> dict[str, Any]:
    """Take out what is for the HTTP client."""
    client = options.pop("client_options", None) or {}
    if not isinstance(client, dict):
        raise ConfigurationError(
            f"client_options is a dict of obstore's options for HTTP, not a {type(client).__name__}",
            option="client_options",
        )
    ca_bundle = options.pop("ca_bundle", None)
    if not ca_bundle:
        return dict(client)
    try:
        return {**client, "root_certificate": Path(ca_bundle).read_bytes()}
    except OSError as error:
        raise ConfigurationError(f"ca_bundle={ca_bundle!r} can't be read: {error}", option="ca_bundle") from error


def _from_nixl(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options by obstore's names."""
    options = {_NAMES_OF_NIXL.get(name, name): value for name, value in options.items()}
    for name, harmless in _NEEDS_SDK.items():
        value = options.pop(name, harmless)
        if str(value).lower() != harmless:
            raise ConfigurationError(
                f"{name}={value!r} is for NIXL's own OBJ plug-in: this backend has nothing like it; leave it out",
                option=name,
            )
    checksum = str(options.pop("req_checksum", "required")).lower()
    if checksum == "supported":
        options.setdefault("checksum_algorithm", "CRC64NVME")
    elif checksum != "required":
        raise ConfigurationError(f"req_checksum={checksum!r}: it is 'required' or 'supported'", option="req_checksum")
    options.pop("throughput_target_gbps", None)  # a hint to NIXL's own client; ours is `concurrency`
    addressing = options.get("virtual_hosted_style_request")
    if isinstance(addressing, str):
        options["virtual_hosted_style_request"] = addressing.lower() == "true"
    return options


def _label(url: str) -> str:
    """Return a URL as it is shown; secrets in it are refused, not shown."""
    try:
        parts = urlsplit(url)
        has_user = "@" in parts.netloc and parts.scheme not in {"abfs", "abfss"}
    except ValueError:
        raise ConfigurationError("the URL of the object store is not a URL", option="url") from None
    if has_user or parts.query or parts.fragment:
        raise ConfigurationError(
            f"the URL of an object store ({parts.scheme}://…) is no place for credentials or options: give them as "
            "options of their own, or by the environment",
            option="url",
        )
    if not parts.scheme:
        raise ConfigurationError(f"url={url!r} has no scheme: s3://bucket, file:///folder, memory://", option="url")
    path = parts.path.rstrip("/") or ("/" if parts.scheme == "file" else "")
    return f"{parts.scheme}://{parts.netloc}{path}"
