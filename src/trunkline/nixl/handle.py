"""Handles of prepared descriptor lists and of transfers."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trunkline.nixl.raw_agent import nixlAgent


class _Handle:
    """What both have in common.

    Args:
        agent: The low-level agent that made it.
        value: Its number there.
    """

    __slots__ = ("_agent", "_handle", "_released")

    def __init__(self, agent: nixlAgent, value: int) -> None:
        self._agent = agent
        self._handle = value
        self._released = False

    def release(self) -> None:
        """Let go of it; once is enough."""
        if not self._released:
            self._let_go()
            self._released = True

    def _let_go(self) -> None:
        raise NotImplementedError

    def __del__(self) -> None:
        if not self._released and not sys.is_finalizing():
            with contextlib.suppress(Exception):  # nobody could take it
                self._let_go()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._handle:#x}, released={self._released})"


class nixl_prepped_dlist_handle(_Handle):
    """A descriptor list that was prepared for transfers. Transfers that were made from it don't need it."""

    __slots__ = ()

    def _let_go(self) -> None:
        self._agent.releasedDlistH(self._handle)


class nixl_xfer_handle(_Handle):
    """A transfer. Released while it runs it is cancelled, and its memory stays in use until it is quiet."""

    __slots__ = ()

    def _let_go(self) -> None:
        self._agent.releaseXferReq(self._handle)
