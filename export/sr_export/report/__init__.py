"""The quality report of a bundle, and the means to make other pages: comparisons and templates."""

from sr_export.report.chart import Axis, search_chart
from sr_export.report.comparison import comparisons
from sr_export.report.page import page
from sr_export.report.templating import render, render_page, static
from sr_export.scene import Scene

__all__ = [
    "Axis",
    "Scene",
    "comparisons",
    "page",
    "render",
    "render_page",
    "search_chart",
    "static",
]
