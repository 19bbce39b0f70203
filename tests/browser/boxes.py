"""The places of elements on a page, all measured at one moment: what loads may move them."""

from __future__ import annotations

from playwright.sync_api import FloatRect, Locator

MEASURE = """(elements) => elements.map((element) => {
  const { x, y, width, height } = element.getBoundingClientRect();
  return { x, y, width, height };
})"""


def boxes_of(*elements: Locator) -> list[FloatRect]:
    """The box of each of these visible elements of one page, in CSS pixels of its window."""
    handles = [element.element_handle() for element in elements]
    boxes: list[FloatRect] = elements[0].page.evaluate(MEASURE, handles)
    assert all(box["width"] and box["height"] for box in boxes), "an element is hidden"
    return boxes


def box_of(element: Locator) -> FloatRect:
    """The box of one element, to click in it or to know its size."""
    return boxes_of(element)[0]
