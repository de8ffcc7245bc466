"""Models compared on many images: photos with or without their classes, and tables of predictions as an API."""

import json
import os
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from playwright.sync_api import expect

from dermadeit.data.tabular import read_csv
from dermadeit.evaluation.batch import gather_batch_models
from dermadeit.evaluation.comparison import compare_with, find_disagreements, gather_models
from dermadeit.evaluation.predictions import PredictionSet, measure
from dermadeit.publishing.benchmark import BENCHMARK_ROOT, read_benchmark
from dermadeit.tasks import BINARY, MULTICLASS
from dermadeit.views.batch.gallery import PAGE_SIZE
from dermadeit.views.batch.run import Order, read_batch
from dermadeit.views.comparison.disagreements import NEXT, PREVIOUS
from dermadeit.views.comparison.files import export, read_shipped_models, store_disagreements
from dermadeit.views.comparison.images_run import IMAGES, SHIPPED, ImagesRun
from dermadeit.views.comparison.results import results_html
from dermadeit.views.comparison.steps import ImagesComparison, compare_in_steps
from dermadeit.views.comparison.teacher import TEACHER, TEACHER_TITLE, teacher_card_html

MODELS = ["dermadeit", "mobilenetv2"]
DONE = "#compare-batch-status :text('The uploads have been deleted')"


@pytest.fixture(scope="module")
def photos(encoded_photo):
    """Name in the ZIP to bytes: 4 nevi, 4 others, and one that is broken."""
    named = {f"nevus/n{seed}.jpg": encoded_photo(seed) for seed in range(4)}
    named |= {f"others/o{seed}.jpg": encoded_photo(seed) for seed in range(4, 8)}
    return named | {"others/<i>.jpg": b"\xff\xd8\xff not a photo"}


@pytest.fixture
def compared_images(zoo):
    """Reads and compares: `compared_images(records)` gives the run."""

    def compare(records):
        run = ImagesRun.begin(IMAGES, records)
        for _ in read_batch(zoo, Order(run.job.payload, "binary", MODELS, 1), run.session):
            pass
        begun = ImagesComparison(BINARY, gather_batch_models(run.batch))
        *_, (_, run.found) = compare_in_steps(zoo, begun)
        run.job.finish()
        return run

    return compare


def answered(answers):
    """A model's answers to multiclass images `1`, `2`, …, all of which are melanomas."""
    logits = 3.0 * np.eye(3)[list(answers)]
    ids = tuple(str(number) for number in range(1, len(answers) + 1))
    unknown = ("",) * len(ids)
    labels = np.zeros(len(ids), dtype=int)
    return PredictionSet(MULTICLASS, "", 8, ids, labels, logits, logits / 3, ids, unknown, unknown)


def test_a_batch_with_classes_is_compared_and_its_disagreements_have_pictures(
    compared_images, uploaded, class_zip, photos, predictors, zoo
):
    record = uploaded(class_zip)
    run = compared_images([record])
    good = [name for name in photos if "<i>" not in name]
    answers = [
        [record.label for record in predictor.predict([photos[name] for name in good], 1)]
        for predictor in (predictors["binary"], zoo.predictor("binary", "mobilenetv2"))
    ]
    differing = [name for name, *labels in zip(good, *answers, strict=True) if len(set(labels)) > 1]
    assert differing
    assert sorted(image.image_id for image in run.found.differing) == differing
    page = results_html(run.found, run.batch)
    for part in ("images", "figures", "kappas", "plot"):
        assert f'data-part="{part}"' in page
    assert TEACHER_TITLE in unescape(page)
    assert run.listed().count('src="data:image/jpeg;base64,') == len(differing)
    assert not Path(record["path"]).exists()
    assert f"1 of {len(differing)}" in run.opened("open 0")
    for forged in ("0", "open", "open -1", f"open {len(differing)}", "open x", NEXT, "None"):
        assert run.opened(forged) == ""
    content = json.loads(json.dumps(export(run.found, run.batch), allow_nan=False))
    model = content["models"]["DermaDeiT (tiny)"]
    assert model["n"] == 8
    assert model["weights_sha256"] == predictors["binary"].checkpoint.weights_sha256
    assert content["batch"]["failed"] == dict.fromkeys(MODELS, 1)
    table = read_csv(Path(store_disagreements(run.found, run.batch)))
    assert sorted(row["file"] for row in table.rows) == differing
    assert all(len(row["sha256"]) == 64 for row in table.rows)


def test_without_classes_there_are_no_figures_and_the_remedy_is_named(
    compared_images, uploaded, encoded_photo, file_of
):
    run = compared_images([uploaded(file_of(encoded_photo(seed), f"{seed}.jpg")) for seed in range(6)])
    page = results_html(run.found, run.batch)
    assert "needs the true classes" in page
    assert 'data-part="figures"' not in page
    assert 'data-part="kappas"' in page
    assert "Without the true classes there are no figures." in run.found.summary
    listed = run.listed()
    assert "different answers for" in listed
    assert "truly" not in listed
    assert "✗" not in listed
    assert export(run.found, run.batch)["labelled"] is False


