"""Finds backends by name: the built-in ones, and installed packages' entry points in ``trunkline.backends``."""

from __future__ import annotations

import importlib
import inspect
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from trunkline.errors import BackendUnavailableError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from trunkline.backend.contract import Backend

ENTRY_POINTS = "trunkline.backends"

_BUILT_IN = {
    "cma": "trunkline.backend.plugins.cma:CmaBackend",
    "gds": "trunkline.backend.plugins.gds:GdsBackend",
    "gds_mt": "trunkline.backend.plugins.gds:GdsMtBackend",
    "loopback": "trunkline.backend.plugins.loopback:LoopbackBackend",
    "obj": "trunkline.backend.plugins.object:ObjectBackend",
    "posix": "trunkline.backend.plugins.posix:PosixBackend",
    "ucx": "trunkline.backend.plugins.ucx:UcxBackend",
}

_OTHER_NAMES = {"object": "obj"}
"""Words for backends besides their names."""

_makeable: set[tuple[str, str]] = set()
"""Which backends could be made in this process, by name and place."""


def canonical_name(name: str) -> str:
    """Return a backend's name as it stands in metadata, however a caller wrote it."""
    return _OTHER_NAMES.get(name.lower(), name.lower()).upper()


def create_backend(name: str, agent_name: str, **options: Any) -> Backend:
    """Make the backend of that name (any case) for an agent.

    Args:
        name: One of :func:`backend_names`.
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


def available_backends(*, but: Collection[str] = ()) -> dict[str, str | None]:
    """Return, for every known backend, None if it can be used here, else the reason why it can't.

    A backend counts as usable when it can be made; it is closed again at once. That is done once in a process for each
    that can be: GPUDirect Storage then initialises CUDA.

    Args:
        but: Names of backends to leave out.
    """
    reasons: dict[str, str | None] = {}
    for name, place in sorted(_known().items()):
        if canonical_name(name) in but:
            continue
        try:
            if (name, place) not in _makeable:
                create_backend(name, "probe").close()
                _makeable.add((name, place))
            reasons[name] = None
        except Exception as error:  # a plug-in of others may raise anything; the reason is reported
            reasons[name] = str(error) or type(error).__name__
    return reasons


def _known() -> dict[str, str]:
    found = {canonical_name(point.name).lower(): point.value for point in entry_points(group=ENTRY_POINTS)}
    return found | _BUILT_IN


def _load(name: str) -> Callable[..., Backend]:
    known = _known()
    target = known.get(canonical_name(name).lower())
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
