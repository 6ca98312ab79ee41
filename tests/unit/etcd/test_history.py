"""Whether a cluster still has the history that was watched, by the latest key that was seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trunkline.errors import StoreRequestError, StoreUnavailableError
from trunkline.etcd.history import History
from trunkline.etcd.value import KeyValue, Listing

SEEN = KeyValue(b"k", b"value", 3, 7, 0x1234)


class Keys:
    """The key as it is, and as it was at the revision that was seen; None for none, or an error."""

    def __init__(self, now: KeyValue | None, then: KeyValue | Exception | None = None) -> None:
        self.now = now
        self.then = then
        self.reads: list[int] = []

    def read(self, key: bytes, revision: int, timeout: float) -> Listing:
        assert (key, timeout) == (b"k", 5.0)
        self.reads.append(revision)
        found = self.then if revision else self.now
        if isinstance(found, Exception):
            raise found
        return Listing(() if found is None else (found,), 99, 1)


def is_unbroken(keys: Keys, *seen: KeyValue) -> bool:
    history = History(keys.read)
    history.note(seen)
    return history.is_unbroken(5.0)


def test_a_key_that_is_as_it_was_is_enough() -> None:
    keys = Keys(SEEN, StoreRequestError("required revision has been compacted"))
    assert is_unbroken(keys, SEEN)
    assert keys.reads == [0]


def test_a_key_that_changed_is_looked_for_in_the_past() -> None:
    keys = Keys(replace(SEEN, mod_revision=12), SEEN)
    assert is_unbroken(keys, SEEN)
    assert keys.reads == [0, 7]
    assert is_unbroken(Keys(None, SEEN), SEEN)


@pytest.mark.parametrize(
    "other",
    [
        replace(SEEN, lease=0x9999),
        replace(SEEN, create_revision=4),
        replace(SEEN, mod_revision=6),
        replace(SEEN, value=b"longer value"),
    ],
)
def test_what_was_otherwise_then_is_another_history(other: KeyValue) -> None:
    assert not is_unbroken(Keys(other, other), SEEN)


def test_a_past_that_is_not_there_proves_nothing() -> None:
    for error in ("required revision has been compacted", "required revision is a future revision"):
        assert not is_unbroken(Keys(None, StoreRequestError(error)), SEEN)
    assert not is_unbroken(Keys(None, None), SEEN)


def test_with_nothing_seen_nothing_is_known() -> None:
    keys = Keys(SEEN)
    assert not is_unbroken(keys)
    assert keys.reads == []


def test_the_latest_of_what_was_noted_last_counts() -> None:
    keys = Keys(SEEN)
    history = History(keys.read)
    history.note([replace(SEEN, mod_revision=80)])
    history.note([replace(SEEN, key=b"older", mod_revision=5), SEEN])
    history.note([])
    assert history.is_unbroken(5.0)


def test_a_store_that_is_away_says_nothing() -> None:
    history = History(Keys(None, StoreUnavailableError("away")).read)
    history.note([SEEN])
    with pytest.raises(StoreUnavailableError):
        history.is_unbroken(5.0)
