"""Workers that act together: ranks, barriers, broadcasts, reductions, messages, over a store. Usable by itself."""

from trunkline.coordination.group import Group

__all__ = ["Group"]
