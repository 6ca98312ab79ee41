"""HTML and SVG by construction: every text in an element is escaped unless an element made it."""

from __future__ import annotations

from html import escape

from trunkline.text import escape as visible

_VOID = {"meta"}


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: str | float | None) -> Markup:
    """Return an element.

    Args:
        name: Its name.
        *children: Markup, taken as it is, and texts, which are escaped.
        **attributes: Their values, escaped; None leaves one out. ``class_`` is ``class``, ``font_size`` ``font-size``.
    """
    words = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(visible(_number(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{words}>")
    return Markup(f"<{name}{words}>{join(*children)}</{name}>")


def join(*children: str) -> Markup:
    """Return markup and texts as one piece of markup; the texts are escaped."""
    return Markup("".join(child if isinstance(child, Markup) else escape(visible(child)) for child in children))


def _number(value: str | float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
