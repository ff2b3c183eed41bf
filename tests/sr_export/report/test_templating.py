"""Templates: text is escaped, markup is not, and only own styles and scripts are allowed."""

from __future__ import annotations

from typing import Any

import jinja2
import pytest
from markupsafe import Markup

from sr_export.report import templating


@pytest.fixture
def rendered() -> Any:
    """Render a template from a string."""

    def render(source: str, **context: Any) -> str:
        return templating._environment("sr_export.report").from_string(source).render(context)

    return render


def test_text_is_escaped_and_markup_is_not(rendered: Any) -> None:
    found = rendered("<p>{{ a }}{{ b }}</p>", a="1 < 2 & 'three'", b=Markup("<br>"))
    assert found == "<p>1 &lt; 2 &amp; &#39;three&#39;<br></p>"


def test_attributes_cannot_end_early(rendered: Any) -> None:
    found = rendered('<a title="{{ a }}">', a='"><script>')
    assert found == '<a title="&#34;&gt;&lt;script&gt;">'


def test_characters_that_xml_forbids_are_replaced(rendered: Any) -> None:
    # A file name that is not UTF-8 has lone surrogates.
    assert rendered("{{ a }}", a="a\x00b\x1b\udce9\tc") == "a\ufffdb\ufffd\ufffd\tc"


def test_a_missing_value_is_an_error(rendered: Any) -> None:
    with pytest.raises(jinja2.UndefinedError):
        rendered("{{ a }}")


def test_names_in_a_drawing_are_escaped_as_well() -> None:
    found = templating.render(
        "page.html",
        policy="",
        title="<script>",
        style="",
        script="",
        overline="",
        heading="",
        facts={"<b>": "<i>"},
    )
    assert "<title>&lt;script&gt;</title>" in found
    assert "<dt>&lt;b&gt;</dt><dd>&lt;i&gt;</dd>" in found
