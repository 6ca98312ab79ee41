"""What the workers of a run tell each other before they begin."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from trunkline.bench.options import settings
from trunkline.errors import ConfigurationError, GroupError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trunkline.bench.options import Options

T = TypeVar("T")

OWN = frozenset(
    {
        "local", "workers", "rank", "etcd_endpoints", "device_list", "csv", "json", "report", "limit_gbps", "quiet",
        "filepath", "filenames",
    }
)  # fmt: skip
"""Options that each worker has for itself; the others must be the same on all."""


class Introduction(msgspec.Struct, frozen=True, kw_only=True):
    """Who a worker is.

    Attributes:
        rank: Its number.
        host: Its host.
        pid: Its process.
        options: The options that must be the same on all.
    """

    rank: int
    host: str
    pid: int
    options: dict[str, str | int | float | bool]


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker's memory is reached.

    Attributes:
        agent: Its agent's name.
        handed: What its engine wants to be handed over.
        addresses: Where its buffers for others begin.
    """

    agent: str
    handed: bytes
    addresses: tuple[int, ...]


class Link(msgspec.Struct, frozen=True):
    """What carries a pair's bytes."""

    initiator: int
    target: int
    transport: str


_INTRODUCTION = msgspec.msgpack.Decoder(Introduction)
_CARD = msgspec.msgpack.Decoder(Card)
_LINKS = msgspec.msgpack.Decoder(list[Link])


def introduce(rank: int, options: Options) -> bytes:
    """Return this worker's introduction, encoded."""
    shared = {
        name: getattr(options, name)
        for name, setting in settings().items()
        if name not in OWN and not setting.is_secret
    }
    return msgspec.msgpack.encode(Introduction(rank=rank, host=socket.gethostname(), pid=os.getpid(), options=shared))


def decode_all(decoder: msgspec.msgpack.Decoder[T], those: Sequence[bytes], what: str) -> list[T]:
    """Decode what all workers sent.

    Args:
        decoder: What it should be.
        those: What each sent, by rank.
        what: What it should be, in words.

    Raises:
        GroupError: It is not that; it names the rank.
    """
    return [decode_one(decoder, each, rank, what) for rank, each in enumerate(those)]


def decode_one(decoder: msgspec.msgpack.Decoder[T], sent: bytes, rank: int, what: str) -> T:
    """Decode what one worker sent; arguments and error as for :func:`decode_all`."""
    try:
        return decoder.decode(sent)
    except (msgspec.DecodeError, TypeError) as error:  # TypeError: no bytes
        raise GroupError(
            f"rank {rank} sent {what} that can't be read ({error}): it is another version of Trunkline, or "
            "no worker of the benchmark; start all workers again, with the same version",
            rank=rank,
        ) from error


def decode_introductions(those: Sequence[bytes]) -> list[Introduction]:
    """Decode what all sent, and check that they want the same.

    Raises:
        ConfigurationError: Two have different options; it names them.
        GroupError: Somebody sent something else.
    """
    found = decode_all(_INTRODUCTION, those, "an introduction")
    first = found[0]
    for other in found[1:]:
        for name in dict.fromkeys([*first.options, *other.options]):
            values = [each.options.get(name) for each in (first, other)]
            if values[0] != values[1]:
                raise ConfigurationError(
                    f"workers want different things: --{name.replace('_', '-')} is {values[0]!r} at rank {first.rank} "
                    f"(pid {first.pid} on {first.host}) and {values[1]!r} at rank {other.rank} (pid {other.pid} on "
                    f"{other.host}); give all of them the same",
                    option=name,
                )
    return found


def encode(value: Any) -> bytes:
    """Encode a card, or a list of links."""
    return msgspec.msgpack.encode(value)


def decode_cards(those: Sequence[bytes]) -> list[Card]:
    """Decode everybody's card, by rank."""
    return decode_all(_CARD, those, "a card")


def decode_links(those: Sequence[bytes]) -> list[Link]:
    """Decode everybody's links, in the order of ranks."""
    return [link for its in decode_all(_LINKS, those, "links") for link in its]
