"""How caches lie in memory, and who moves them. Imports little, so that the command line may."""

from __future__ import annotations

from typing import Literal

Access = Literal["block", "layer"]
"""How a rank's cache lies in memory: a page's layers together (``block``), or a layer's pages (``layer``).

Within a page and layer come all keys, then all values; there head by head, and token by token.
"""

OpType = Literal["READ", "WRITE"]
"""Who posts the transfers: WRITE, those that have the bytes; READ, those that want them."""
