"""Many photos at once: through the page, and as an API."""

import json
import re
import zipfile
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from calibrated_checkpoint import calibrated_predictor
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from playwright.sync_api import expect
from sklearn import metrics as sk
from visitor import PATIENCE_MS, wait_for_files

from dermadeit.data.tabular import read_csv
from dermadeit.errors import ImageError, ResultFileError
from dermadeit.evaluation.evaluate import write_evaluations
from dermadeit.inference.zoo import ModelZoo
from dermadeit.reporting.names import PREDICTION_SET, WITHHELD
from dermadeit.tasks import BINARY
from dermadeit.views.batch import tables as batch_tables
from dermadeit.views.batch.run import Order, evaluate_batch, read_batch
from dermadeit.views.batch.session import Session
from dermadeit.views.page.examples import SAMPLE_SET
from dermadeit.views.page.job import FilesJob

OTHERS = BINARY.display_names["others"]
INPUT = "#batch-files input[type=file]"
DONE = "#batch-status :text('The uploads have been deleted')"


@pytest.fixture(scope="module")
def photos(encoded_photo):
    """Name in the ZIP to bytes: 6 nevi, 6 others, and one that is broken."""
    named = {f"nevus/n{seed}.jpg": encoded_photo(seed) for seed in range(6)}
    named |= {f"others/o{seed}.jpg": encoded_photo(seed) for seed in range(6, 12)}
    return named | {"others/<b id=injected>.jpg": b"\xff\xd8\xff not a photo"}


@pytest.fixture
def batch_page(chromium, app_url):
    """Opens the tab; nothing may go wrong in it."""
    errors, contexts = [], []

    def open_page(width=1280):
        contexts.append(chromium.new_context(viewport={"width": width, "height": 900}))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{app_url}/?__theme=light#batch")
        page.get_by_role("tab", name="Batch").click()
        page.wait_for_selector(INPUT, state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture(scope="module")
def client(app_url, tmp_path_factory):
    return Client(
        app_url, verbose=False, analytics_enabled=False, download_files=tmp_path_factory.mktemp("batch")
    )


def hand_in(page, *paths):
    page.set_input_files(INPUT, paths)
    wait_for_files(page, len(paths))


def matrix(page):
    """Counts of the confusion matrix on the page, row by row, once it is there."""
    cells = page.locator("#batch-matrix .dd-cell b")
    expect(cells).to_have_count(4)
    return [int(text) for text in cells.all_inner_texts()]


def expect_matrix(page, counts):
    """Waits until the confusion matrix on the page has these counts."""
    expect(page.locator("#batch-matrix .dd-cell b")).to_have_text([str(count) for count in counts.ravel()])


@pytest.mark.browser
def test_a_zip_of_class_folders_from_start_to_downloads(
    batch_page, class_zip, photos, predictors, cache, tmp_path
):
    good = [name for name in photos if "injected" not in name]
    records = predictors["binary"].predict([photos[name] for name in good])
    scores = np.array([record.probabilities["others"] for record in records])
    labels = np.array([name.startswith("others") for name in good]).astype(int)

    # Other tests may have uploaded the same photos through the same app.
    before = set(Path(cache).rglob("*"))
    page = batch_page()
    hand_in(page, class_zip)
    page.click("#batch-start")
    page.wait_for_selector(DONE)
    expect(page.locator("#batch-progress")).to_contain_text("13 of 13 images")
    expect(page.locator("#batch-figures")).to_contain_text(f"{sk.roc_auc_score(labels, scores):.3f} [")
    expect(page.locator("#batch-curves svg[role=img]")).to_have_count(6)
    expect_matrix(page, sk.confusion_matrix(labels, scores > 0.5))
    failures = page.locator("#batch-failures")
    expect(failures).to_contain_text("<b id=injected>.jpg")
    expect(failures).to_contain_text("incomplete")
    expect(page.locator("#injected")).to_have_count(0)

    # The slider by keyboard: matrix and figures follow.
    ordered = np.sort(scores)
    page.locator("#batch-rule").get_by_label("Own threshold").check()
    number = page.locator("#batch-threshold input[type=number]")
    number.fill(f"{(ordered[3] + ordered[4]) / 2:.6f}")
    number.press("Enter")
    answered = scores >= (ordered[3] + ordered[4]) / 2
    expect_matrix(page, sk.confusion_matrix(labels, answered))
    expect(page.locator("#batch-points")).to_contain_text(f"{sk.recall_score(labels, answered):.3f}")
    wrong = int((answered != labels).sum())
    expect(page.locator("#batch-gallery")).to_contain_text(f"{wrong} wrong answers")
    expect(page.locator("#batch-gallery .dd-picture")).to_have_count(wrong)

    cell = page.locator("#batch-matrix button.dd-cell").first
    cell.focus()
    cell.press("Enter")
    page.wait_for_selector("#batch-matrix [aria-pressed=true]")
    count = int(page.inner_text("#batch-matrix [aria-pressed=true] b"))
    expect(page.locator("#batch-gallery .dd-picture")).to_have_count(count)
    # The button that was pressed is still the one that the keyboard is on.
    expect(page.locator("#batch-matrix [aria-pressed=true]")).to_be_focused()
    expect(page.locator("#batch-gallery img[src^='data:image/jpeg']")).to_have_count(count)

    with page.expect_download() as download:
        page.click("#batch-zip")
    assert download.value.suggested_filename == "dermadeit-batch-binary.zip"
    with zipfile.ZipFile(download.value.path()) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "out")
    assert {"metrics.json", "predictions.csv", "failures.csv", "left_out.csv", "report.html", "roc.svg"} <= {
        *names
    }
    rows = read_csv(tmp_path / "out" / "predictions.csv").rows
    assert {row["sha256"] for row in rows} == {record.sha256 for record in records}
    assert "Not a medical device" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")

    digest = predictors["binary"].checkpoint.weights_sha256
    with Image.open(tmp_path / "out" / "roc.png") as curve:
        curve.load()
        assert digest in curve.text["Comment"]
    assert digest in (tmp_path / "out" / "roc.svg").read_text(encoding="utf-8")

    kept = [path.read_bytes() for path in set(Path(cache).rglob("*")) - before if path.is_file()]
    assert class_zip.read_bytes() not in kept
    assert photos[good[0]] not in kept
    for width in (320, 1920):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.browser
