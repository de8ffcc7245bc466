"""How photos reach the open tab, and that none is lost on the way."""

import io
from base64 import b64encode

import numpy as np
import pillow_heif
import pytest
from encoded_images import dicom_file
from PIL import Image
from playwright.sync_api import expect
from visitor import DONE, PATIENCE_MS, wait_for_answer, wait_for_files, wait_for_photo

pytestmark = pytest.mark.browser

# A DragEvent or ClipboardEvent with files, as the system would send it.
SEND = """([selector, kind, files]) => {
  const transfer = new DataTransfer();
  for (const [name, type, data] of files)
    transfer.items.add(new File([Uint8Array.from(atob(data), (mark) => mark.charCodeAt(0))], name, { type }));
  const about = { bubbles: true, cancelable: true };
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { ...about, clipboardData: transfer })
    : new DragEvent(kind, { ...about, dataTransfer: transfer });
  document.querySelector(selector).dispatchEvent(event);
  return event.defaultPrevented;
}"""


@pytest.fixture
def jpeg(encoded_photo):
    """Name, type and bytes of a photo, for `send`."""
    return lambda seed, name="lesion.jpg": (name, "image/jpeg", encoded_photo(seed))


def send(page, selector, kind, *files):
    """Whether the page took files that were dropped or pasted where the selector says."""
    encoded = [(name, type_, b64encode(data).decode()) for name, type_, data in files]
    return page.evaluate(SEND, [selector, kind, encoded])


def read(page, path):
    page.set_input_files("#photo input[type=file]", path)
    wait_for_answer(page, path)
    wait_for_photo(page)


def test_photo_and_result_stay_until_another_photo_is_there(open_tab, encoded_photo, file_of):
    page = open_tab()
    read(page, file_of(encoded_photo(1)))
    source, answer = page.get_attribute("#photo img", "src"), page.inner_text("#result")
    box = page.locator("#photo")
    with page.expect_file_chooser():
        box.get_by_role("button", name="Choose photo").click()
    box.get_by_role("button", name="Paste").click()
    page.wait_for_selector("#photo-note .dd-failure")
    box.get_by_role("button", name="Camera").click()
    box.get_by_role("button", name="Cancel").click()
    wait_for_photo(page)
    assert page.get_attribute("#photo img", "src") == source
    assert page.inner_text("#result") == answer
    box.get_by_role("button", name="Remove photo").click()
    page.wait_for_selector("#result :text('No photo yet')")
    page.wait_for_function(
        "() => { const image = document.querySelector('#photo .dd-photo-frame > img');"
        " return !image.checkVisibility() || !image.naturalWidth }"
    )
    expect(box.get_by_role("button", name="Choose photo")).to_be_focused()
    read(page, file_of(encoded_photo(2)))


def test_a_photo_that_cannot_be_sent_leaves_the_one_before(chromium, app_url, encoded_photo, file_of):
    # Without the fixture's watch over the page: the browser itself logs what was not sent.
    context = chromium.new_context()
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(app_url)
    page.wait_for_selector("#photo input[type=file]", state="attached")
    read(page, file_of(encoded_photo(3)))
    answer = page.inner_text("#result")
    page.route("**/upload*", lambda route: route.abort())
    page.set_input_files("#photo input[type=file]", file_of(encoded_photo(4), "other.jpg"))
    page.wait_for_selector("#photo-note .dd-failure:has-text('other.jpg')")
    wait_for_photo(page)
    assert page.inner_text("#result") == answer
    context.close()


def test_the_camera_takes_a_photo(open_tab):
    page = open_tab()
    page.locator("#photo").get_by_role("button", name="Camera").click()
    page.locator("#photo").get_by_role("button", name="Take photo").click()
    page.wait_for_selector(DONE)
    wait_for_photo(page)
    expect(page.locator("#photo video")).to_be_hidden()


def test_the_paste_button_reads_a_copied_image(open_tab):
    page = open_tab()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(
        """async () => {
          const canvas = new OffscreenCanvas(120, 100);
          canvas.getContext("2d").fillRect(0, 0, 60, 100);
          await navigator.clipboard.write([new ClipboardItem({ "image/png": await canvas.convertToBlob() })]);
        }"""
    )
    page.locator("#photo").get_by_role("button", name="Paste").click()
    page.wait_for_selector(DONE)
    expect(page.locator("#check")).to_contain_text("120 × 100 px")


