from __future__ import annotations

from typing import Any

import msgspec
import pytest

from trunkline.bench.options import Options
from trunkline.bench.team import Link, decode_cards, decode_introductions, decode_links, encode, introduce
from trunkline.errors import GroupError


@pytest.mark.parametrize(
    "garbage", [b"", b"\xc1", b"\x80", msgspec.msgpack.encode({"rank": "0"}), b"\xdd\xff\xff\xff\xff", 5, None]
)
def test_what_is_no_message_of_a_worker_is_told_with_its_rank(garbage: Any) -> None:
    with pytest.raises(GroupError, match="rank 1 sent an introduction that can't be read"):
        decode_introductions([introduce(0, Options()), garbage])
    with pytest.raises(GroupError, match="rank 0 sent a card that can't be read"):
        decode_cards([garbage])
    with pytest.raises(GroupError, match="rank 1 sent links that can't be read"):
        decode_links([encode([]), garbage])


def test_links_of_all_are_one_list() -> None:
    links = [Link(0, 1, "tcp"), Link(2, 3, "cma")]
    assert decode_links([encode(links[:1]), encode([]), encode(links[1:])]) == links