def test_stopping_before_its_turn_gives_the_files_back(uploaded, file_of, encoded_photo):
    record = uploaded(file_of(encoded_photo()))
    run = ImagesRun.begin(IMAGES, [record])
    assert not Path(record["path"]).exists()
    [claimed] = run.job.payload
    # Waiting long must not make them a prey of the sweep.
    os.utime(claimed["path"], (0, 0))
    run.stop()
    assert run.job.is_superseded
    assert Path(record["path"]).stat().st_mtime > 0


def test_pages_of_disagreements_are_turned_and_forged_presses_do_nothing(cache):
    first, second = answered([0] * 60), answered([1] * 60)
    compared = gather_models(
        [("a", [replace(first, model="a")]), ("b", [replace(second, model="b")])], MULTICLASS
    )
    run = ImagesRun.begin(SHIPPED)
    run.found = ImagesComparison(
        MULTICLASS, compared, is_compared=True, differing=find_disagreements(compared)
    )
    for pick, page in (("x", 0), (PREVIOUS, 0), (NEXT, 1), (NEXT, 2), (NEXT, 2), ("None", 2), (PREVIOUS, 1)):
        run.turn(pick)
        assert run.page == page
    listed = run.listed()
    assert f"{PAGE_SIZE + 1} to {2 * PAGE_SIZE} of 60" in listed
    assert listed.count("<tr>") == 1 + PAGE_SIZE
    run.job.finish()


def test_shipped_predictions_have_pictures_where_a_local_copy_does(cache, tmp_path, encoded_photo):
    shipped = read_shipped_models(MULTICLASS)[0].predictions.take(range(4))
    other = replace(shipped, model="other", probabilities=np.roll(shipped.probabilities, 1, axis=1))
    compared = gather_models([("a", [shipped]), ("b", [other])], MULTICLASS)
    found = ImagesComparison(
        MULTICLASS, compared, is_compared=True, differing=find_disagreements(compared), is_shipped=True
    )
    run = ImagesRun.begin(SHIPPED, cases=tmp_path)
    run.found = found
    assert "<img" not in run.listed()
    shown = found.differing[0].image_id
    (tmp_path / f"{shown}.jpg").write_bytes(encoded_photo())
    listed = run.listed()
    assert listed.count("<img") == 1
    assert f'alt="{shown}: truth ' in listed
    assert listed.count("no picture</div>") == len(found.differing) - 1
    run.job.finish()


def test_the_teacher_is_never_asked_and_shows_what_is_filed_of_it(tmp_path):
    missing = teacher_card_html(BINARY, tmp_path)
    assert "does not come with the app" in missing
    assert "python -m train.evaluate_teacher --task binary --split test" in missing
    folder = tmp_path / "binary"
    folder.mkdir()
    (folder / f"{TEACHER}.csv").write_text("image_id\n")
    figures = {"accuracy": 0.5, "roc_auc": None, "intervals": {"accuracy": [0.4, 0.6]}}
    (folder / "metrics.json").write_text(json.dumps({"models": {TEACHER: {"views": {"8": figures}}}}))
    filed = teacher_card_html(BINARY, tmp_path)
    assert "0.500" in filed
    assert "[0.400, 0.600]" in filed
    assert "evaluate_teacher" not in filed


@pytest.fixture(scope="module")
def client(app_url, tmp_path_factory):
    return Client(
        app_url, verbose=False, analytics_enabled=False, download_files=tmp_path_factory.mktemp("compared")
    )


def write_table(path, predictions):
    """Writes a table as `evaluate` does, with the columns that a comparison needs."""
    lines = ["image_id,task,model,views,label_true,lesion_group,logit_mel,logit_bcc,logit_scc"]
    for index, image_id in enumerate(predictions.image_ids):
        label = MULTICLASS.classes[predictions.labels[index]]
        cells = [image_id, "multiclass", predictions.model, "8", label, predictions.lesion_groups[index]]
        lines.append(",".join([*cells, *map(repr, predictions.logits[index].tolist())]))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.slow
def test_programs_get_the_figures_of_their_tables_and_the_tests_between_them(client, tmp_path):
    ours = read_benchmark(BENCHMARK_ROOT / "multiclass", MULTICLASS).models["dermadeit"][8]
    ours = ours.take(range(60))
    rolled = {name: np.roll(getattr(ours, name), 7, axis=0) for name in ("logits", "probabilities")}
    theirs = replace(ours, model="other", **rolled)
    files = [handle_file(write_table(tmp_path / f"{part.model}.csv", part)) for part in (theirs, ours)]
    answer = client.predict(files=files, task="multiclass", api_name="/compare_predictions")
    titles = ["DermaDeiT (tiny)", "other"]
    assert list(answer["models"]) == titles
    sets = [replace(part, model=title) for part, title in zip((ours, theirs), titles, strict=True)]
    first, second = (measure(part) for part in sets)
    assert answer["models"]["other"]["accuracy"] == pytest.approx(second.figures["accuracy"])
    [expected] = compare_with(first, [second])
    [found] = answer["comparisons"]
    assert found["mcnemar"]["p_value_holm"] == pytest.approx(expected.mcnemar_holm)
    assert "Not a medical device" in answer["disclaimer"]


