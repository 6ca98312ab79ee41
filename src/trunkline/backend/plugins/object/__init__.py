"""Moves bytes between this process's memory and an object store: S3, GCS, Azure, a local folder, memory."""

from __future__ import annotations

from trunkline.backend.plugins.object.backend import ObjectBackend

__all__ = ["ObjectBackend"]
