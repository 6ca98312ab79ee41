from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.bench.sample import HOSTILE

from trunkline.bench.report.markup import Markup, element, join


def test_elements_and_their_attributes() -> None:
    made = element("div", "a < b", element("br_", class_="x", tabindex=0, stroke_width=1.5), title='"&', lang=None)
    assert made == '<div title="&quot;&amp;">a &lt; b<br_ class="x" tabindex="0" stroke-width="1.5"></br_></div>'
    assert element("meta", charset="utf-8") == '<meta charset="utf-8">'


def test_an_attribute_may_be_called_name() -> None:
    assert element("meta", name="viewport") == '<meta name="viewport">'


def test_texts_are_escaped_and_markup_is_not() -> None:
    assert join("<b>", Markup("<b>")) == "&lt;b&gt;<b>"
    assert "<script" not in element("p", HOSTILE)
    assert "\u202e" not in element("p", HOSTILE)
    assert r"\u202eevil\x1b[31m\x00" in element("p", HOSTILE)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text().filter(str.isprintable), st.text().filter(str.isprintable))
def test_any_text_is_read_back_as_that_text(text: str, title: str) -> None:
    reader = _Reader()
    reader.feed(element("p", text, title=title))
    reader.close()
    assert reader.names == ["p"]
    assert reader.attributes == [("title", title)]
    assert reader.text == text