def test_cancelling_keeps_and_evaluates_what_is_done(batch_page, class_zip, predictors):
    page = batch_page()
    hand_in(page, class_zip)
    with predictors["binary"].lock:
        page.click("#batch-start")
        page.wait_for_selector("#batch-status :text('Reading the images')")
        page.click("#batch-cancel")
        page.wait_for_selector("#batch-status :text('Finishing')")
    page.wait_for_selector(DONE)
    expect(page.locator("#batch-status")).to_contain_text("Cancelled")
    expect(page.locator("#batch-overview")).to_contain_text("9 images not read")
    assert sum(matrix(page)) == 4


@pytest.mark.browser
def test_one_click_evaluates_the_sample_set_and_its_pictures_open_large(batch_page):
    page = batch_page()
    # Of this task the set would hold one class only.
    page.get_by_label("Melanoma / BCC / SCC").locator("visible=true").check()
    page.locator("#batch-views input[value='1']").check()
    page.click("#batch-sample")
    page.wait_for_selector(DONE)
    expect(page.locator("#batch-progress")).to_contain_text("24 of 24 images")
    counts = np.reshape(matrix(page), (2, 2))
    assert counts.sum(axis=1).tolist() == [15, 9]
    expect(page.locator("#panel-batch")).to_contain_text("CC0; Gutman et al. 2016")

    row, column = np.argwhere(counts > 1)[0].tolist()
    count = counts[row, column]
    page.click(f"#batch-matrix [data-pick='{row},{column}']")
    expect(page.locator("#batch-gallery .dd-picture")).to_have_count(int(count))
    opener = page.locator("#batch-gallery [data-pick='open 0']")
    opener.click()
    dialog = page.locator("dialog.dd-viewer")
    expect(dialog).to_be_visible()
    expect(dialog).to_contain_text(f"1 of {count}")
    first = dialog.locator("figcaption").inner_text()
    assert "ISIC_" in first
    page.wait_for_function("() => document.querySelector('dialog.dd-viewer img').naturalWidth > 500")
    dialog.get_by_role("button", name="Next").click()
    expect(dialog).to_contain_text(f"2 of {count}")
    expect(dialog.locator("figcaption")).not_to_have_text(first)
    page.keyboard.press("ArrowLeft")
    expect(dialog.locator("figcaption")).to_have_text(re.compile(re.escape(first.split()[-1])))
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(opener).to_be_focused()
    # The same picture again.
    page.keyboard.press("Enter")
    expect(dialog).to_be_visible()
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()


