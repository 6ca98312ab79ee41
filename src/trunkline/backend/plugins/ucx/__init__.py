"""The UCX backend. Importing this loads no UCX: making a :class:`UcxBackend` does."""

from __future__ import annotations

from trunkline.backend.plugins.ucx.backend import UcxBackend as UcxBackend
from trunkline.backend.plugins.ucx.peer import UcxPeer as UcxPeer
