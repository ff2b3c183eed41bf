"""The quality report of a bundle: one page that shows what each precision does to images."""

from sr_export.report.chart import search_chart
from sr_export.report.page import page
from sr_export.report.pictures import Scene

__all__ = ["Scene", "page", "search_chart"]
