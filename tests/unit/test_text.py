from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.text import escape


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("decode-0", "decode-0"),
        ("[bold]é 漢[/]", "[bold]é 漢[/]"),
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\u202eexe.txt", r"\u202eexe.txt"),
        ("a\u2028b\x9b", r"a\u2028b\x9b"),
        ("\udcff", r"\udcff"),
    ],
)
def test_what_is_not_printable_is_escaped(text: str, shown: str) -> None:
    assert escape(text) == shown


@given(st.text(st.characters()))
def test_what_is_shown_is_one_printable_line(text: str) -> None:
    assert escape(text).isprintable()
    assert escape(escape(text)) == escape(text)
