"""Templates of pages and drawings: jinja2 with autoescape.

Names come from untrusted files. Text is escaped everywhere; only `Markup` is inserted as it is.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

_PACKAGE = "sr_export.report"
# Not allowed in XML, and lone surrogates cannot be encoded as UTF-8.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def static(name: str, package: str = _PACKAGE) -> Markup:
    """Return a file of a package's templates, unescaped: a style or a script."""
    text = (resources.files(package) / "templates" / name).read_text(encoding="utf-8")
    return Markup(text)  # noqa: S704  a file of ours


def render(template: str, package: str = _PACKAGE, **context: Any) -> Markup:
    """Return a filled template of a package, which may use those of this package."""
    rendered = _environment(package).get_template(template).render(context)
    return Markup(rendered)  # noqa: S704  the template has escaped the context


def render_page(
    template: str,
    drawing_style: str,
    style: Markup | None = None,
    package: str = _PACKAGE,
    **context: Any,
) -> str:
    """Return a self-contained page, whose policy allows its own styles and script only.

    Args:
        template: Extends `page.html`.
        drawing_style: The style inside the drawings of the page.
        style: Additional style of the page.
        package: The package of the template.
        context: The variables of the template.
    """
    script = static("script.js")
    style = static("style.css") + (style or "")
    policy = (
        "default-src 'none'",
        "img-src data:",
        f"style-src {_hash(style)} {_hash(drawing_style)}",
        f"script-src {_hash(script)}",
        "base-uri 'none'",
        "form-action 'none'",
    )
    page = {"policy": "; ".join(policy), "style": style, "script": script}
    return render(template, package, **page, **context)


@functools.cache
def _environment(package: str) -> jinja2.Environment:
    packages = dict.fromkeys((package, _PACKAGE))
    return jinja2.Environment(
        autoescape=True,
        finalize=_without_forbidden,
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(each) for each in packages]),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def _without_forbidden(value: object) -> object:
    if isinstance(value, Markup):
        return value
    return _FORBIDDEN.sub("\ufffd", str(value)) if isinstance(value, str) else value


def _hash(source: str) -> str:
    digest = hashlib.sha256(source.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
