"""How each tab is brought to show something, with synthetic lesions only."""

from __future__ import annotations

import re

from playwright.sync_api import Page

from dermadeit.views.uploads import EXAMPLES_FOLDER

NEVUS = re.compile(r"^\s*Nevus\s*$")


def read_example(page: Page) -> None:
    """Reads a synthetic lesion."""
    page.locator("#panel-single .dd-examples button").filter(has_text=NEVUS).click()
    page.wait_for_selector("#status :text('Done.')")


def compare_example(page: Page) -> None:
    """Lets every model that there is read a synthetic lesion."""
    page.locator("#panel-comparison .dd-examples button").filter(has_text=NEVUS).click()
    page.wait_for_selector("#compare-status :text('Done.')")


def evaluate_examples(page: Page) -> None:
    """Reads every synthetic lesion, labelled by what it was drawn as."""
    examples = sorted(EXAMPLES_FOLDER.glob("*.jpg"))
    rows = [f"{path.name},{'nevus' if 'nevus' in path.name else 'others'}" for path in examples]
    labels = {
        "name": "labels.csv",
        "mimeType": "text/csv",
        "buffer": "\n".join(["file,label", *rows]).encode(),
    }
    photos = [{"name": path.name, "mimeType": "image/jpeg", "buffer": path.read_bytes()} for path in examples]
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
