"""The page as a visitor meets it, in a headless chromium."""

import hashlib
import json
import re

import pytest
from calibrated_checkpoint import calibrated_predictor
from gradio_client import Client, handle_file
from PIL import Image
from playwright.sync_api import expect
from visitor import DONE, HEATMAP, UPLOAD, Visit, wait_for_answer

from dermadeit.imaging.decode import MAX_BYTES, decode_image
from dermadeit.inference.faithfulness import check_saliency
from dermadeit.inference.saliency import attention_rollout, grad_sam
from dermadeit.reporting.names import WITHHELD
from dermadeit.tasks import BINARY, MULTICLASS
from dermadeit.views.page.examples import read_examples
from dermadeit.views.page.uploads import MAX_UPLOAD_BYTES

pytestmark = pytest.mark.browser

FAILURE = ".dd-failure"


@pytest.fixture
def visit(chromium, app_url):
    """Opens the page: `visit()`, `visit(dark=True)`, `visit(width=320)`; nothing may go wrong in it."""
    visits, contexts = [], []

    def open_page(width=1280, dark=False, address=app_url):
        contexts.append(chromium.new_context(viewport={"width": width, "height": 900}))
        url = f"{address}/?__theme={'dark' if dark else 'light'}"
        visits.append(Visit(contexts[-1].new_page(), url))
        return visits[-1]

    yield open_page
    for context in contexts:
        context.close()
    assert [visited.errors for visited in visits if visited.errors] == []
    assert [visited.foreign for visited in visits if visited.foreign] == []


@pytest.fixture(scope="module")
def calibrated_url(cache, start_app, predictors, checkpoint_root, synthetic_data):
    """Address of an app whose binary checkpoint is calibrated and whose multiclass one is not."""
    app, url = start_app(predictors | {"binary": calibrated_predictor(checkpoint_root, synthetic_data)})
    yield url
    app.close(verbose=False)


def test_upload_gives_label_then_heatmap_then_check(visit, encoded_photo, file_of, predictors):
    visited = visit()
    expect(visited.page.locator("#result")).to_contain_text("No photo yet")
    path = file_of(encoded_photo(1))
    [expected] = predictors["binary"].predict([path])
    visited.read(path)
    names = predictors["binary"].checkpoint.task.display_names
    expect(visited.page.locator(".dd-label").first).to_have_text(names[expected.label])
    shares = [f"{share * 100:.1f}\u00a0%" for share in expected.probabilities.values()]
    assert visited.page.locator(".dd-value").all_inner_texts() == shares
    assert "not calibrated" in visited.page.inner_text("#result")
    assert names[expected.label] in visited.page.get_attribute(HEATMAP, "alt")
    image = decode_image(path)
    tested = check_saliency(
        predictors["binary"], image, grad_sam(predictors["binary"], image, expected.label)
    )
    verdict = "reliable" if tested.faithful else "unreliable"
    expect(visited.page.locator("#legend .dd-legend").first).to_have_attribute("data-check", verdict)
    badge = visited.page.locator("#heatmap-badge")
    expect(badge).to_have_text("Reliable heatmap" if tested.faithful else "Unreliable heatmap")
    expect(badge.locator("[role=status]")).to_have_attribute("aria-live", "polite")
    check = visited.page.inner_text("#check")
    assert "JPEG" in check
    assert "240 × 180 px" in check
    assert "image conversion none" in " ".join(check.split()).lower()
    assert "64 × 64 pixels" in check
    assert visited.page.get_attribute("#check code", "title") == expected.sha256
    assert "Not a medical device." in visited.page.inner_text("header")