@pytest.mark.browser
def test_without_labels_there_is_a_table_and_no_figures(batch_page, encoded_photo, file_of):
    page = batch_page()
    hand_in(page, file_of(encoded_photo(1), "a.jpg"), file_of(encoded_photo(2), "b.jpg"))
    page.locator("#batch-views").locator("input[value='1']").check()
    page.click("#batch-start")
    page.wait_for_selector(DONE)
    page.wait_for_selector("#batch-table :text('b.jpg')")
    expect(page.locator("#batch-matrix:visible")).to_have_count(0)
    # A mistake afterwards takes the results away and says what to do.
    hand_in(page, file_of(b"image_id,diagnose\na,NV\n", "labels.csv"), file_of(encoded_photo(1), "a.jpg"))
    page.click("#batch-start")
    page.wait_for_selector("#batch-status .dd-failure:has-text('no column “label”')")
    expect(page.locator("#batch-table:visible")).to_have_count(0)


@pytest.mark.slow
def test_the_api_gives_figures_and_a_zip(client, class_zip, predictors):
    answer, everything = client.predict(
        files=[handle_file(class_zip)],
        task="binary",
        models=["dermadeit", "mobilenetv2"],
        views=1,
        api_name="/evaluate",
    )
    assert list(answer["models"]) == ["dermadeit", "mobilenetv2"]
    figures = answer["models"]["dermadeit"]
    assert figures["n"] == 12
    assert figures["weights_sha256"] == predictors["binary"].checkpoint.weights_sha256
    assert {failure["code"] for failure in answer["failures"]} == {"truncated_image"}
    with zipfile.ZipFile(everything) as archive:
        assert json.loads(archive.read("metrics.json"))["mobilenetv2"]["accuracy"] is not None
        assert archive.read("predictions.csv").count(b"\n") == 1 + 2 * 12


def test_mistakes_are_sentences(client, class_zip, encoded_photo, file_of):
    def refused(files, task="binary", models=("dermadeit",), views=1):
        with pytest.raises(AppError) as caught:
            client.predict(files=files, task=task, models=list(models), views=views, api_name="/evaluate")
        return str(caught.value)

    photo = file_of(encoded_photo(1), "a.jpg")
    labels = file_of(b"image_id,label\na,mole\n", "labels.csv")
    assert "line 2: “mole” is not a class" in refused([handle_file(photo), handle_file(labels)])
    assert "no task" in refused([handle_file(photo)], task="regression")
    assert "at least one" in refused([handle_file(photo)], models=[])
    assert "There is no checkpoint of DINOv2" in refused([handle_file(photo)], models=["dinov2"])
    assert "choose 1 to 8" in refused([handle_file(photo)], views=9)
    assert "No file was uploaded" in refused([])


@pytest.mark.parametrize("path", ["/etc/passwd", "../../etc/passwd", "https://example.com/a.zip"])
def test_only_uploads_are_opened(client, app_url, path):
    import httpx

    record = {"path": path, "orig_name": "a.zip", "meta": {"_type": "gradio.FileData"}}
    base = f"{app_url}/gradio_api/call/evaluate"
    event = httpx.post(base, json={"data": [[record], "binary", ["dermadeit"], 1]}).json()["event_id"]
    text = httpx.get(f"{base}/{event}", timeout=60).text
    assert "event: error" in text
    assert "root:" not in text


@pytest.fixture
def session(cache):
    folder = Path(cache) / uuid4().hex
    folder.mkdir()
    return Session(FilesJob(folder))


def test_a_run_deletes_its_uploads_even_when_cancelled(session, uploaded, zoo, class_zip):
    record = uploaded(class_zip)
    for step in read_batch(zoo, Order([record], "binary", ["dermadeit"], 8), session):
        if not isinstance(step, str) and step.done:
            session.job.stop()
    list(evaluate_batch(session))
    assert 0 < session.result.missing < 13
    assert session.evaluations[0].metrics["n"] == len(session.result.items)
    assert not Path(record["path"]).exists()
    assert {path.suffix for path in session.job.folder.iterdir()} == {".jpg"}


def test_neither_folders_nor_files_of_the_server_are_taken(session, cache, zoo, class_zip):
    shipped = SAMPLE_SET / "labels.csv"
    assert shipped.is_file()
    for path, code in (
        (cache, "upload_expired"),
        (class_zip, "not_an_upload"),
        (shipped, "not_an_upload"),
        ("", "not_an_upload"),
    ):
        with pytest.raises(ImageError) as caught:
            list(read_batch(zoo, Order([{"path": str(path)}], "binary", ["dermadeit"], 1), session))
        assert caught.value.code == code
    assert class_zip.exists()
    assert shipped.exists()


