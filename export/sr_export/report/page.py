"""The page as a whole: `report.html`, one file that loads nothing and needs nothing."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from string import Template
from typing import TYPE_CHECKING

from sr_export.report import chart, figures
from sr_export.report.comparison import comparisons, worst_places
from sr_export.report.markup import Markup, join, tag, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sr_deploy.bundle.manifest import Manifest, Method, Quantization
    from sr_export.report.pictures import Scene


_METHODS: dict[Method, str] = {
    "percentile": "percentile",
    "minmax": "their smallest and largest value",
    "mse": "the mean square error that it leaves",
}


def page(
    manifest: Manifest, scenes: Sequence[Scene], sizes: Mapping[str, int] | None = None
) -> str:
    """Return the whole HTML.

    Args:
        manifest: of the bundle.
        scenes: what the precisions did to images that they were not tuned on. Those that differ
            most are shown, as many as fit into about two megabytes.
        sizes: bytes of the bundle's files by name, where they are known.
    """
    content = join(
        _head(manifest),
        figures.table(manifest, sizes or {}),
        comparisons(scenes, manifest.refused),
        worst_places(scenes, manifest.refused),
        _search(manifest),
        _foot(manifest),
    )
    return document(f"{manifest.name}: quality report", content, chart.STYLE)


def document(title: str, content: Markup, drawing: str, style: str = "") -> str:
    """Return the HTML around a page's content.

    Args:
        title: of the page.
        content: what is inside `main`.
        drawing: the style that the content's pictures bring with them.
        style: what the content needs beside the style of all pages.
    """
    style, script = _file("style.css") + style, _file("script.js")
    return Template(_file("page.html")).substitute(
        policy=_policy(styles=(style, drawing), script=script),
        title=text(title),
        style=style,
        content=content,
        script=script,
    )


def _file(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def _policy(styles: Sequence[str], script: str) -> str:
    """Allow what is in the page itself, by its hash: no network, and no other code."""
    return "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            f"style-src {' '.join(map(_hash, styles))}",
            f"script-src {_hash(script)}",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _hash(source: str) -> str:
    digest = hashlib.sha256(source.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _head(manifest: Manifest) -> Markup:
    model = manifest.model
    facts = {
        "Network": f"{model.architecture} {figures.TIMES}{model.scale}",
        "Colours": "RGB" if model.channels == 3 else "gray",
        "Parameters": f"{model.parameters:,}",
        "Work": f"{model.gflop_per_megapixel:,.0f} GFLOP per megapixel",
        "Exported": manifest.created[:10],
    }
    entries = [tag("div", tag("dt", name), tag("dd", value)) for name, value in facts.items()]
    return tag(
        "header",
        tag("p", "Quality report", class_="overline"),
        tag("h1", manifest.name, dir="auto"),
        tag("dl", *entries, class_="facts"),
    )


def _search(manifest: Manifest) -> Markup:
    found = manifest.int8
    if found is None or not found.steps:
        return Markup()
    taken = "int8" not in manifest.refused
    return tag(
        "section",
        tag("h2", "How INT8 was placed"),
        tag("p", _explained(found)),
        Markup(chart.search_chart(found, taken=taken)),
        figures.steps(found),
    )


def _explained(found: Quantization) -> str:
    layers = f"{found.layers} layers" if found.layers != 1 else "One layer"
    if found.method == "trained":
        return (
            f"{layers} can compute in INT8. Which of them do, and the range of the activations, is "
            "as in the training of the network, which simulated INT8; nothing was calibrated."
        )
    return (
        f"{layers} can compute in INT8. Those that cost most quality are put back to half "
        f"precision, until the rest is close enough to FP32. "
        f"Calibrated on {found.calibration}; the range of the activations is chosen by "
        f"{_METHODS[found.method]}."
    )


def _foot(manifest: Manifest) -> Markup:
    source = manifest.source
    tools = ", ".join(f"{name} {version}" for name, version in manifest.tools.items())
    return tag(
        "footer",
        tag("p", f"Made from {source.name} ({source.taken}), SHA-256 {source.sha256}."),
        tag("p", f"With {tools}."),
    )
