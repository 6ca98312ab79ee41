"""The page as text: what it holds, that nothing in a result becomes markup, that it asks for nothing."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.bench.sample import HOSTILE, SIZES, make_hostile, make_matrix, make_row, make_run

from trunkline.bench.formats.json import decode_json, encode_json
from trunkline.bench.report import make_page, write_report
from trunkline.bench.result import Row, Run

if TYPE_CHECKING:
    from pathlib import Path


class Document(HTMLParser):
    """Elements with their attributes, and the text of some, in the order of the page."""

    VOID = ("meta",)

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open[-1] if self._open else "", data))

    def text(self, *names: str) -> list[str]:
        return [text for name, text in self.texts if name in names]

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for each, attributes in self.elements if each == name]


def test_a_page_has_its_sections_in_order() -> None:
    document = Document(make_page({"a.json": make_run()}))
    assert document.text("h1") == ["Trunkline benchmark: a.json"]
    assert document.text("h2") == [
        "a.json", "Bandwidth and latency", "Percentiles of the latency", "All rows", "Environment", "Options",
    ]  # fmt: skip
    assert document.text("h3")[:2] == ["Bandwidth of one initiator", "Average latency"]


def test_every_plot_has_a_title_a_description_and_a_table() -> None:
    document = Document(make_page({"a": make_run(), "b": make_run(rate_gb_s=5.0)}))
    plots = [attributes for attributes in document.all("svg") if attributes.get("role") == "img"]
    identities = {attributes["id"] for _, attributes in document.elements if "id" in attributes}
    assert len(plots) == 2 + 1 + 8
    assert len(identities) == 2 * len(plots)
    for plot in plots:
        assert plot["aria-labelledby"] is not None
        assert set(plot["aria-labelledby"].split()) <= identities
    captions = document.text("caption")
    assert "Bandwidth of one initiator: GB/s" in captions
    assert "WRITE, batch 1: from 0.222 to 9.97 between 4 KiB and 64 MiB" in "".join(
        Document(make_page({"a": make_run()})).text("desc")
    )


def test_the_limit_is_a_line_of_its_own() -> None:
    assert "limit: memcpy" in Document(make_page({"a": make_run()})).text("li")
    assert 'class="limit"' not in make_page({"a": make_run(limit_gb_s=None)})


def test_what_must_not_be_overlooked_comes_first() -> None:
    run = msgspec.structs.replace(make_run(wrong=2, is_noisy=True), is_complete=False, notes=("stopped by a user",))
    texts = Document(make_page({"a": run})).text("p", "li")
    assert texts[:3] == [
        "a: 64 blocks did not hold what they should",
        "a: not complete: it was interrupted or failed after 32 rows",
        "a: 32 of 32 rows are too noisy to trust",
    ]
    assert "stopped by a user" in texts
    assert "hollow marks: too noisy to trust" in texts


def test_marks_are_hollow_where_the_row_is_noisy() -> None:
    run = Run(rows=tuple(make_row(block_size=size, is_noisy=size == SIZES[2]) for size in SIZES))
    marks = [each for each in Document(make_page({"a": run})).all("path") if "d" in each]
    assert [each.get("class") for each in marks[: len(SIZES)]].index("noisy") == 2
    assert [each.get("class") for each in marks[: len(SIZES)]].count("noisy") == 1


def test_several_runs_are_compared_with_the_first() -> None:
    page = make_page({"before": make_run(), "after": make_run(rate_gb_s=5.0)})
    document = Document(page)
    assert "Compared with before" in document.text("h2")
    assert "after over before" in document.text("h3")
    assert any(words.startswith("32 ratios, from 0.5") for words in document.text("p"))


def test_engines_of_one_run_are_compared_with_nixl() -> None:
    ours, theirs = make_run(), make_run(engine="nixl", rate_gb_s=5.0)
    document = Document(make_page({"both": msgspec.structs.replace(ours, rows=ours.rows + theirs.rows)}))
    assert "trunkline over nixl" in document.text("h3")
    assert any("They differ in engine (nixl | trunkline)" in words for words in document.text("p"))


def test_environments_are_beside_each_other_and_what_differs_is_marked() -> None:
    other = msgspec.structs.replace(make_run(), environment={"ucx": "1.21.0", "kernel": "Linux 6.18.44 x86_64"})
    document = Document(make_page({"a": make_run(), "b": other}))
    assert {"1.22.0", "1.21.0", "not recorded"} <= set(document.text("strong"))
    assert "Linux 6.18.44 x86_64" not in document.text("strong")


def test_pairs_of_workers_make_a_heat_map() -> None:
    document = Document(make_page({"matrix": make_matrix(4)}))
    shades = [
        attributes["class"] for attributes in document.all("td") if re.fullmatch("h.", attributes.get("class") or "")
    ]
    assert len(shades) == 12
    assert shades.count("h1") == 1  # the slow one
    assert shades.count("h7") > 5
    assert any("Slowest 0.983 GB/s (2 → 1)" in words for words in document.text("p"))
    assert "Bandwidth and latency" not in document.text("h2")


def test_more_lines_than_can_be_told_apart_are_several_plots() -> None:
    run = make_run(op_types=["READ"], batch_sizes=range(1, 11))
    titles = Document(make_page({"a": run})).text("h3")
    assert titles[:2] == ["Bandwidth of one initiator (1 of 2)", "Bandwidth of one initiator (2 of 2)"]
    assert "6 more" in Document(make_page({"a": run})).text("summary")


def test_batch_sizes_alone_are_the_axis() -> None:
    run = Run(rows=tuple(make_row(batch_size=1 << step) for step in range(8)))
    assert "batch size" in Document(make_page({"a": run})).text("text")


@pytest.mark.parametrize("run", [make_hostile(), make_run()])
def test_nothing_is_asked_for_and_no_text_becomes_markup(run: Run) -> None:
    page = make_page({HOSTILE: run})
    document = Document(page)
    names = {name for name, _ in document.elements}
    assert not names & {
        "script",
        "img",
        "link",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
        "a",
        "image",
        "use",
        "foreignobject",
    }
    for _, attributes in document.elements:
        assert not any(name.startswith("on") or name in {"href", "src", "style", "xlink:href"} for name in attributes)
    assert "://" not in page
    assert "url(" not in page
    assert "@import" not in page
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert page.count("</style>") == 1


def test_a_policy_forbids_what_the_page_does_not_need() -> None:
    metas = Document(make_page({"a": make_run()})).all("meta")
    (policy,) = [each["content"] for each in metas if each.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


@pytest.mark.parametrize(
    "rows", [(), (make_row(),), (make_row(bandwidth_gb_s=0.0, latency_avg_us=0.0),), (make_row(initiator=0, target=0),)]
)
def test_little_is_a_page_too(rows: tuple[Row, ...]) -> None:
    assert Document(make_page({"a": Run(rows=rows)})).text("h1") == ["Trunkline benchmark: a"]


_numbers = st.floats(0, 1 << 62) | st.sampled_from([5e-324, 0.0, 1e-9])
_rows = st.builds(
    lambda changes: msgspec.structs.replace(make_row(), **changes),
    st.fixed_dictionaries(
        {},
        optional={
            "op_type": st.text(max_size=5),
            "block_size": st.integers(1, 1 << 62),
            "batch_size": st.integers(1, 1 << 62),
            "rate_per_s": st.none() | _numbers,
            "initiator": st.none() | st.integers(0, 3),
            "target": st.none() | st.integers(0, 3),
            "is_noisy": st.none() | st.booleans(),
            "wrong": st.none() | st.integers(0, 9),
            **dict.fromkeys(("bandwidth_gb_s", "latency_avg_us"), _numbers),
            **dict.fromkeys(("aggregate_gb_s", "limit_gb_s", "latency_p50_us", "variation"), st.none() | _numbers),
        },
    ),
)


@settings(max_examples=40)
@given(st.lists(_rows, max_size=4), st.lists(_rows, max_size=4))
def test_whatever_can_be_read_can_be_drawn(before: list[Row], after: list[Row]) -> None:
    runs = {name: decode_json(encode_json(Run(rows=tuple(rows))), name) for name, rows in (("a", before), ("b", after))}
    page = make_page(runs)
    Document(page)
    assert not re.search(r'="[^"]*\b(nan|inf)\b', page)


def test_it_is_written_whole(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    write_report({"a": make_run()}, tmp_path / "out.html")
    write_report({"a": make_run()}, "-")
    assert capfdbinary.readouterr().out == (tmp_path / "out.html").read_bytes()


def test_a_usual_page_is_small() -> None:
    assert len(make_page({"a": make_run()})) < 150_000
    assert len(SIZES) * 4 == len(make_run().rows)
