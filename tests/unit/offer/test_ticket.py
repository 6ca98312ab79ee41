"""Tickets as text."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.errors import TicketError
from trunkline.exchange.address import Address
from trunkline.metadata.key import is_agent_name
from trunkline.offer.ticket import Ticket, is_ticket, parse_ticket

HOSTS = st.sampled_from(["127.0.0.1", "::1", "fe80::1", "node-3.example.org"])
TICKETS = st.builds(
    Ticket,
    st.builds(Address, HOSTS, st.integers(1, 65535)),
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=32, max_size=32),
)
TICKET = Ticket(Address("127.0.0.1", 4000), b"s" * 16, b"d" * 32)


@given(TICKETS)
def test_it_comes_back_and_is_no_name(ticket: Ticket) -> None:
    text = str(ticket)
    assert parse_ticket(text) == ticket
    assert is_ticket(text)
    assert not is_agent_name(text)
    assert text.isascii()


@given(st.text(max_size=120) | st.text(max_size=120).map("trunkline://".__add__))
def test_any_text_is_a_ticket_or_refused(text: str) -> None:
    with pytest.raises(TicketError, match="this is not a ticket"):
        parse_ticket(text)


@given(st.integers(0, 200), st.characters(codec="ascii"))
def test_one_that_was_copied_wrong_is_another_or_refused(place: int, letter: str) -> None:
    text = str(TICKET)
    place %= len(text)
    for changed in (text[:place], text[:place] + letter + text[place + 1 :]):
        try:
            ticket = parse_ticket(changed)
        except TicketError:
            assert changed != text
        else:
            assert (ticket == TICKET) == (changed == text)


def test_a_bad_one_is_not_repeated() -> None:
    with pytest.raises(TicketError) as raised:
        parse_ticket(str(TICKET)[:-1])
    assert str(TICKET).split("/")[3] not in str(raised.value)


def test_its_secret_is_in_no_repr() -> None:
    assert "ssss" not in repr(TICKET)
    assert str(TICKET).split("/")[3] not in repr(TICKET)
    assert shlex.quote(str(TICKET)) == str(TICKET)
