"""Cross-memory attach between processes of one host. Importing this loads no native module: making a backend does."""

from __future__ import annotations

from trunkline.backend.plugins.cma.backend import CmaBackend as CmaBackend
from trunkline.backend.plugins.cma.peer import CmaPeer as CmaPeer