def test_pictures_are_opened_by_their_place_in_what_is_shown(session, uploaded, zoo, class_zip):
    list(read_batch(zoo, Order([uploaded(class_zip)], "binary", ["dermadeit"], 1), session))
    shown = session.gallery().count("dd-picture")
    assert shown > 0
    large = session.opened("open 0")
    assert f"1 of {shown}" in large
    assert large != session.opened("open 0")
    for forged in ("0", "open", "open -1", f"open {shown}", "open x", "page 0", "None"):
        assert session.opened(forged) == ""


def test_a_table_of_predictions_alone_is_evaluated(session, uploaded, zoo, file_of):
    rows = [
        f"i{index},binary,other model,1,{'nevus' if index % 2 else 'others'},{index},4" for index in range(9)
    ]
    header = "image_id,task,model,views,label_true,logit_nevus,logit_others"
    table = file_of("\n".join([header, *rows]).encode(), "predictions.csv")
    list(read_batch(zoo, Order([uploaded(table)], "binary", [], 8), session))
    list(evaluate_batch(session))
    assert session.evaluations[0].metrics["accuracy"] == pytest.approx(4 / 9)
    assert "no picture" in session.gallery()
    assert [key for _, key in session.rules()] == ["likeliest", "own_threshold"]


def test_a_forged_press_does_nothing(session, uploaded, zoo, file_of):
    table = b"image_id,task,model,views,label_true,logit_nevus,logit_others\na,binary,m,1,nevus,1,2\n"
    list(read_batch(zoo, Order([uploaded(file_of(table, "p.csv"))], "binary", [], 8), session))
    for value in ("", "9,9", "a,b", "page x", "1", "-1,0", "0,0,0", "None"):
        session.pick(value)
        assert (session.cell, session.page) == (None, 0), value
    session.pick("0,1")
    assert session.cell == (0, 1)
    session.pick("mistakes")
    assert session.cell is None


def test_the_images_of_a_subgroup_are_shown_with_the_wrong_answers_first(session, uploaded, zoo, file_of):
    rows = [
        f"i{index},binary,m,1,nevus,{-4 if index == 20 else 4},0,{'ham10000' if index < 25 else 'msk'}"
        for index in range(50)
    ]
    header = "image_id,task,model,views,label_true,logit_nevus,logit_others,source"
    table = file_of("\n".join([header, *rows]).encode(), "predictions.csv")
    list(read_batch(zoo, Order([uploaded(table)], "binary", [], 8), session))
    list(evaluate_batch(session))
    page = batch_tables.slices_html(session.evaluation())
    assert "<svg" in page
    assert 'data-pick="part source:ham10000"' in page
    session.pick("part source:ham10000")
    shown = session.gallery()
    assert "25 images" in shown
    assert shown.index(">i20<") < shown.index(">i0<")
    for forged in ("part", "part x:y", "part source"):
        session.pick(forged)
        assert session.gallery()


def test_a_calibrated_table_shows_what_was_withheld_and_why_points_are_missing(
    session, uploaded, zoo, file_of
):
    header = (
        "image_id,task,model,views,label_true,logit_nevus,logit_others,calibrated,verdict,abstain_codes,"
        "conformal_set,flips,spread"
    )
    rows = [
        f"i{index},binary,m,{views},nevus,2,0,True,{'abstain,blur' if index else 'answer,'},nevus others,1,0.1"
        for index in range(2)
        for views in (4, 8)
    ]
    rows += [row.replace(",m,8", ",n,1") for row in rows if ",m,8" in row]
    table = file_of("\n".join([header, *rows]).encode(), "predictions.csv")
    list(read_batch(zoo, Order([uploaded(table)], "binary", [], 8), session))
    list(evaluate_batch(session))
    assert session.table()["Status"].tolist() == ["answered", "answer withheld: blur"]
    assert session.table()[PREDICTION_SET].tolist() == [f"Nevus, {OTHERS}"] * 2
    shown = batch_tables.trust_html(session.evaluation())
    assert "Operating points were not measured" in shown
    assert "Answers withheld" in shown
    assert "Answers with a warning" not in shown
    overview = batch_tables.overview_html(session.result)
    assert "<dd>m 8, n 1</dd>" in overview
    assert "Left out: the predictions of m from fewer views (4)." in overview


