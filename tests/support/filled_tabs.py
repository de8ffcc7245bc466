"""How each tab is brought to show something, with the photos that ship with the app only."""

from __future__ import annotations

from playwright.sync_api import Page

EXAMPLE = "Nevus: clear case"


def read_example(page: Page) -> None:
    """Reads a nevus."""
    page.locator("#panel-single .dd-examples button").filter(has_text=EXAMPLE).click()
    page.wait_for_selector("#status :text('Done.')")


def compare_example(page: Page) -> None:
    """Lets every model that there is read a nevus."""
    page.locator("#panel-comparison .dd-examples button").filter(has_text=EXAMPLE).click()
    page.wait_for_selector("#compare-status :text('Done.')")


def evaluate_sample_set(page: Page) -> None:
    """Evaluates the labelled set that ships with the app."""
    page.locator("#batch-sample").click()
    page.wait_for_selector("#batch-status :text('The uploads have been deleted.')")


def show_curves(page: Page) -> None:
    """Waits for the training curves."""
    page.wait_for_selector("#trainings svg")
    page.wait_for_selector("#training-status :text('The trainings of')")


FILL = {
    "single": read_example,
    "batch": evaluate_sample_set,
    "comparison": compare_example,
    "training": show_curves,
}
"""Key of a tab to what fills it."""
