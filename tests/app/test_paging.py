"""Numbered pages of a list."""

import pytest

from app.registry.paging import Page, find_page, page_count, page_of


@pytest.mark.parametrize(("total", "pages"), [(0, 1), (1, 1), (24, 1), (25, 2), (48, 2), (49, 3)])
def test_the_last_page_may_be_short_and_an_empty_list_has_one(total: int, pages: int) -> None:
    assert page_count(total, 24) == pages


def test_a_number_past_the_end_shows_the_last_page() -> None:
    last = Page("e", total=5, number=3, size=2)
    assert page_of("abcde", 9, 2) == last
    assert (last.pages, last.first) == (3, 5)
    assert page_of("", 9, 2) == Page("", total=0, number=1, size=2)
    asked = []

    def read(number: int) -> Page[str]:
        asked.append(number)
        return page_of("abcde", number, 2) if number < 4 else Page("", 5, number, 2)

    assert find_page(read, 9) == last
    assert find_page(read, 2).items == "cd"
    assert asked == [9, 3, 2]
