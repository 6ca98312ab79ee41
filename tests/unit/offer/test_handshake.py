"""Both sides prove that they know the secret, and don't say it."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.errors import TicketError
from trunkline.offer.handshake import MAX_REQUEST, OfferSide, Step, TakerSide

SECRET = b"0123456789abcdef"
CARD = b"the card"
MESSAGES = st.binary(max_size=MAX_REQUEST) | st.builds(
    bytes.__add__, st.sampled_from([b"HELO", b"TAKE", b"DONE"]), st.binary(min_size=32, max_size=32)
)


def test_it_goes_through_and_the_secret_is_never_said() -> None:
    offer, taker = OfferSide(SECRET), TakerSide(SECRET, "there")
    said = [taker.hello()]
    said.append(offer.receive(said[-1]) or b"")
    said.append(taker.prove(said[-1]))
    assert offer.receive(said[-1]) is None
    assert offer.step.name == "TAKING"
    said.append(offer.give(CARD))
    assert taker.card(said[-1]) == CARD
    said.append(taker.done())
    assert offer.receive(said[-1]) == b"GONE"
    assert offer.step.name == "DONE"
    assert not any(SECRET in each for each in said)
    assert max(len(each) for each in said[::2]) <= MAX_REQUEST


def test_an_offer_that_does_not_know_the_secret_is_told_nothing() -> None:
    taker = TakerSide(SECRET, "there")
    answer = OfferSide(b"x" * 16).receive(taker.hello())
    assert answer is not None
    with pytest.raises(TicketError, match="who listens at there does not know the ticket's secret"):
        taker.prove(answer)


def test_a_taker_that_does_not_know_the_secret_gets_nothing() -> None:
    offer, wrong = OfferSide(SECRET), TakerSide(b"x" * 16, "there")
    offer.receive(wrong.hello())
    with pytest.raises(TicketError, match="the taker does not know the secret"):
        offer.receive(b"TAKE" + wrong._prove(b"TAKE"))
    assert offer.step is Step.PROOF


def test_what_was_said_to_one_taker_is_of_no_use_again() -> None:
    offer, taker = OfferSide(SECRET), TakerSide(SECRET, "there")
    hello = taker.hello()
    proof = taker.prove(offer.receive(hello) or b"")
    again = OfferSide(SECRET)
    again.receive(hello)
    with pytest.raises(TicketError):
        again.receive(proof)
    reflected = OfferSide(SECRET)
    answer = reflected.receive(hello) or b""
    with pytest.raises(TicketError):
        reflected.receive(b"TAKE" + answer[-32:])


@pytest.mark.parametrize("answer", [b"BUSY", b"USED", b"", b"CARD", b"CARD" + bytes(40)])
def test_every_other_answer_is_an_error(answer: bytes) -> None:
    with pytest.raises(TicketError):
        TakerSide(SECRET, "there").card(answer)


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_card_that_was_altered_is_refused(place: int, flip: int) -> None:
    offer, taker = OfferSide(SECRET), TakerSide(SECRET, "there")
    offer.receive(taker.prove(offer.receive(taker.hello()) or b""))
    answer = bytearray(offer.give(CARD))
    answer[place % len(answer)] ^= flip
    with pytest.raises(TicketError):
        taker.card(bytes(answer))


@given(st.lists(MESSAGES, max_size=5))
def test_no_messages_get_a_stranger_anywhere(messages: list[bytes]) -> None:
    offer = OfferSide(SECRET)
    for message in messages:
        with contextlib.suppress(TicketError):
            offer.receive(message)
    assert offer.step in {Step.HELLO, Step.PROOF}
