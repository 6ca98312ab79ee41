"""The POSIX backend: files, by threads that read and write them."""

from __future__ import annotations

from trunkline.backend.plugins.posix.backend import PosixBackend as PosixBackend
