"""Memory of GPUs and hosts ↔ files, through NVIDIA's cuFile (GPUDirect Storage)."""

from __future__ import annotations

from trunkline.backend.plugins.gds.backend import GdsBackend, GdsMtBackend

__all__ = ["GdsBackend", "GdsMtBackend"]
