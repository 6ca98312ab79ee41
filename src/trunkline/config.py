"""Settings from the environment: names of NIXL and etcd where they exist, else ``TRUNKLINE_…``.

The order is always argument, environment, default. Nothing is read at import.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trunkline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_TTL = 30.0
"""Seconds until the keys of an agent that stopped refreshing its lease vanish."""

DEFAULT_LISTEN_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says.

    Attributes:
        store: ``NIXL_ETCD_ENDPOINTS``: the store's endpoints, or None.
        namespace: ``NIXL_ETCD_NAMESPACE``, or None for the default.
        session_ttl: ``TRUNKLINE_SESSION_TTL``, in seconds.
        cma: ``TRUNKLINE_CMA``: whether processes of one host copy each other's memory (``on``, the default); ``off``
            leaves that to UCX; ``strict`` keeps UCX from it, too.
        listen_host: ``TRUNKLINE_LISTEN_HOST``: the address at which agents with NIXL's API listen, if they do.
    """

    store: str | None = None
    namespace: str | None = None
    session_ttl: float = DEFAULT_TTL
    cma: str = "on"
    listen_host: str = DEFAULT_LISTEN_HOST

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the settings; empty variables count as unset.

        Raises:
            ConfigurationError: A variable holds something that can't be used.
        """
        variables = os.environ if environment is None else environment
        return cls(
            store=variables.get("NIXL_ETCD_ENDPOINTS") or None,
            namespace=variables.get("NIXL_ETCD_NAMESPACE") or None,
            session_ttl=_seconds(variables, "TRUNKLINE_SESSION_TTL", DEFAULT_TTL),
            cma=_choice(variables, "TRUNKLINE_CMA", ("on", "off", "strict")),
            listen_host=variables.get("TRUNKLINE_LISTEN_HOST") or DEFAULT_LISTEN_HOST,
        )


def _choice(variables: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    """Return what a variable says; the first choice if it is not set."""
    text = variables.get(name) or choices[0]
    if text not in choices:
        raise ConfigurationError(f"{name}={text!r}: it can be {', '.join(choices)}", variable=name)
    return text


def _seconds(variables: Mapping[str, str], name: str, default: float) -> float:
    text = variables.get(name)
    if not text:
        return default
    try:
        return float(text)
    except ValueError:
        raise ConfigurationError(f"{name}={text!r} is not a number of seconds", variable=name) from None
