"""NIXL's loggers: below ``nixl``, on standard output, from INFO on; ``NIXL_LOG_LEVEL`` sets another level."""

from __future__ import annotations

import logging
import os
import sys

_LEVELS = {
    "TRACE": logging.DEBUG,
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "ERROR": logging.ERROR,
    "FATAL": logging.CRITICAL,
}

_root = logging.getLogger("nixl")
_is_set_up = False


def setup_logging() -> None:
    """Give the ``nixl`` logger its handler and level; once, and not if the application has given it a handler."""
    global _is_set_up  # noqa: PLW0603 - a logger is the process's
    if _is_set_up:
        return
    _is_set_up = True
    if not _root.handlers:
        handler = logging.StreamHandler(sys.stdout)
        form = "%(asctime)s NIXL %(levelname)-7s %(filename)s:%(lineno)d %(message)s"
        handler.setFormatter(logging.Formatter(form, "%Y-%m-%d %H:%M:%S"))
        _root.addHandler(handler)
        _root.setLevel(logging.INFO)
        _root.propagate = False
    wanted = os.environ.get("NIXL_LOG_LEVEL", "")
    if wanted.upper() in _LEVELS:
        _root.setLevel(_LEVELS[wanted.upper()])
    elif wanted:
        _root.warning("NIXL_LOG_LEVEL=%r is none of %s", wanted, ", ".join(_LEVELS))


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module, below ``nixl``."""
    setup_logging()
    return logging.getLogger(f"nixl.{name.lstrip('_')}")