def test_the_photo_that_is_shown_is_a_copy_without_metadata(visit, encoded_photo, file_of):
    visited = visit()
    visited.read(file_of(encoded_photo(2, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0")))
    shown = visited.page.get_attribute("#photo img", "src")
    data = visited.bytes_of(shown)
    assert data.startswith(b"\x89PNG")
    assert b"eXIf" not in data


def test_the_heatmap_lies_on_the_photo_and_follows_class_and_opacity(visit, encoded_photo, file_of):
    visited = visit()
    page = visited.page
    first = visited.read(file_of(encoded_photo(3)))
    page.locator("#class input:not(:checked)").first.check()
    visited.heatmap_after(first)
    photo, heatmap = (page.locator(part).bounding_box() for part in ("#photo img >> nth=0", HEATMAP))
    assert photo == heatmap
    slider = page.locator("#opacity input[type=range]")
    slider.focus()
    slider.press("End")
    expect(page.locator(HEATMAP)).to_have_css("opacity", "1")
    zoom = page.get_by_role("button", name="Zoom").locator("visible=true")
    zoom.click()
    page.wait_for_function(
        "([part, width]) => Math.abs(document.querySelector(part).getBoundingClientRect().width - width) < 0.01",
        arg=[HEATMAP, 1.5 * heatmap["width"]],
    )
    photo, larger = (page.locator(part).bounding_box() for part in ("#photo img >> nth=0", HEATMAP))
    assert photo == larger
    assert larger["width"] == pytest.approx(1.5 * heatmap["width"])
    page.get_by_role("button", name="Full screen").locator("visible=true").click()
    page.wait_for_function("() => document.fullscreenElement?.querySelector('.dd-heat')")
    page.evaluate("document.exitFullscreen()")
    # What is in sight is read by itself: two thirds of the height, and of the width as much as fits.
    page.get_by_role("button", name="Read this part").locator("visible=true").click()
    expect(page.locator("#check")).to_contain_text("lesion (part).png")
    expect(page.locator("#check")).to_contain_text("× 120 px")


def test_the_page_starts_with_input_and_examples_and_leads_to_the_answer(visit, encoded_photo, file_of):
    page = visit().page
    for part in ("#operating-point", "#opacity", "#class", "#download", "#stop", "#check"):
        assert page.locator(part).is_hidden()
    first, second = (file_of(encoded_photo(seed), f"{seed}.jpg") for seed in (3, 4))
    page.set_input_files(UPLOAD, first)
    wait_for_answer(page, first)
    expect(page.locator("#result h2")).to_be_focused()
    # Who is elsewhere by the time of the answer stays there.
    page.set_input_files(UPLOAD, second)
    page.locator("#photo").get_by_role("button", name="Choose photo").wait_for()
    page.locator("#panel-single-button").focus()
    wait_for_answer(page, second)
    expect(page.locator("#panel-single-button")).to_be_focused()


def test_choosing_the_task_first_is_as_good(visit, encoded_photo, file_of):
    visited = visit()
    visited.page.get_by_label("Melanoma / BCC / SCC").check()
    visited.page.wait_for_function("() => document.querySelectorAll('#class input').length === 3")
    visited.read(file_of(encoded_photo(4)))
    expect(visited.page.locator(".dd-conditional")).to_have_count(1)
    assert visited.page.locator("[data-testid=toast-body]").count() == 0


def test_a_photo_chosen_right_after_the_task_is_not_lost(visit, encoded_photo, file_of):
    visited = visit()
    for seed, task in enumerate((MULTICLASS.title, BINARY.title, MULTICLASS.title)):
        path = file_of(encoded_photo(40 + seed), f"lesion{seed}.jpg")
        visited.page.get_by_label(task).check()
        visited.upload(path)
        visited.page.wait_for_selector(
            f"#check code[title='{hashlib.sha256(path.read_bytes()).hexdigest()}']"
        )
        visited.page.wait_for_selector(".dd-label")


def test_the_second_task_is_a_conditional_reading(visit, encoded_photo, file_of, predictors):
    visited = visit()
    first = visited.read(file_of(encoded_photo(4)))
    visited.page.get_by_label("Melanoma / BCC / SCC").check()
    visited.page.wait_for_selector(".dd-conditional")
    visited.heatmap_after(first)
    tasks = visited.page.locator(".dd-answer").evaluate_all("cards => cards.map(card => card.dataset.task)")
    assert tasks == ["binary", "multiclass"]
    text = visited.page.inner_text(".dd-conditional")
    assert "If malignant:" in text
    assert predictors["multiclass"].checkpoint.task.caveat in text
    expect(visited.page.locator("#class input")).to_have_count(3)


def test_an_example_works_more_than_once(visit):
    visited = visit()
    examples = visited.page.locator(".dd-examples button")
    for _ in range(2):
        examples.first.click()
        wait_for_answer(visited.page, read_examples()[0].path)
        visited.heatmap()
        visited.page.locator("#photo").get_by_label("Remove photo").click()
        visited.page.wait_for_selector("#result :text('No photo yet')")
        expect(visited.page.locator("#check code")).to_have_count(0)


@pytest.mark.parametrize(("tab", "photo"), [("single", "photo"), ("comparison", "compare-photo")])
def test_an_example_comes_with_its_diagnosis_and_credit(visit, encoded_photo, file_of, tab, photo):
    page = visit().page
    page.locator(f"#panel-{tab}-button").click()
    example = read_examples()[1]
    page.locator(f"#{photo}-examples button").nth(1).click()
    caption = page.locator(f"#{photo}-known")
    expect(caption).to_contain_text("Known diagnosis: melanoma")
    expect(caption).to_contain_text(example.image_id)
    expect(caption).to_contain_text("CC0; Gutman et al. 2016, arXiv:1605.01397")
    page.wait_for_selector(f"#{photo} img")
    # It is of the example only, not of the photo after it.
    page.locator(f"#{photo}").get_by_label("Remove photo").click()
    expect(caption).not_to_contain_text("Known diagnosis")


def test_updates_that_reach_the_page_all_at_once_are_all_shown(visit):
    visited = visit()
    # The whole stream is read before the page sees any of it, as on a machine that is too busy to draw.
    visited.page.route("**/queue/data*", lambda route: route.fulfill(response=route.fetch(timeout=60_000)))
    visited.page.locator(".dd-examples button").first.click()
    visited.page.wait_for_selector(DONE)
    visited.heatmap()
    expect(visited.page.locator("#stop")).to_be_disabled()


def test_the_last_of_two_hasty_choices_wins_even_if_both_had_to_wait(
    visit, app_url, predictors, encoded_photo, file_of, monkeypatch
):
    visited = visit()
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    client = Client(app_url, verbose=False)
    photos = [handle_file(file_of(encoded_photo(seed), f"{seed}.jpg")) for seed in (1, 2, 3)]
    examples = visited.page.locator(".dd-examples button")
    with predictors["binary"].lock:
        busy = [client.submit(photo, "binary", api_name="/predict") for photo in photos[:2]]
        examples.nth(0).click()
        visited.page.wait_for_selector("#result :text('Reading')", state="attached")
        examples.nth(1).click()
    for job in busy:
        assert job.result()[0]["status"] == "ok"
    wait_for_answer(visited.page, read_examples()[1].path)
    # Whatever waited in the queue has been worked off when this is answered.
    client.predict(photos[2], "binary", api_name="/predict")
    visited.heatmap()
    [expected] = predictors["binary"].predict([read_examples()[1].path])
    assert visited.page.get_attribute("#check code", "title") == expected.sha256
    assert f"{max(expected.probabilities.values()) * 100:.1f}" in visited.page.inner_text("#status")
    client.close()


def test_a_broken_file_clears_the_old_answer_and_a_good_one_works_again(visit, encoded_photo, file_of):
    visited = visit()
    visited.read(file_of(encoded_photo(5)))
    visited.page.locator("#photo").get_by_label("Remove photo").click()
    visited.page.wait_for_selector("#result :text('No photo yet')")
    visited.upload(file_of(b"%PDF-1.7 not a photo", "paper.jpg"))
    visited.page.wait_for_selector(FAILURE)
    expect(visited.page.locator("#status")).to_contain_text("PDF document")
    expect(visited.page.locator("#status [aria-live=polite]")).to_have_count(1)
    expect(visited.page.locator(".dd-label")).to_have_count(0)
    expect(visited.page.locator(HEATMAP)).to_have_count(0)
    visited.page.wait_for_selector(UPLOAD, state="attached")
    visited.read(file_of(encoded_photo(6)))
    expect(visited.page.locator(FAILURE)).to_have_count(0)
    expect(visited.page.locator(".dd-label")).to_have_count(1)


def test_a_file_over_the_limit_gives_a_message_and_clears_the_old_answer(visit, encoded_photo, file_of):
    visited = visit()
    visited.read(file_of(encoded_photo(5)))
    visited.upload(file_of(bytes(MAX_BYTES + 1), "big.jpg"))
    visited.page.wait_for_selector(f"{FAILURE}:has-text('20 MB')")
    expect(visited.page.locator(".dd-label")).to_have_count(0)
    expect(visited.page.locator(HEATMAP)).to_have_count(0)


def test_a_name_with_html_is_shown_as_text(visit, encoded_photo, file_of):
    visited = visit()
    visited.read(file_of(encoded_photo(7), "<b id=injected>${7*7}{{7*7}}.jpg"))
    assert visited.page.locator("#injected").count() == 0
    assert "49" not in visited.page.inner_text("#check dd >> nth=0")


def test_a_tiff_is_read_and_shown(visit, encoded_photo, file_of):
    visited = visit()
    visited.read(file_of(encoded_photo(8, "TIFF"), "scan.tif"))
    visited.page.wait_for_function("() => document.querySelector('#photo img')?.naturalWidth === 240")


def test_the_download_says_how_the_result_came_about(visit, encoded_photo, file_of, predictors):
    visited = visit()
    visited.read(file_of(encoded_photo(9)))
    with visited.page.expect_download() as download:
        visited.page.locator("#download").click()
    text = download.value.path().read_text(encoding="utf-8")
    assert re.fullmatch(r"dermadeit-[0-9a-f]{8}\.json", download.value.suggested_filename)
    assert predictors["binary"].checkpoint.weights_sha256 in text
    assert "Not a medical device." in text


def test_the_decision_follows_the_controls_and_is_exported(visit, calibrated_url, lesion_files):
    visited = visit(address=calibrated_url)
    page = visited.page
    visited.read(lesion_files[0])
    page.get_by_label("95 % specificity").check()
    page.wait_for_selector(".dd-decided:has-text('specificity')")
    visited.read(lesion_files[1])
    # What was chosen for the photo before holds for this one.
    expect(page.locator(".dd-decided").first).to_contain_text("95\u00a0% specificity")
    expect(page.locator(".dd-figures").first).to_contain_text("95\u00a0% interval")
    expect(page.locator("#result")).not_to_contain_text("not calibrated")
    slider = page.locator("#threshold input[type=range]")
    for key, decided in zip(("End", "Home"), BINARY.display_names.values(), strict=True):
        slider.focus()
        slider.press(key)
        page.wait_for_selector(f".dd-label:text-is('{decided}')")
        expect(page.locator("#operating-point input:checked")).to_have_value("own_threshold")
    page.fill("#prevalence input", "3")
    page.wait_for_selector(".dd-answer :text('a prevalence of 3.0\u00a0%')")
    prevalence = page.locator("#prevalence input")
    for typed, settled in (("200", "100"), ("", "50"), ("3", "3")):
        prevalence.fill(typed)
        prevalence.blur()
        expect(prevalence).to_have_value(settled)
        page.wait_for_selector(f".dd-answer :text('a prevalence of {settled}.0\u00a0%')")
    with page.expect_download() as download:
        page.locator("#download").click()
    [reading] = json.loads(download.value.path().read_text(encoding="utf-8"))["readings"]
    assert reading["operating_point"] == {"name": "own_threshold", "threshold": 0.0, "decision": "others"}
    assert reading["decision"]["prevalence"] == 0.03
    with page.expect_download() as download:
        page.locator("#download-report").click()
    assert download.value.suggested_filename.endswith(".html")
    assert reading["weights_sha256"] in download.value.path().read_text(encoding="utf-8")
    expect(page.locator(".dd-dot")).to_have_count(8)
    assert "8 views on a line" in page.get_attribute(".dd-dots", "aria-label")
    expect(page.locator("#cases a[rel='noopener noreferrer']")).to_have_count(5)
    # The other checkpoint has none of this, and says so.
    page.get_by_label("Melanoma / BCC / SCC").check()
    page.wait_for_selector(".dd-conditional")
    page.wait_for_selector("#threshold", state="hidden")
    expect(page.locator("#no-decision")).to_contain_text("is not calibrated")
    expect(page.locator("#cases a")).to_have_count(0)


def test_the_api_of_a_calibrated_app_decides_and_names_similar_cases(
    calibrated_url, lesion_files, checkpoint_root, synthetic_data, monkeypatch, tmp_path
):
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    client = Client(calibrated_url, verbose=False)
    [record] = client.predict(
        handle_file(lesion_files[1]), "binary", "sensitivity_95", 3, api_name="/predict"
    )
    predictor = calibrated_predictor(checkpoint_root, synthetic_data)
    [expected] = predictor.predict([lesion_files[1]], operating_point="sensitivity_95", neighbours=3)
    assert record == expected.to_dict()
    Image.new("RGB", (90, 90), (255, 255, 255)).save(tmp_path / "white.png")
    [withheld] = predictor.predict([tmp_path / "white.png"])
    _, check = client.predict(handle_file(tmp_path / "white.png"), "binary", api_name="/explain")
    assert check["verdict"] == withheld.verdict == "abstain"
    assert check["abstain_reasons"] == list(withheld.abstain_reasons)
    client.close()


def test_a_withheld_answer_can_be_overridden_for_one_photo(visit, calibrated_url, lesion_files, tmp_path):
    visited = visit(address=calibrated_url)
    page = visited.page
    Image.new("RGB", (90, 90), (255, 255, 255)).save(tmp_path / "white.png")
    visited.upload(tmp_path / "white.png")
    wait_for_answer(page, tmp_path / "white.png")
    expect(page.locator(".dd-label").first).to_have_text(WITHHELD)
    expect(page.locator(".dd-value")).to_have_count(0)
    expect(page.locator(HEATMAP)).to_have_count(0)
    page.get_by_role("link", name="image check").click()
    expect(page.locator("#check")).to_be_focused()
    expect(page.locator("#check")).to_be_in_viewport()
    page.get_by_label("Show the answer anyway").check()
    page.wait_for_selector(".dd-overridden")
    visited.heatmap()
    with page.expect_download() as download:
        page.locator("#download").click()
    assert json.loads(download.value.path().read_text(encoding="utf-8"))["override"] is True
    page.locator("#photo").get_by_label("Remove photo").click()
    page.wait_for_selector("#result :text('No photo yet')")
    page.wait_for_selector("#override", state="hidden")
    visited.upload(tmp_path / "white.png")
    wait_for_answer(page, tmp_path / "white.png")
    expect(page.locator(".dd-label").first).to_have_text(WITHHELD)


def test_attention_rollout_is_drawn_and_checked_like_any_map(visit, encoded_photo, file_of, predictors):
    visited = visit()
    path = file_of(encoded_photo(12))
    first = visited.read(path)
    visited.page.get_by_label("Attention rollout").check()
    visited.heatmap_after(first)
    assert "Attention rollout heatmap" in visited.page.get_attribute(HEATMAP, "alt")
    image = decode_image(path)
    tested = check_saliency(predictors["binary"], image, attention_rollout(predictors["binary"], image))
    verdict = "reliable" if tested.faithful else "unreliable"
    visited.page.wait_for_selector(f"#heatmap-badge [data-state={verdict}]")
    expect(visited.page.locator("#legend .dd-legend").first).to_have_attribute("data-check", verdict)
    expect(visited.page.locator("#legend")).to_contain_text("the same for every class")
    expect(visited.page.locator("#no-decision")).to_contain_text("is not calibrated")


def test_a_file_that_gradio_would_not_take_gives_a_lasting_message(visit, encoded_photo, file_of, tmp_path):
    visited = visit()
    with (tmp_path / "<b>huge.jpg").open("wb") as file:
        file.truncate(MAX_UPLOAD_BYTES + 1)
    visited.upload(tmp_path / "<b>huge.jpg")
    visited.page.wait_for_selector("#photo-note .dd-failure:has-text('<b>huge.jpg')")
    assert "No photo yet" in visited.page.inner_text("#result")
    visited.read(file_of(encoded_photo(13)))
    expect(visited.page.locator("#photo-note .dd-failure")).to_have_count(0)


def test_on_a_phone_answer_and_reliability_of_the_heatmap_follow_the_photo(visit, encoded_photo, file_of):
    visited = visit(width=390)
    visited.read(file_of(encoded_photo(14)))
    names = ("#task", "#photo", "#heatmap-badge", "#status", "#result", "#legend", ".dd-examples", "#check")
    tops = [visited.page.locator(name).first.bounding_box()["y"] for name in names]
    assert tops == sorted(tops)


@pytest.mark.parametrize("dark", [False, True])
def test_the_theme_of_the_address_is_used(visit, dark):
    visited = visit(dark=dark)
    background = visited.page.evaluate(
        "getComputedStyle(document.querySelector('gradio-app')).backgroundColor"
    )
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 200) is dark


def test_the_keyboard_reaches_everything(visit, encoded_photo, file_of):
    visited = visit()
    reached = tab_stops(visited.page)
    assert {"task", "photo"} <= set(reached)
    visited.read(file_of(encoded_photo(11)))
    reached = tab_stops(visited.page)
    order = [reached.index(name) for name in ("task", "photo", "opacity", "class", "download")]
    assert order == sorted(order)


def tab_stops(page, presses=60):
    """Ids of the parts of the page that the tab key reaches, in order."""
    page.evaluate("document.activeElement.blur(); window.getSelection().removeAllRanges()")
    page.locator("header h1").click()
    stops = []
    for _ in range(presses):
        page.keyboard.press("Tab")
        stops.append(
            page.evaluate(
                "() => document.activeElement.closest('#task, #photo, #class, #opacity, #download')?.id ?? ''"
            )
        )
    return stops
