"""What went wrong at a store, in words without secrets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# What a store says is bounded: it may be anything, of any length.
_STATUS = re.compile(r"status code: (\d{3}) ?([^:\n<]{0,100})")
_CODE = re.compile(r"<Code>([^<]{1,200})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,500})</Message>")
_SYSTEM = re.compile(r'message: "([^"]{1,200})"')
_KIND = re.compile(r"HttpError \{\s{0,100}kind: (\w{1,50})")
_RETRIES = re.compile(r"retries: (\d{1,10}),\s{0,100}max_retries: \d{1,10},\s{0,100}elapsed: ([^,\n]{1,50})")
_ABORT = "Error performing DELETE"
"""Nothing else is deleted than uploads."""

_SECRET_NAME = re.compile(r"secret|token|password|sas|(?:^|_)key(?!_id)|credential", re.IGNORECASE)
_CLOUD = ("AWS_", "AZURE_", "GOOGLE_")
_DEBUG = "\n\nDebug source"
_KINDS = {
    "Connect": "no connection",
    "Timeout": "no answer in time",
    "Interrupted": "the connection broke off",
    "Request": "the request could not be sent or its answer was cut off",
    "Decode": "the connection broke off in the middle of the answer",
}
_ADVICE = {
    "401": "check the credentials",
    "403": "check the credentials and what they are allowed to do",
    "404": "check the bucket's name and the key",
    "416": "the object is shorter than the range",
    "429": "the store throttles: use a lower concurrency, or more retries",
    "503": "the store throttles or is overloaded: use a lower concurrency, or more retries",
}
_SHORTEST_SECRET = 4

LONGEST = 2000
"""Characters of an explanation."""


class Redaction:
    """Takes secrets out of texts: the values of options and variables that hold credentials, and query strings.

    Args:
        options: The options of a store.
        environment: The environment's variables.
    """

    def __init__(self, options: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        held = [(name, value) for name, value in options.items() if isinstance(value, str)]
        held += [(name, value) for name, value in environment.items() if name.startswith(_CLOUD)]
        self._secrets = sorted(
            {value for name, value in held if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET},
            key=len,
            reverse=True,
        )

    def clean(self, error: object) -> str:
        """Return what an error or a text says, on one line."""
        words = str(error).split(_DEBUG)[0].split()
        text = " ".join(word.partition("?")[0] if "://" in word else word for word in words)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def __repr__(self) -> str:
        return "<Redaction>"


def explain(error: BaseException, redaction: Redaction) -> str:
    """Return what the store answered and what to do about it, of an exception of obstore's."""
    full = str(error)
    plain, _, details = full.partition(_DEBUG)
    status = _STATUS.search(plain)
    if status is not None:
        code, message = _CODE.search(plain), _MESSAGE.search(plain)
        said = f"HTTP {status[1]} {status[2].strip()}".rstrip()
        said += f", {code[1]}" if code else ""
        said += f" ({redaction.clean(message[1])})" if message else ""
        advice = _ADVICE.get(status[1], "")
    elif isinstance(error, FileNotFoundError):
        said, advice = "there is no such object", "check the key"
    elif kind := _KIND.search(details):
        system = _SYSTEM.search(details)
        said = _KINDS.get(kind[1], kind[1]) + (f" ({system[1]})" if system else "")
        advice = "check the endpoint, and that the store is up"
    else:
        said, advice = redaction.clean(plain)[: LONGEST // 2], ""
    if _ABORT in plain:  # obstore then says nothing of the part
        said += " when the upload was aborted because a part of it had failed"
        advice = f"{advice}; parts may be left at the store" if advice else "parts may be left at the store"
    tries = _RETRIES.search(details)
    if tries is not None and int(tries[1]):
        said += f"; tried {int(tries[1]) + 1} times in {tries[2]}"
    return redaction.clean(said) + (f": {advice}" if advice else "")
