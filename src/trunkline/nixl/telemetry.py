"""What a transfer cost, as NIXL tells it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from trunkline.nixl.exception import nixlInvalidParamError
from trunkline.nixl.logging import get_logger

log = get_logger("telemetry")

_VARIABLE = "NIXL_TELEMETRY_ENABLE"
_ON = ("y", "yes", "on", "1", "true", "enable")
_OFF = ("n", "no", "off", "0", "false", "disable")


def is_captured(asked: bool) -> bool:
    """Return whether an agent captures telemetry: ``NIXL_TELEMETRY_ENABLE`` goes before what its config asks for.

    Raises:
        nixlInvalidParamError: The variable says neither yes nor no.
    """
    setting = os.environ.get(_VARIABLE)
    if setting is None:
        return asked
    if setting.lower() in _ON:
        return True
    if setting.lower() not in _OFF:
        raise nixlInvalidParamError(
            f"{_VARIABLE}={setting!r} says neither yes ({', '.join(_ON)}) nor no ({', '.join(_OFF)}): "
            "set one of them, or unset it"
        )
    if asked:
        log.warning("%s=%s: the telemetry that the agent's config asks for is not captured", _VARIABLE, setting)
    return False


@dataclass(frozen=True, slots=True)
class nixlXferTelemetry:
    """Figures of a transfer's last round. Times are integers, in microseconds.

    Attributes:
        startTime: When it was posted, on the monotonic clock.
        postDuration: How long the call took that posted it.
        xferDuration: How long it took until it was seen to have ended; 0 while it runs.
        totalBytes: Size of the data.
        descCount: Descriptors, counted as NIXL does: those of a prepared transfer after neighbours were merged, unless
            that was not wanted; else those that were given.
        backendName: Which backend moved it. Newer than NIXL 1.5.1.
    """

    startTime: int = 0
    postDuration: int = 0
    xferDuration: int = 0
    totalBytes: int = 0
    descCount: int = 0
    backendName: str = ""
