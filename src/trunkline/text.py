"""Text of others that people are shown: nothing in it may move a cursor, change colours or reorder what is read."""

from __future__ import annotations


def escape(text: str) -> str:
    r"""Return the text as one line that a terminal shows as it is; what is not printable becomes ``\x1b``, ``\u202e``.

    Control characters, line separators, marks that change the direction of writing and what is no Unicode are not
    printable. Rich's markup is: give what this returns to ``rich.text.Text``, or print it without rich.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
