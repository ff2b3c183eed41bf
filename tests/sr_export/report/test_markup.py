"""Text becomes markup without becoming elements."""

from __future__ import annotations

from sr_export.report.markup import Markup, join, tag, text


def test_text_is_escaped_and_markup_is_not() -> None:
    inner = tag("b", "1 < 2 & 'three'")
    assert inner == "<b>1 &lt; 2 &amp; &#x27;three&#x27;</b>"
    assert tag("p", inner, "<b>") == f"<p>{inner}&lt;b&gt;</p>"


def test_attributes_are_escaped_named_and_left_out() -> None:
    found = tag("th", class_="a", aria_label='"><script>', hidden=True, title=None, lang=False)
    assert found == '<th class="a" aria-label="&quot;&gt;&lt;script&gt;" hidden></th>'


def test_elements_without_content_are_not_closed() -> None:
    assert tag("img", src="a") == '<img src="a">'


def test_what_cannot_be_written_is_replaced() -> None:
    # A file name that is no UTF-8 comes with lone surrogates; XML allows no control characters.
    assert text("a\x00b\x1b\udce9\tc") == "a\ufffdb\ufffd\ufffd\tc"


def test_joining_keeps_markup() -> None:
    assert join(Markup("<br>"), "<br>", 3) == "<br>&lt;br&gt;3"
