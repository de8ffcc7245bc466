"""The browser that the tests drive. `make test` installs one; the tests never do."""

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium(playwright: Playwright) -> str:
    """Path of the machine's own chromium, else of Playwright's; skips the test where there is none."""
    own = next(filter(None, map(shutil.which, NAMES)), playwright.chromium.executable_path)
    if not Path(own).exists():
        pytest.skip("no chromium; “make .venv/.browser” installs one")
    return own