def test_programs_compare_their_own_model_with_a_shipped_one(client, tmp_path):
    ours = read_benchmark(BENCHMARK_ROOT / "multiclass", MULTICLASS).models["dermadeit"][8].take(range(60))
    table = tmp_path / "mine.csv"
    rows = [
        ",".join([image_id, *map(repr, shares)])
        for image_id, shares in zip(ours.image_ids, ours.probabilities.tolist(), strict=True)
    ]
    table.write_text("\n".join(["image_id,p_mel,p_bcc,p_scc", *rows]) + "\n")
    answer = client.predict(
        files=[handle_file(table)],
        task="multiclass",
        models=["dermadeit"],
        api_name="/compare_predictions",
    )
    assert list(answer["models"]) == ["DermaDeiT (tiny)", "mine"]
    assert answer["images"] == 60
    assert answer["comparisons"][0]["differences"]["accuracy"]["difference"] == 0
    assert answer["notes"]


def test_mistakes_of_programs_are_sentences(client, file_of):
    def refused(files, task="binary"):
        with pytest.raises(AppError) as caught:
            client.predict(files=files, task=task, api_name="/compare_predictions")
        return str(caught.value)

    table = file_of(b"a,b\n1,2\n", "bad.csv")
    assert "“bad.csv” has no column" in refused([handle_file(table)])
    assert "0 tables were given" in refused([])
    assert "no task" in refused([handle_file(table)], task="regression")


@pytest.mark.browser
def test_images_are_compared_from_start_to_downloads(open_tab, class_zip, zoo):
    page = open_tab("comparison")
    page.get_by_role("tab", name="Labelled images").click()
    page.set_input_files("#compare-files input[type=file]", class_zip)
    page.wait_for_selector("#compare-files :text('classes')")
    page.locator("#compare-views").locator("input[value='1']").check()
    page.click("#compare-start")
    page.wait_for_selector(DONE)
    assert "9 of 9 images" in page.inner_text("#compare-batch-progress")
    parts = page.locator("#panel-comparison [data-part]").evaluate_all(
        "parts => parts.map(part => part.dataset.part)"
    )
    assert parts == ["images", "figures", "differences", "kappas", "plot", "disagreements", "failures"]
    assert "<i>.jpg" in page.inner_text("#compare-failures")
    pictures = page.locator("#compare-disagreements img")
    with page.expect_download() as download:
        page.click("#compare-list")
    count = len(read_csv(download.value.path()).rows)
    assert pictures.count() == count
    opener = page.locator("#compare-disagreements [data-pick='open 0']")
    opener.click()
    dialog = page.locator("dialog.dd-viewer")
    expect(dialog).to_be_visible()
    expect(dialog).to_contain_text(f"1 of {count}")
    page.wait_for_function("() => document.querySelector('dialog.dd-viewer img').naturalWidth > 200")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(opener).to_be_focused()
    # Photos that are too large are refused in the other part too, with a sentence that stays.
    page.get_by_role("tab", name="One photo").click()
    page.evaluate(
        """() => {
          const files = new DataTransfer();
          files.items.add(new File([new Uint8Array(101e6)], 'huge.jpg', {type: 'image/jpeg'}));
          const input = document.querySelector('#compare-photo input[type=file]');
          input.files = files.files;
          input.dispatchEvent(new Event('change', {bubbles: true}));
        }"""
    )
    page.wait_for_selector("#compare-photo-note .dd-failure:has-text('was not sent')")
    assert page.locator("#photo-note .dd-failure").count() == 0


@pytest.mark.browser
def test_stopping_keeps_what_is_read_and_compares_it(open_tab, class_zip, predictors):
    page = open_tab("comparison")
    page.get_by_role("tab", name="Labelled images").click()
    page.set_input_files("#compare-files input[type=file]", class_zip)
    page.wait_for_selector("#compare-files :text('classes')")
    with predictors["binary"].lock:
        page.click("#compare-start")
        page.wait_for_selector("#compare-batch-status :text('Reading the images')")
        page.click("#compare-batch-stop")
        page.wait_for_selector("#compare-batch-status :text('Finishing')")
    page.wait_for_selector("#compare-batch-status :text('Stopped early. Done: 2 models on 4 images')")
    assert "5 images not read" in page.inner_text("#compare-results")
