"""Numbered pages of a list."""

import pytest

from app.registry.paging import page_count


@pytest.mark.parametrize(("total", "pages"), [(0, 1), (1, 1), (24, 1), (25, 2), (48, 2), (49, 3)])
def test_the_last_page_may_be_short_and_an_empty_list_has_one(total: int, pages: int) -> None:
    assert page_count(total, 24) == pages
