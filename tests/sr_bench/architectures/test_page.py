from __future__ import annotations

from architectures import cells, page


def test_the_page_is_what_the_records_give() -> None:
    expected = page.text(page.read(page.SMALL), page.read(page.DEFAULT))
    assert page.PAGE.read_text(encoding="utf-8") == expected, "run benchmarks/architectures --page"


def test_records_are_of_networks_that_there_are() -> None:
    for record, known in ((page.SMALL, cells.small()), (page.DEFAULT, cells.default())):
        assert set(page.read(record)) <= {cell.key for cell in known}


def test_a_page_of_nothing() -> None:
    assert f"0 of {len(cells.small())} networks were run, 0 of them exported" in page.text({}, {})
