"""The page about architectures."""

from __future__ import annotations

from architectures import cells, page


def test_the_page_matches_the_records() -> None:
    expected = page.text(page.read(page.SMALL), page.read(page.DEFAULT))
    assert page.PAGE.read_text(encoding="utf-8") == expected, "run benchmarks/architectures --page"


def test_records_are_of_known_networks() -> None:
    for record, known in ((page.SMALL, cells.small()), (page.DEFAULT, cells.default())):
        assert set(page.read(record)) <= {cell.key for cell in known}


def test_a_page_without_records() -> None:
    assert f"0 of {len(cells.small())} networks were tested, 0 of them" in page.text({}, {})
