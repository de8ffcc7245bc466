"""What stays in the browser of a visitor: nothing."""

import pytest
from filled_tabs import read_example

pytestmark = [pytest.mark.browser, pytest.mark.nightly]


def test_nothing_of_a_photo_stays_in_the_browser(open_tab) -> None:
    page = open_tab()
    read_example(page)
    kept = page.evaluate(
        "async () => ({local: {...localStorage}, session: {...sessionStorage}, cookies: document.cookie,"
        " databases: await indexedDB.databases(), caches: await caches.keys()})"
    )
    assert kept == {"local": {}, "session": {}, "cookies": "", "databases": [], "caches": []}
