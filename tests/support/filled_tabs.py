"""How each tab is brought to show something, with the photos that ship with the app only."""

from __future__ import annotations

from playwright.sync_api import Page

from dermadeit.views.page.examples import read_examples

EXAMPLE = "Nevus: clear case"


def read_example(page: Page) -> None:
    """Reads a nevus."""
    page.locator("#panel-single .dd-examples button").filter(has_text=EXAMPLE).click()
    page.wait_for_selector("#status :text('Done.')")


def compare_example(page: Page) -> None:
    """Lets every model that there is read a nevus."""
    page.locator("#panel-comparison .dd-examples button").filter(has_text=EXAMPLE).click()
    page.wait_for_selector("#compare-status :text('Done.')")


def evaluate_examples(page: Page) -> None:
    """Reads every example with its known diagnosis."""
    examples = read_examples()
    rows = [f"{example.path.name},{example.diagnosis}" for example in examples]
    labels = {
        "name": "labels.csv",
        "mimeType": "text/csv",
        "buffer": "\n".join(["file,diagnosis", *rows]).encode(),
    }
    photos = [
        {"name": example.path.name, "mimeType": "image/jpeg", "buffer": example.path.read_bytes()}
        for example in examples
    ]
    page.set_input_files("#batch-files input[type=file]", [*photos, labels])
    page.wait_for_selector(f"#batch-files :text('{labels['name']}'), #batch-files :text('labels')")
    page.locator("#batch-start").click()
    page.wait_for_selector("#batch-status :text('The uploads have been deleted.')")


def show_curves(page: Page) -> None:
    """Waits for the training curves."""
    page.wait_for_selector("#trainings svg")
    page.wait_for_selector("#training-status :text('The trainings of')")


FILL = {
    "single": read_example,
    "batch": evaluate_examples,
    "comparison": compare_example,
    "training": show_curves,
}
"""Key of a tab to what fills it."""
