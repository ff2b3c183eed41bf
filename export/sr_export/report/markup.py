"""HTML and SVG from Python: text becomes markup here only, so that no name can become an element.

Names come from strangers' files. What is not `Markup` is escaped, whatever it holds.
"""

from __future__ import annotations

import html
import re

_VOID = {"img", "input"}
# Not allowed in XML, and lone surrogates cannot even be written as UTF-8.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


class Markup(str):
    """Text that is HTML or SVG already."""

    __slots__ = ()


def text(value: object) -> Markup:
    """Escape a value for an element's content or for an attribute in quotes."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(_FORBIDDEN.sub("\ufffd", str(value))))


def tag(name: str, *content: object, **attributes: object) -> Markup:
    """Return an element.

    Args:
        name: of the element.
        content: markup as it is, anything else escaped.
        attributes: `class_` stands for `class` and `aria_label` for `aria-label`. True leaves the
            name alone; None and False leave the attribute out.
    """
    written = "".join(_attribute(*each) for each in attributes.items())
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(*content)}</{name}>")


def join(*parts: object) -> Markup:
    """Put markup and text one after the other."""
    return Markup("".join(map(text, parts)))


def _attribute(name: str, value: object) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{text(value)}"'
