"""Finds backends by name: the built-in ones, and installed packages' entry points in ``trunkline.backends``."""

from __future__ import annotations

import importlib
import inspect
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from trunkline.errors import BackendUnavailableError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.backend.contract import Backend

ENTRY_POINTS = "trunkline.backends"

_BUILT_IN = {
    "cma": "trunkline.backend.plugins.cma:CmaBackend",
    "gds": "trunkline.backend.plugins.gds:GdsBackend",
    "gds_mt": "trunkline.backend.plugins.gds:GdsMtBackend",
    "loopback": "trunkline.backend.plugins.loopback:LoopbackBackend",
    "object": "trunkline.backend.plugins.object:ObjectBackend",
    "posix": "trunkline.backend.plugins.posix:PosixBackend",
    "ucx": "trunkline.backend.plugins.ucx:UcxBackend",
}

NIXL_NAMES = {"obj": "object"}
"""NIXL's names where ours differ."""


def create_backend(name: str, agent_name: str, **options: Any) -> Backend:
    """Make the backend of that name (any case) for an agent.

    Args:
        name: One of :func:`available_backends`, or NIXL's name for it.
        agent_name: The agent's name.
        **options: The backend's own settings.

    Raises:
        ConfigurationError: No backend of that name is installed, or it has no such option.
        BackendUnavailableError: It can't be used on this machine; says what is missing.
    """
    factory = _load(name)
    try:
        return factory(agent_name, **options)
    except TypeError as error:
        if options and "argument" in str(error):
            raise ConfigurationError(f"backend {name!r} refused its options: {error}", backend=name) from error
        raise


def backend_options(name: str) -> dict[str, Any]:
    """Return the settings that a backend takes, with their defaults; ``**`` among them if it takes others, too.

    Raises:
        ConfigurationError: No backend of that name is installed.
        BackendUnavailableError: It could not be imported.
    """
    parameters = inspect.signature(_load(name)).parameters.values()
    options = {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        options["**"] = None
    return options


def backend_names() -> list[str]:
    """Return the names of all backends that are installed, usable here or not."""
    return sorted(_known())


def available_backends() -> dict[str, str | None]:
    """Return, for every known backend, None if it can be used here, else the reason why it can't.

    A backend counts as usable when it can be made; it is closed again at once.
    """
    reasons: dict[str, str | None] = {}
    for name in sorted(_known()):
        try:
            create_backend(name, "probe").close()
            reasons[name] = None
        except Exception as error:  # a plug-in of others may raise anything; the reason is reported
            reasons[name] = str(error) or type(error).__name__
    return reasons


def _known() -> dict[str, str]:
    found = {point.name.lower(): point.value for point in entry_points(group=ENTRY_POINTS)}
    return found | _BUILT_IN


def _load(name: str) -> Callable[..., Backend]:
    known = _known()
    target = known.get(NIXL_NAMES.get(name.lower(), name.lower()))
    if target is None:
        raise ConfigurationError(
            f"there is no backend {name!r}; installed: {', '.join(sorted(known))}",
            backend=name,
        )
    module_name, _, attribute = target.partition(":")
    try:
        factory: Callable[..., Backend] = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise BackendUnavailableError(
            f"backend {name!r} could not be imported from {target} ({error}); reinstall the package that brings it",
            backend=name,
        ) from error
    return factory