def test_a_file_dropped_anywhere_goes_to_the_open_tab(open_tab, jpeg):
    page = open_tab()
    assert send(page, "header h1", "dragover", jpeg(5))
    expect(page.locator("#photo.dd-held-over")).to_have_count(1)
    assert send(page, "header h1", "drop", jpeg(5, "first.jpg"), jpeg(6, "second.jpg"))
    page.wait_for_selector(DONE)
    expect(page.locator(".dd-held-over")).to_have_count(0)
    expect(page.locator("#check")).to_contain_text("first.jpg")
    expect(page.locator("#photo-note")).to_contain_text("Only “first.jpg”")
    assert page.locator("#photo-note").bounding_box()["height"] > 0
    page.get_by_role("tab", name="Batch evaluation").click()
    page.wait_for_selector("#batch-folder", state="visible")
    for count, seed in enumerate((7, 8), start=1):
        assert send(page, "header h1", "drop", jpeg(seed, f"{seed}.jpg"))
        wait_for_files(page, count)
    page.get_by_role("tab", name="Model comparison").click()
    page.wait_for_selector("#compare-photo", state="visible")
    assert send(page, "#compare-cards", "drop", jpeg(9))
    page.wait_for_selector("#compare-status :text('Done.')")
    wait_for_photo(page, "#compare-photo")
    page.get_by_role("tab", name="Training and model card").click()
    page.wait_for_selector("#panel-training", state="visible")
    # Nothing is read here, but the page is not left either.
    assert send(page, "#panel-training", "drop", jpeg(9))


def test_a_pasted_image_goes_to_the_open_tab_unless_somebody_writes(open_tab, jpeg):
    page = open_tab()
    assert not send(page, "#opacity input[type=number]", "paste", jpeg(10))
    assert send(page, "body", "paste", jpeg(10, "pasted.jpg"))
    page.wait_for_selector(DONE)
    expect(page.locator("#check")).to_contain_text("pasted.jpg")
    page.get_by_role("tab", name="Batch evaluation").click()
    page.wait_for_selector("#batch-folder", state="visible")
    assert send(page, "body", "paste", jpeg(11))
    wait_for_files(page, 1)


def test_dicom_and_heic_are_read_and_shown(open_tab, encoded_photo, file_of):
    page = open_tab()
    picture = Image.open(io.BytesIO(encoded_photo(12)))
    heic = io.BytesIO()
    pillow_heif.from_pillow(picture).save(heic, quality=90)
    files = {
        "DICOM": file_of(dicom_file(np.asarray(picture), "RGB"), "scan.dcm"),
        "HEIC": file_of(heic.getvalue(), "phone.heic"),
    }
    for kind, path in files.items():
        page.set_input_files("#photo input[type=file]", path)
        page.wait_for_selector(f"#check dd:text-is('{kind}')")
        page.wait_for_function("() => document.querySelector('#photo img')?.naturalWidth === 240")
        page.wait_for_selector(DONE)
    assert "Secret^Name" not in page.content()


def test_on_a_phone_photo_and_state_are_in_sight_after_a_choice(open_tab, encoded_photo, file_of):
    page = open_tab(width=390)
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    read(page, file_of(encoded_photo(13)))
    for part in ("#photo .dd-photo-frame > img", "#status"):
        expect(page.locator(part)).to_be_in_viewport()


def test_back_goes_to_the_tab_before(open_tab):
    page = open_tab()
    for key in ("batch", "comparison"):
        page.locator(f"#panel-{key}-button").click()
        page.wait_for_selector(f"#panel-{key}", state="visible")
        page.wait_for_function("key => location.hash === '#' + key", arg=key)
    for key in ("batch", "single"):
        page.go_back()
        page.wait_for_selector(f"#panel-{key}", state="visible")
    page.go_forward()
    page.wait_for_selector("#panel-batch", state="visible")
