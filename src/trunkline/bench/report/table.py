"""Tables of a page: wide ones scroll by themselves, never the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trunkline.bench.report.markup import Markup, element

if TYPE_CHECKING:
    from collections.abc import Sequence


def make_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str) -> Markup:
    """Return a table whose first column names its rows; a cell is text, or markup as it is."""
    return scrolling(
        element(
            "table",
            element("caption", caption),
            element("thead", element("tr", *(element("th", cell, scope="col") for cell in header))),
            element(
                "tbody",
                *(
                    element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:]))
                    for row in rows
                ),
            ),
        ),
        caption,
    )


def scrolling(content: Markup, label: str) -> Markup:
    """Return content in a region that scrolls sideways, by the keyboard too."""
    return element("div", content, class_="scroll", tabindex=0, role="region", aria_label=label)


def folded(summary: str, content: Markup) -> Markup:
    """Return content that is shown when its summary is chosen."""
    return element("details", element("summary", summary), content)
