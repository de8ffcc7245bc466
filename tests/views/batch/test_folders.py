"""Folders, as the page hands them in and as programs may; and a queue that is full."""

import json
import zipfile

import httpx
import openpyxl
import pytest
from playwright.sync_api import expect
from visitor import Visit, wait_for_files

from dermadeit.data.tabular import read_csv
from dermadeit.tasks import BINARY
from dermadeit.views.application import QUEUE_SIZE

DONE = "#batch-status :text('The uploads have been deleted')"
TAKEN = ("nevus/a.jpg", "nevus/b.jpg", "others/a.jpg", "others/deep/c.jpg")
HIDDEN = (".DS_Store", "others/.c.jpg", "__MACOSX/a.jpg")


@pytest.fixture
def folder(tmp_path, encoded_photo):
    """A folder with class folders, files that systems hide, and one of another kind."""
    made = tmp_path / "set"
    # Photos of their own: other tests look for what is left of theirs in the same cache.
    for seed, name in enumerate((*TAKEN, *HIDDEN, "notes.txt"), start=100):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(encoded_photo(seed))
    return made


@pytest.fixture
def busy(running, chromium):
    """An app whose queue takes nothing, and a page of its batch tab."""
    app, url = running
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = Visit(context.new_page(), f"{url}/#batch").page
    app._queue.max_size = 0
    yield app, page
    app._queue.max_size = QUEUE_SIZE
    context.close()


@pytest.mark.browser
def test_a_folder_is_evaluated_by_its_class_folders(open_tab, folder, tmp_path):
    page = open_tab("batch")
    page.set_input_files("#batch-folder input", folder)
    wait_for_files(page, len(TAKEN))
    said = page.locator("#batch-folder")
    expect(said).to_contain_text("Taken from the folder: 4 files.")
    expect(said).to_contain_text("too large: 1 file.")
    page.locator("#batch-views").locator("input[value='1']").check()
    page.click("#batch-start")
    page.wait_for_selector(DONE)
    expect(page.locator("#batch-overview")).to_contain_text(f"Nevus 2, {BINARY.display_names['others']} 2")
    page.wait_for_selector("#batch-table :text('set/others/deep/c.jpg'):visible")
    with page.expect_download() as download:
        page.click("#batch-decisions")
    assert download.value.suggested_filename == "dermadeit-batch-binary-decisions.zip"
    with zipfile.ZipFile(download.value.path()) as archive:
        archive.extractall(tmp_path / "out")
    rows = read_csv(tmp_path / "out" / "decisions.csv").rows
    assert [(row["file"], row["label_true"]) for row in rows] == [
        (f"set/{name}", name.split("/")[0]) for name in TAKEN
    ]


@pytest.mark.browser
def test_an_excel_table_names_the_classes(open_tab, folder, tmp_path):
    workbook = openpyxl.Workbook()
    for row in (("file", "label"), ("a.jpg", "nevus"), ("b.jpg", "nevus"), ("c.jpg", "others")):
        workbook.active.append(row)
    workbook.save(tmp_path / "labels.xlsx")
    page = open_tab("batch")
    photos = [folder / name for name in ("nevus/a.jpg", "nevus/b.jpg", "others/deep/c.jpg")]
    page.set_input_files("#batch-files input[type=file]", [*photos, tmp_path / "labels.xlsx"])
    wait_for_files(page, 4)
    page.locator("#batch-views").locator("input[value='1']").check()
    page.click("#batch-start")
    page.wait_for_selector(DONE)
    expect(page.locator("#batch-overview")).to_contain_text(f"Nevus 2, {BINARY.display_names['others']} 1")


@pytest.mark.browser
def test_a_full_queue_says_so_and_start_can_be_pressed_again(busy, folder):
    app, page = busy
    page.get_by_role("tab", name="Batch").click()
    page.set_input_files("#batch-files input[type=file]", [folder / name for name in TAKEN[:2]])
    wait_for_files(page, 2)
    page.locator("#batch-views").locator("input[value='1']").check()
    page.click("#batch-start")
    page.wait_for_selector("#batch-status .dd-failure[data-code=queue_full]")
    app._queue.max_size = QUEUE_SIZE
    page.click("#batch-start:enabled")
    page.wait_for_selector(DONE)
    page.wait_for_selector("#batch-table :text('b.jpg'):visible")


@pytest.mark.slow
def test_programs_may_give_files_their_paths_in_a_folder(app_url, folder):
    photos = [("files", ("same.jpg", (folder / name).read_bytes())) for name in TAKEN]
    places = httpx.post(f"{app_url}/gradio_api/upload", files=photos).json()
    names = [*TAKEN[:3], "others/../../c.jpg"]
    records = [
        {"path": place, "orig_name": name, "meta": {"_type": "gradio.FileData"}}
        for place, name in zip(places, names, strict=True)
    ]
    base = f"{app_url}/gradio_api/call/evaluate"
    event = httpx.post(base, json={"data": [records, "binary", ["dermadeit"], 1]}).json()["event_id"]
    *_, last = httpx.get(f"{base}/{event}", timeout=60).text.strip().splitlines()
    answer, _ = json.loads(last.removeprefix("data: "))
    figures = answer["models"]["dermadeit"]
    assert [sum(row) for row in figures["confusion_matrix"]["counts"]] == [2, 1]
    assert answer["left_out"] == [
        {"file": "others/c.jpg", "reason": "its path leaves the folder", "code": "refused", "line": None}
    ]
    assert answer["ledger"]["labels"][0] == {"given": "nevus", "taken_for": "nevus", "images": 2}