def test_a_caption_says_answer_truth_diagnosis_and_whether_it_was_withheld(session, uploaded, zoo, file_of):
    header = (
        "image_id,task,model,views,label_true,logit_nevus,logit_others,calibrated,verdict,abstain_codes,"
        "conformal_set,diagnosis"
    )
    rows = ["a,binary,m,1,others,2,0,True,abstain,too_dark blurred,nevus,MEL",
            "b,binary,m,1,others,3,0,True,answer,,nevus,<i>odd</i>",
            "c,binary,m,1,others,0,1,True,answer,,others,BCC"]  # fmt: skip
    table = file_of("\n".join([header, *rows]).encode(), "predictions.csv")
    list(read_batch(zoo, Order([uploaded(table)], "binary", [], 8), session))
    list(evaluate_batch(session))
    shown = session.gallery()
    assert f"<b>answer Nevus, truth {OTHERS} (melanoma)</b>" in shown
    assert f"truth {OTHERS} (&lt;i&gt;odd&lt;/i&gt;)" in shown
    assert f">{WITHHELD.lower()}: too dark, blurred</span>" in shown
    assert shown.count('class="dd-held"') == 1
    assert f"a: answer Nevus, truth {OTHERS} (melanoma), {WITHHELD.lower()}: too dark, blurred" in shown


def test_an_answer_with_a_warning_is_marked_in_table_gallery_and_files(
    session, uploaded, zoo, file_of, tmp_path
):
    header = (
        "image_id,task,model,views,label_true,logit_nevus,logit_others,calibrated,verdict,abstain_codes,"
        "warning_codes,conformal_set"
    )
    rows = ["a,binary,m,1,others,2,0,True,answer,,out_of_distribution darker_skin,nevus",
            "b,binary,m,1,others,3,0,True,answer,,,nevus",
            "c,binary,m,1,others,1,0,True,abstain,not_skin,,nevus"]  # fmt: skip
    table = file_of("\n".join([header, *rows]).encode(), "predictions.csv")
    list(read_batch(zoo, Order([uploaded(table)], "binary", [], 8), session))
    list(evaluate_batch(session))
    warned = "answer with a warning: differs from the training photos, darker skin"
    expected = [warned, "answered", "answer withheld: no skin lesion"]
    assert session.table()["Status"].tolist() == expected
    shown = session.gallery()
    assert f">{warned}</span>" in shown
    assert ">answer withheld: no skin lesion</span>" in shown
    assert shown.count('class="dd-held"') == 2
    abstention = session.evaluation().metrics["abstention"]
    assert abstention["warned"]["value"] == pytest.approx(1 / 3)
    assert "Answers with a warning" in batch_tables.trust_html(session.evaluation())
    write_evaluations(session.evaluations, tmp_path)
    again = read_csv(tmp_path / "predictions.csv").rows
    assert [row["warning_codes"] for row in again] == ["out_of_distribution darker_skin", "", ""]
    assert [row["answer_status"] for row in again] == expected
    assert [shown.count(f'data-answer="{state}"') for state in ("warned", "withheld", "answered")] == [
        1,
        1,
        0,
    ]


@pytest.mark.slow
def test_a_table_of_shipped_weights_has_their_operating_points(
    session, uploaded, checkpoint_root, synthetic_data, file_of
):
    predictor = calibrated_predictor(checkpoint_root, synthetic_data)
    zoo = ModelZoo(checkpoint_root, {("binary", "dermadeit"): predictor})
    digest = predictor.checkpoint.weights_sha256
    header = (
        "image_id,task,model,views,label_true,logit_nevus,logit_others,calibrated,verdict,abstain_codes,"
        "conformal_set,weights_sha256"
    )

    def points(named):
        truths = ("others", "nevus") * 3
        rows = [
            f"i{index},binary,renamed,8,{truth},{index},4,True,answer,,nevus,{named}"
            for index, truth in enumerate(truths)
        ]
        table = file_of("\n".join([header, *rows]).encode(), "predictions.csv")
        list(read_batch(zoo, Order([uploaded(table)], "binary", [], 8), session))
        list(evaluate_batch(session))
        return session.evaluation().metrics["operating_points"]

    assert points(digest)["balanced"]["threshold"] == session.get_threshold("balanced")
    assert session.result.weights == {"renamed": digest}
    assert "were not measured" not in batch_tables.trust_html(session.evaluation())
    assert points("0" * 64) is None
    assert "were not measured" in batch_tables.trust_html(session.evaluation())


def test_a_mistake_in_a_table_of_predictions_names_it_as_its_owner_does(session, uploaded, zoo, file_of):
    table = b"image_id,task,model,views,label_true,logit_nevus,logit_others\na,binary,m,x,nevus,1,2\n"
    with pytest.raises(ResultFileError, match=r"line 2 of “mine.csv”"):
        list(read_batch(zoo, Order([uploaded(file_of(table, "mine.csv"))], "binary", [], 8), session))
