"""A visitor of the page, for the tests that drive a browser.

The page shows the parts of one answer one after the other: what is asked of it is waited for, never read at once.
"""

import hashlib
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import expect

UPLOAD = "#photo input[type=file]"
HEATMAP = "#photo .dd-heat"
DONE = "#status :text('Done.')"
PATIENCE_MS = 180_000
"""How long a test waits for what must come: beside other work even a photo takes long."""


def wait_for_files(page, count, box="#batch-files"):
    """Waits until so many files have been sent. Gradio names one that is being sent in another element."""
    expect(page.locator(f"{box} tr.file")).to_have_count(count)


def expect_values(elements, attribute, values):
    """Waits until so many elements are there and have these values of an attribute, in their order."""
    expect(elements).to_have_count(len(values))
    for index, value in enumerate(values):
        expect(elements.nth(index)).to_have_attribute(attribute, value)


def wait_for_photo(page, box="#photo"):
    """Waits until a picture is seen in a photo box."""
    page.wait_for_function(
        "selector => { const image = document.querySelector(selector);"
        " return image && image.checkVisibility() && image.naturalWidth > 0 }",
        arg=f"{box} .dd-photo-frame > img",
    )


def wait_for_answer(page, photo):
    """Waits until all about a photo, given as a path, is there. What was said of another one does not count."""
    digest = hashlib.sha256(Path(photo).read_bytes()).hexdigest()
    page.wait_for_selector(f"#check code[title='{digest}']")
    page.wait_for_selector(DONE)


class Visit:
    """One open page and what went wrong in it."""

    def __init__(self, page, url):
        self.page = page
        self.errors = []
        self.foreign = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", self._note_console)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._note_request)
        page.goto(url)
        page.wait_for_selector(UPLOAD, state="attached")

    def _note_console(self, message):
        if message.type == "error":
            self.errors.append(message.text)

    def _note_request(self, request):
        address = urlsplit(request.url)
        if address.scheme not in ("data", "blob") and address.hostname != "127.0.0.1":
            self.foreign.append(request.url)

    def upload(self, path):
        self.page.set_input_files(UPLOAD, path)

    def read(self, path):
        self.upload(path)
        wait_for_answer(self.page, path)
        return self.heatmap()

    def heatmap(self):
        """Address of the heatmap, once it is really there."""
        self.page.wait_for_function(
            "() => { const image = document.querySelector('#photo .dd-heat');"
            " return image && image.complete && image.naturalWidth > 0 }"
        )
        return self.page.get_attribute(HEATMAP, "src")

    def heatmap_after(self, before):
        """Address of the heatmap that replaces another one."""
        self.page.wait_for_function(
            "before => { const image = document.querySelector('#photo .dd-heat');"
            " return image && image.getAttribute('src') !== before && image.complete && image.naturalWidth > 0 }",
            arg=before,
        )
        return self.page.get_attribute(HEATMAP, "src")

    def bytes_of(self, address):
        return self.page.request.get(address).body()
