"""What an offer and its taker say to each other, one message a frame. Pure: no socket is touched.

    taker   HELO  nonce (32)
    offer   HERE  nonce (32), proof (32)       it knows the secret
    taker   TAKE  proof (32)                   so does the taker
    offer   CARD  proof (32), card             or BUSY, or USED: one taker at a time, one take in all
    taker   DONE  proof (32)                   all was verified and written
    offer   GONE

A proof is HMAC-SHA256 under the secret of its verb, both nonces, and the card if there is one. Nothing is encrypted.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from enum import Enum, auto
from typing import NamedTuple

from trunkline.errors import TicketError

NONCE_SIZE = 32
PROOF_SIZE = 32
VERB_SIZE = 4
MAX_REQUEST = VERB_SIZE + NONCE_SIZE + PROOF_SIZE
"""The longest message of a taker."""


class Message(NamedTuple):
    """A verb of four letters, and the rest."""

    verb: bytes
    body: bytes = b""

    def encode(self) -> bytes:
        """Return the payload of a frame."""
        return self.verb + self.body


def decode(payload: bytes) -> Message:
    """Return a message; whatever it is, it has a verb."""
    return Message(payload[:VERB_SIZE], payload[VERB_SIZE:])


def prove(secret: bytes, verb: bytes, taker_nonce: bytes, offer_nonce: bytes, card: bytes = b"") -> bytes:
    """Return what only who knows the secret can say."""
    return hmac.digest(secret, verb + taker_nonce + offer_nonce + hashlib.sha256(card).digest(), "sha256")


class Step(Enum):
    """Where the offer's side of a handshake stands."""

    HELLO = auto()
    PROOF = auto()
    TAKING = auto()
    DONE = auto()


_EXPECTED = {Step.HELLO: b"HELO", Step.PROOF: b"TAKE", Step.TAKING: b"DONE"}


class OfferSide:
    """The offer's side with one taker. What the taker says wrong ends it.

    Args:
        secret: The ticket's.

    Attributes:
        step: What has been achieved.
    """

    def __init__(self, secret: bytes) -> None:
        self.step = Step.HELLO
        self._secret = secret
        self._taker_nonce = b""
        self._offer_nonce = b""

    def receive(self, payload: bytes) -> bytes | None:
        """Take the taker's next message, and return the answer; None where :meth:`give` is to give it.

        Raises:
            TicketError: It is not what comes next, or the taker does not know the secret.
        """
        message = decode(payload)
        if message.verb != _EXPECTED.get(self.step):
            raise TicketError(f"the taker said {message.verb!r} when {_EXPECTED.get(self.step)!r} came next")
        if self.step is Step.HELLO:
            if len(message.body) != NONCE_SIZE:
                raise TicketError(f"the taker's nonce has {len(message.body)} bytes, not {NONCE_SIZE}")
            self._taker_nonce, self._offer_nonce = message.body, os.urandom(NONCE_SIZE)
            self.step = Step.PROOF
            return Message(b"HERE", self._offer_nonce + self._prove(b"HERE")).encode()
        if not hmac.compare_digest(message.body, self._prove(message.verb)):
            raise TicketError("the taker does not know the secret")
        if self.step is Step.PROOF:
            self.step = Step.TAKING
            return None
        self.step = Step.DONE
        return b"GONE"

    def give(self, card: bytes) -> bytes:
        """Return the answer to a taker who may take."""
        return Message(b"CARD", self._prove(b"CARD", card) + card).encode()

    def _prove(self, verb: bytes, card: bytes = b"") -> bytes:
        return prove(self._secret, verb, self._taker_nonce, self._offer_nonce, card)


class TakerSide:
    """The taker's side; the methods are called in this order.

    Args:
        secret: The ticket's.
        where: The offer's address, for messages.
    """

    def __init__(self, secret: bytes, where: object) -> None:
        self._secret = secret
        self._where = where
        self._taker_nonce = os.urandom(NONCE_SIZE)
        self._offer_nonce = b""

    def hello(self) -> bytes:
        """Return the first message."""
        return Message(b"HELO", self._taker_nonce).encode()

    def prove(self, payload: bytes) -> bytes:
        """Take the answer to it, and return the next message.

        Raises:
            TicketError: Who listens there does not know the secret.
        """
        message = decode(payload)
        self._offer_nonce, proof = message.body[:NONCE_SIZE], message.body[NONCE_SIZE:]
        if message.verb != b"HERE" or not hmac.compare_digest(proof, self._prove(b"HERE")):
            raise TicketError(
                f"who listens at {self._where} does not know the ticket's secret: it is another offer, or the ticket "
                "was not copied right"
            )
        return Message(b"TAKE", self._prove(b"TAKE")).encode()

    def card(self, payload: bytes) -> bytes:
        """Take the answer to that, and return the card of the agent that offers.

        Raises:
            TicketError: It may not be taken now, or the card was altered.
        """
        message = decode(payload)
        if message.verb == b"BUSY":
            raise TicketError(
                f"the offer at {self._where} is being taken by another process: a ticket is for one. If that one "
                "breaks off, this one may go on"
            )
        if message.verb == b"USED":
            raise TicketError(f"the offer at {self._where} has been taken: a ticket is good once. Ask for another")
        proof, card = message.body[:PROOF_SIZE], message.body[PROOF_SIZE:]
        if message.verb != b"CARD" or not hmac.compare_digest(proof, self._prove(b"CARD", card)):
            raise TicketError(f"what the offer at {self._where} says was altered on the way")
        return card

    def done(self) -> bytes:
        """Return the message that ends the offer."""
        return Message(b"DONE", self._prove(b"DONE")).encode()

    def _prove(self, verb: bytes, card: bytes = b"") -> bytes:
        return prove(self._secret, verb, self._taker_nonce, self._offer_nonce, card)
