"""Tables are aligned, in the terminal and in Markdown."""

from __future__ import annotations

from sr_bench.table import Table

TABLE = Table(("image", "a"), (("baby", "33.66"), ("x", "1")))


def test_text_is_aligned() -> None:
    assert TABLE.text() == "image      a\nbaby   33.66\nx          1"


def test_markdown_is_aligned_and_says_so() -> None:
    assert TABLE.markdown().splitlines() == [
        "| image |     a |",
        "| ----- | ----: |",
        "| baby  | 33.66 |",
        "| x     |     1 |",
    ]


def test_columns_without_a_value_can_be_left_out() -> None:
    table = Table(("a", "b", "c"), (("1", "-", "2"), ("3", "-", "-")))
    assert table.without_empty("-") == Table(("a", "c"), (("1", "2"), ("3", "-")))
