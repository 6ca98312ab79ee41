"""A plot of lines over sizes, as inline SVG with a legend and its figures as a table behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from trunkline.bench.report.markup import Markup, element, join
from trunkline.bench.report.scale import count_word, linear_scale, logarithmic_scale, number_word, size_scale, size_word
from trunkline.bench.report.table import folded, make_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trunkline.bench.report.scale import Scale
    from trunkline.bench.report.series import Axis, Line

WIDTH, HEIGHT = 440, 300
LEFT, RIGHT, TOP, BOTTOM = 60, 14, 28, 42
COLOURS = 8
"""So many lines of a plot are told apart by colour and marker; more are drawn in further plots."""

_MARKERS = ("M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0Z", "M-3.2-3.2h6.4v6.4h-6.4Z", "M0-4.4L4.2 3H-4.2Z",
            "M0-4.6L4.6 0L0 4.6L-4.6 0Z", "M0 4.4L4.2-3H-4.2Z", "M-4.4-1.4h3v-3h2.8v3h3v2.8h-3v3h-2.8v-3h-3Z",
            "M-4.4 0L-2.2-3.8H2.2L4.4 0L2.2 3.8H-2.2Z", "M-4 -4L0-1.6L4-4L1.6 0L4 4L0 1.6L-4 4L-1.6 0Z")  # fmt: skip


class Plot(NamedTuple):
    """What a plot shows.

    Attributes:
        identity: Names it within the page.
        title: What a reader sees above it.
        axis: What the x axis shows.
        quantity: What the y axis shows, with its unit if the words don't say it.
        word: How a value of it is written.
        is_logarithmic: Whether equal ratios are equally far apart on the y axis; else it begins at 0.
        reference: A value that is marked by a line across, as the ratio 1.
    """

    identity: str
    title: str
    axis: Axis
    quantity: str
    word: Callable[[float], str] = number_word
    is_logarithmic: bool = True
    reference: float | None = None


def draw(plot: Plot, lines: Sequence[Line]) -> Markup:
    """Return a figure of the lines; where they are more than can be told apart, several."""
    limits = [line for line in lines if line.is_limit]
    others = [line for line in lines if not line.is_limit]
    parts = [others[start : start + COLOURS] for start in range(0, len(others), COLOURS)]
    return join(
        *(
            _figure(
                plot._replace(
                    identity=f"{plot.identity}-{number}",
                    title=plot.title if len(parts) == 1 else f"{plot.title} ({number} of {len(parts)})",
                ),
                [*part, *limits],
            )
            for number, part in enumerate(parts, 1)
        )
    )


def _figure(plot: Plot, lines: Sequence[Line]) -> Markup:
    values = [value for line in lines for value in line.points.values()]
    if plot.reference is not None:
        values.append(plot.reference)
    x = size_scale((x for line in lines for x in line.points), LEFT + 8, WIDTH - RIGHT - 8)
    y = (logarithmic_scale if plot.is_logarithmic else linear_scale)(values, HEIGHT - BOTTOM, TOP)
    drawing = element(
        "svg",
        element("title", plot.title, id=f"{plot.identity}-title"),
        element("desc", _describe(plot, lines), id=f"{plot.identity}-desc"),
        _axes(plot, x, y),
        *(_line(plot, line, number, x, y) for number, line in enumerate(lines)),
        role="img",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        aria_labelledby=f"{plot.identity}-title {plot.identity}-desc",
    )
    return element(
        "figure",
        element("figcaption", element("h3", plot.title)),
        drawing,
        _legend(lines),
        folded("The figures", _table(plot, lines)),
        class_="plot",
    )


def x_word(axis: Axis) -> Callable[[float], str]:
    """Return how values of the x axis are written."""
    return size_word if axis == "block_size" else count_word


def x_name(axis: Axis) -> str:
    """Return what the x axis is called."""
    return "block size" if axis == "block_size" else "batch size"


def _axes(plot: Plot, x: Scale, y: Scale) -> Markup:
    word = x_word(plot.axis)
    across = [
        join(
            element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(tick), y2=y(tick), class_="grid"),
            element("text", plot.word(tick), x=LEFT - 6, y=y(tick) + 4, text_anchor="end"),
        )
        for tick in y.ticks
    ]
    if plot.reference is not None:
        at = y(plot.reference)
        across.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at, class_="reference"))
    down = [
        join(
            element("line", x1=x(tick), x2=x(tick), y1=TOP, y2=HEIGHT - BOTTOM, class_="grid"),
            element("text", word(tick), x=x(tick), y=HEIGHT - BOTTOM + 19, text_anchor="middle"),
        )
        for tick in x.ticks
    ]
    middle = (LEFT + WIDTH - RIGHT) / 2
    names = [
        element("text", plot.quantity, x=4, y=14, class_="name"),
        element("text", x_name(plot.axis), x=middle, y=HEIGHT - 6, text_anchor="middle", class_="name"),
    ]
    return element("g", *across, *down, *names, aria_hidden="true")


def _line(plot: Plot, line: Line, number: int, x: Scale, y: Scale) -> Markup:
    places = [(x(at), y(value)) for at, value in line.points.items()]
    if line.is_limit and len(places) == 1:
        places = [(float(LEFT), places[0][1]), (float(WIDTH - RIGHT), places[0][1])]
    path = element("polyline", points=" ".join(f"{left:.1f},{top:.1f}" for left, top in places))
    if line.is_limit:
        return element("g", path, class_="limit")
    word = x_word(plot.axis)
    marks = [
        element(
            "path",
            element("title", f"{line.label}: {word(at)}, {plot.word(value)}"),
            d=_MARKERS[number % COLOURS],
            transform=f"translate({x(at):.1f} {y(value):.1f})",
            class_="noisy" if at in line.noisy else None,
        )
        for at, value in line.points.items()
    ]
    return element("g", path, *marks, class_=f"line s{number % COLOURS}")


def _legend(lines: Sequence[Line]) -> Markup:
    def sample(line: Line, number: int) -> Markup:
        stroke = element("line", x1=1, x2=23, y1=6, y2=6)
        mark = element("path", d=_MARKERS[number % COLOURS], transform="translate(12 6)")
        return element(
            "svg",
            element("g", stroke, *([] if line.is_limit else [mark]), class_=_colour(line, number)),
            viewBox="0 0 24 12",
            aria_hidden="true",
        )

    entries = [element("li", sample(line, number), line.label) for number, line in enumerate(lines)]
    if any(line.noisy for line in lines):
        entries.append(element("li", "hollow marks: too noisy to trust"))
    return element("ul", *entries, class_="legend")


def _colour(line: Line, number: int) -> str:
    return "limit" if line.is_limit else f"line s{number % COLOURS}"


def _describe(plot: Plot, lines: Sequence[Line]) -> str:
    word = x_word(plot.axis)
    parts = []
    for line in lines:
        least, most = min(line.points.values()), max(line.points.values())
        first, last = word(min(line.points)), word(max(line.points))
        parts.append(f"{line.label}: from {plot.word(least)} to {plot.word(most)} between {first} and {last}")
    return f"{plot.quantity} by {x_name(plot.axis)}. " + "; ".join(parts) + ". The figures are in the table below."


def _table(plot: Plot, lines: Sequence[Line]) -> Markup:
    word = x_word(plot.axis)
    places = sorted({x for line in lines for x in line.points})
    return make_table(
        (x_name(plot.axis), *(line.label for line in lines)),
        [(word(x), *(plot.word(line.points[x]) if x in line.points else "–" for line in lines)) for x in places],
        caption=f"{plot.title}: {plot.quantity}",
    )
