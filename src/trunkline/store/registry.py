"""Stores by URL scheme: ours, and those that other packages install."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from inspect import signature
from typing import TYPE_CHECKING, Any

from trunkline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.store.contract import Store

ENTRY_POINT_GROUP = "trunkline.stores"
"""Each entry point is named after a URL scheme and leads to ``open_store(url, **options) -> Store``."""

_ETCD = "trunkline.store.plugins.etcd"
_REDIS = "trunkline.store.plugins.redis"
_BUILT_IN = {
    "memory": "trunkline.store.plugins.memory",
    "etcd": _ETCD,
    "etcds": _ETCD,
    "http": _ETCD,
    "https": _ETCD,
    "redis": _REDIS,
    "rediss": _REDIS,
    "valkey": _REDIS,
    "valkeys": _REDIS,
}


def open_store(url: str, **options: Any) -> Store:
    """Open the store that a URL names.

    Args:
        url: ``memory://NAME``; ``etcd://``, ``etcds://``, ``http://`` or ``https://`` with ``host:port``, all
            meaning etcd; or ``host:port`` alone. Several endpoints are divided by commas, as in
            ``NIXL_ETCD_ENDPOINTS``. ``redis://host:port/database`` or ``rediss://`` for Redis and Valkey. Other
            schemes come from installed plug-ins.
        **options: What the plug-in takes besides (etcd and Redis: username, password, ca, cert, key, and credentials,
            the path of a file that holds these).

    Raises:
        ConfigurationError: The scheme is unknown or its plug-in can't be loaded, or the plug-in
            does not take the URL or an option.
    """
    scheme, divider, _ = url.partition("://")
    if not divider:
        scheme, url = "etcd", f"etcd://{url}"
    opener = _opener(scheme.lower())
    try:
        signature(opener).bind(url, **options)
    except TypeError as error:
        raise ConfigurationError(f"the store {scheme}:// can't be opened so: {error}", scheme=scheme) from None
    return opener(url, **options)


def _opener(scheme: str) -> Callable[..., Store]:
    if scheme in _BUILT_IN:
        opener: Callable[..., Store] = import_module(_BUILT_IN[scheme]).open_store
        return opener
    plugins = {plugin.name: plugin for plugin in entry_points(group=ENTRY_POINT_GROUP)}
    if scheme not in plugins:
        known = ", ".join(sorted(_BUILT_IN.keys() | plugins.keys()))
        raise ConfigurationError(f"no store for URLs that start with {scheme}://; known: {known}", scheme=scheme)
    try:
        loaded: Callable[..., Store] = plugins[scheme].load()
    except Exception as error:  # whatever a foreign module raises while it is imported
        raise ConfigurationError(
            f"the store plug-in {plugins[scheme].value} for {scheme}:// can't be loaded: {error}", scheme=scheme
        ) from error
    return loaded
