"""Which blocks a request's cache is moved in, from which prefill rank to which decode rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from trunkline.bench.kv.split import divide
from trunkline.errors import ConfigurationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trunkline.bench.kv.access import Access, OpType
    from trunkline.bench.kv.model import ModelShape
    from trunkline.bench.kv.split import Shares, Split

MAX_PAGE = 1 << 20


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """What one rank moves to or from another for one request.

    Attributes:
        initiator: The rank that posts the transfer; prefill ranks come first, decode ranks after them.
        target: The rank whose memory is read or written.
        block_size: Bytes of one block.
        count: Blocks.
        total_bytes: All of them.
    """

    initiator: int
    target: int
    block_size: int
    count: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Side:
    """The caches of one side: what each rank holds, and where in its memory.

    The block of ``page``, ``layer``, ``part`` and ``head``, all counted within the rank, begins at
    ``page * page_stride + layer * layer_stride + part * part_stride + head * head_stride``.

    Attributes:
        shares: What each rank holds.
        page_bytes: Of one page, by rank.
        page_stride: By rank.
        layer_stride: The same for all ranks, as the others.
        part_stride: From the keys to the values.
        head_stride: Bytes of one part of one head in one page and layer.
        pages: For how many pages a rank has memory.
    """

    shares: Shares
    page_bytes: NDArray[np.int64]
    page_stride: NDArray[np.int64]
    layer_stride: int
    part_stride: int
    head_stride: int
    pages: int


class CachePlan:
    """How requests' caches go from prefill ranks to decode ranks.

    Every decode rank receives each of its heads and layers once, from one of the prefill ranks that hold them;
    several prefill ranks with the same heads share the decode ranks among them. Pages move whole.

    Args:
        shape: The model's.
        prefill: How the prefill ranks divide it.
        decode: How the decode ranks do.
        page_size: Tokens of a page.
        access: How the caches lie in memory.
        pages: For how many pages each rank has memory; matters to offsets alone.

    Raises:
        ConfigurationError: The page is no number of tokens, or a split does not fit the model.

    Attributes:
        prefill: The prefill ranks' caches.
        decode: The decode ranks' caches.
        pairs: Prefill rank and decode rank of each flow, N×2; decode ranks counted from 0.
        block_size: Bytes of the blocks of each flow.
        blocks_per_page: Blocks of each flow for one page.
    """

    def __init__(
        self, shape: ModelShape, prefill: Split, decode: Split, *, page_size: int, access: Access, pages: int = 1
    ) -> None:
        if not 1 <= page_size <= MAX_PAGE:
            raise ConfigurationError(f"a page of {page_size} tokens can't be; it must be 1 to {MAX_PAGE:,}")
        self.shape = shape
        self.page_size = page_size
        self.access: Access = access
        self.prefill = self._side(prefill, pages)
        self.decode = self._side(decode, pages)
        self._match()

    def _side(self, split: Split, pages: int) -> Side:
        shares = divide(self.shape, split)
        head = self.page_size * self.shape.part_bytes
        layer = self.shape.parts * shares.heads * head
        page_bytes = shares.layers * layer
        is_block = self.access == "block"
        return Side(
            shares=shares,
            page_bytes=page_bytes,
            page_stride=page_bytes if is_block else np.full_like(page_bytes, layer),
            layer_stride=layer if is_block else layer * pages,
            part_stride=shares.heads * head,
            head_stride=head,
            pages=pages,
        )

    def _match(self) -> None:
        """Find the pairs, what they have in common, and what of it is contiguous on both sides."""
        source, sink = self.prefill.shares, self.decode.shares
        low = np.maximum(source.first_layer[:, None], sink.first_layer)
        layers = np.minimum((source.first_layer + source.layers)[:, None], sink.first_layer + sink.layers) - low
        first = np.maximum(source.first_head[:, None], sink.first_head)
        heads = np.minimum((source.first_head + source.heads)[:, None], sink.first_head + sink.heads) - first
        # decode ranks of one stage take replicas apart from each other, and so do the stages where there are more
        spread = sink.stage % max(1, source.replicas // sink.replicas)
        chosen = source.replica[:, None] == sink.replica * source.replicas // sink.replicas + spread
        self.pairs = np.argwhere((layers > 0) & (heads > 0) & chosen)
        where = tuple(self.pairs.T)
        self._first_layer, self._layers, self._first_head = low[where], layers[where], first[where]
        common = heads[where]
        piece = common * self.prefill.head_stride
        self._is_whole = (common == source.heads) & (common == sink.heads)
        if self.access == "block":
            self.block_size = np.where(self._is_whole, self._layers * self.shape.parts * piece, piece)
            self.blocks_per_page = np.where(self._is_whole, 1, self._layers * self.shape.parts)
        else:
            self.block_size = np.where(self._is_whole, self.shape.parts * piece, piece)
            self.blocks_per_page = np.where(self._is_whole, self._layers, self._layers * self.shape.parts)

    def pages_of(self, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many pages requests of so many tokens take."""
        return -(-tokens // self.page_size)

    @property
    def rank_bytes(self) -> NDArray[np.int64]:
        """Bytes of each rank's memory, prefill ranks first."""
        return np.concatenate([side.page_bytes * side.pages for side in (self.prefill, self.decode)])

    @property
    def page_bytes(self) -> int:
        """Bytes that one page moves, over all pairs."""
        return int(self.block_size @ self.blocks_per_page)

    def flows(self, tokens: int, op_type: OpType) -> list[Flow]:
        """Return what one request moves.

        Args:
            tokens: Of its input.
            op_type: READ: the decode ranks read; WRITE: the prefill ranks write.
        """
        count = self.blocks_per_page * int(self.pages_of(np.asarray(tokens, np.int64)))
        pairs = self.pairs + np.array([0, len(self.prefill.page_bytes)])
        initiators, targets = pairs.T if op_type == "WRITE" else pairs.T[::-1]
        return [
            Flow(initiator=initiator, target=target, block_size=size, count=blocks, total_bytes=size * blocks)
            for initiator, target, size, blocks in zip(
                initiators.tolist(), targets.tolist(), self.block_size.tolist(), count.tolist(), strict=True
            )
        ]

    def offsets(
        self, flow: int, source_pages: NDArray[np.int64], sink_pages: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where the blocks of a flow begin in the prefill rank's memory, and in the decode rank's.

        Args:
            flow: Its index.
            source_pages: The request's pages, as the prefill rank numbers them.
            sink_pages: The same pages, as the decode rank does.
        """
        whole = bool(self._is_whole[flow])
        steps = 1 if whole and self.access == "block" else int(self._layers[flow])
        layers = int(self._first_layer[flow]) + np.arange(steps, dtype=np.int64)
        parts = np.arange(1 if whole else self.shape.parts, dtype=np.int64)
        found = []
        for side, rank, pages in zip(
            (self.prefill, self.decode), self.pairs[flow].tolist(), (source_pages, sink_pages), strict=True
        ):
            head = int(self._first_head[flow] - side.shares.first_head[rank])
            found.append(
                pages[:, None, None] * side.page_stride[rank]
                + (layers - side.shares.first_layer[rank])[:, None] * side.layer_stride
                + parts * side.part_stride
                + head * side.head_stride
            )
        return found[0].reshape(-1), found[1].reshape(-1)
