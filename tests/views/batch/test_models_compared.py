"""Models compared in a batch: of photos, of tables of predictions, and the same as an API."""

import json
from dataclasses import replace

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from playwright.sync_api import expect

from dermadeit.data.tabular import read_csv
from dermadeit.errors import UploadError
from dermadeit.evaluation.comparison import compare_with
from dermadeit.evaluation.predictions import PredictionSet, measure
from dermadeit.publishing.benchmark import BENCHMARK_ROOT, read_benchmark
from dermadeit.tasks import BINARY, MULTICLASS
from dermadeit.views.batch.exports import write_files
from dermadeit.views.batch.model_comparison import DIFFERING, differences_html
from dermadeit.views.batch.run import MAX_TABLES, Order, evaluate_batch, read_batch
from dermadeit.views.batch.session import Session
from dermadeit.views.page.job import FilesJob

MODELS = ["dermadeit", "mobilenetv2"]
DONE = "#batch-status :text('Done.')"


@pytest.fixture(scope="module")
def photos(encoded_photo):
    """Name in the ZIP to bytes: 4 nevi, 4 others, and one that is broken."""
    named = {f"nevus/n{seed}.jpg": encoded_photo(seed) for seed in range(4)}
    named |= {f"others/o{seed}.jpg": encoded_photo(seed) for seed in range(4, 8)}
    return named | {"others/<i>.jpg": b"\xff\xd8\xff not a photo"}


@pytest.fixture
def evaluated(zoo, cache):
    """Reads and measures a batch: `evaluated(records, "binary")` gives its session."""

    def evaluate(records, task="binary", models=MODELS, **about):
        session = Session(FilesJob.begin(records), is_shipped=about.pop("is_shipped", False), **about)
        order = Order(session.job.payload, task, models, 1, session.is_shipped)
        for _ in read_batch(zoo, order, session):
            pass
        list(evaluate_batch(session))
        session.job.finish()
        return session

    return evaluate


def write_table(path, predictions):
    """Writes a table as `evaluate` does, with the columns that a comparison needs."""
    lines = ["image_id,task,model,views,label_true,lesion_group,logit_mel,logit_bcc,logit_scc"]
    for index, image_id in enumerate(predictions.image_ids):
        label = MULTICLASS.classes[predictions.labels[index]]
        cells = [image_id, "multiclass", predictions.model, "8", label, predictions.lesion_groups[index]]
        lines.append(",".join([*cells, *map(repr, predictions.logits[index].tolist())]))
    path.write_text("\n".join(lines) + "\n")
    return path


def answered(model, answers, names=None):
    """A model's answers to multiclass images, all of which are melanomas."""
    logits = 3.0 * np.eye(3)[list(answers)]
    ids = names or tuple(f"image {number}" for number in range(len(answers)))
    unknown = ("",) * len(ids)
    labels = np.zeros(len(ids), dtype=int)
    return PredictionSet(MULTICLASS, model, 8, ids, labels, logits, logits / 3, ids, unknown, unknown)


@pytest.mark.slow
def test_the_models_of_a_batch_are_compared_and_the_images_on_which_they_differ_can_be_looked_at(
    evaluated, uploaded, class_zip, photos, predictors, zoo, tmp_path
):
    session = evaluated([uploaded(class_zip)])
    good = [name for name in photos if "<i>" not in name]
    answers = [
        [record.label for record in predictor.predict([photos[name] for name in good], 1)]
        for predictor in (predictors["binary"], zoo.predictor("binary", "mobilenetv2"))
    ]
    differing = [name for name, *labels in zip(good, *answers, strict=True) if len(set(labels)) > 1]
    assert differing
    assert sorted(image.image_id for image in session.comparison.differing) == differing
    assert f"{len(differing)} of 8 images" in differences_html(session.comparison)
    session.pick(DIFFERING)
    shown = session.gallery()
    assert shown.count('src="data:image/jpeg;base64,') == len(differing)
    assert shown.count("MobileNetV2") >= len(differing)
    assert f"1 of {len(differing)}" in session.opened("open 0")
    session.pick("mistakes")
    assert "wrong answers" in session.gallery()
    files = write_files(session.result, session.evaluations, [], tmp_path, session.comparison)
    assert files.everything.is_file()
    rows = read_csv(tmp_path / "disagreements.csv").rows
    assert sorted(row["file"] for row in rows) == differing
    assert all(len(row["sha256"]) == 64 for row in rows)
    assert json.loads((tmp_path / "comparison.json").read_text())["disagreements"] == len(differing)


@pytest.mark.slow
def test_without_classes_agreement_and_pictures_are_there_and_no_figures(
    evaluated, uploaded, encoded_photo, file_of
):
    session = evaluated([uploaded(file_of(encoded_photo(seed), f"{seed}.jpg")) for seed in range(6)])
    assert session.gallery().count('src="data:image/jpeg;base64,') == 6
    page = differences_html(session.comparison)
    assert "need the true classes" in page
    assert "McNemar" not in page
    assert "Cohen" in page
    session.pick(DIFFERING)
    assert "truth" not in session.gallery()


def test_tables_of_several_models_are_one_batch_even_where_both_hold_the_same_model(
    evaluated, uploaded, tmp_path
):
    first, second = answered("m", [0] * 30), answered("m", [1] * 3 + [0] * 27)
    tables = [write_table(tmp_path / f"{name}.csv", part) for name, part in (("a", first), ("b", second))]
    session = evaluated([uploaded(table) for table in tables], "multiclass")
    assert session.result.models == ("m, 1 a", "m, 2 b")
    assert [evaluation.metrics["accuracy"] for evaluation in session.evaluations] == [1, 0.9]
    assert len(session.comparison.differing) == 3
    [pair] = session.comparison.paired
    assert pair.comparison.mcnemar.only_first_right == 3
    with pytest.raises(UploadError, match=f"{MAX_TABLES + 1} tables"):
        evaluated([uploaded(tables[0]) for _ in range(MAX_TABLES + 1)], "multiclass")


def test_names_from_tables_are_text_and_links_go_to_the_archive_only_for_what_is_shipped(
    evaluated, uploaded, tmp_path, encoded_photo
):
    names = ("<i>1", "ISIC_0000002", "ISIC_0000003")
    tables = [
        write_table(tmp_path / f"{number}.csv", answered(model, [number] * 3, names))
        for number, model in enumerate(("<b>x", "y"))
    ]
    session = evaluated([uploaded(table) for table in tables], "multiclass")
    session.pick(DIFFERING)
    page = session.gallery() + differences_html(session.comparison)
    assert "<i>" not in page
    assert "<b>x" not in page
    assert "href" not in page
    session._result = replace(session.result, is_shipped=True)
    session.cases = tmp_path
    page = session.gallery()
    # Only what looks like an identifier of the archive is linked.
    assert page.count('rel="noopener noreferrer"') == 2
    assert 'href="https://api.isic-archive.com/images/ISIC_0000002/"' in page
    assert "<img" not in page
    (tmp_path / "ISIC_0000002.jpg").write_bytes(encoded_photo())
    assert session.gallery().count("<img") == 1


@pytest.fixture(scope="module")
def client(app_url, tmp_path_factory):
    return Client(
        app_url, verbose=False, analytics_enabled=False, download_files=tmp_path_factory.mktemp("compared")
    )


@pytest.mark.slow
def test_programs_get_the_figures_of_their_tables_and_the_tests_between_them(client, tmp_path):
    ours = read_benchmark(BENCHMARK_ROOT / "multiclass", MULTICLASS).models["original"][8]
    ours = replace(ours.take(range(60)), model="dermadeit")
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
    ours = read_benchmark(BENCHMARK_ROOT / "binary", BINARY).models["dermadeit"][8].take(range(60))
    table = tmp_path / "mine.csv"
    rows = [
        ",".join([image_id, *map(repr, shares)])
        for image_id, shares in zip(ours.image_ids, ours.probabilities.tolist(), strict=True)
    ]
    table.write_text("\n".join(["image_id,p_nevus,p_others", *rows]) + "\n")
    answer = client.predict(
        files=[handle_file(table)],
        task="binary",
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
def test_the_shipped_predictions_are_compared_on_the_page(open_tab, tmp_path):
    page = open_tab("batch")
    tables = [
        write_table(tmp_path / f"{model}.csv", answered(model, answers))
        for model, answers in (("dermadeit", [0] * 30), ("deit", [1] * 3 + [0] * 27))
    ]
    page.locator("#batch-task").get_by_label("Melanoma / BCC / SCC").check()
    page.set_input_files("#batch-files input[type=file]", tables)
    page.wait_for_function("() => document.querySelectorAll('#batch-files .file').length === 2")
    page.click("#batch-start")
    page.wait_for_selector(DONE)
    expect(page.locator("#batch-compared")).to_contain_text("3 of 30 images")
    page.locator("#batch-contents").get_by_role("link", name="Models compared").click()
    expect(page.locator("#batch-models-compared")).to_be_in_viewport()
    page.get_by_role("button", name="Show the images with different answers").click()
    expect(page.locator("#batch-gallery h3")).to_contain_text("3 images with different answers")
    expect(page.locator("#batch-strip")).to_be_in_viewport()
    page.click("#batch-shipped")
    page.wait_for_selector(DONE)
    metrics = json.loads((BENCHMARK_ROOT / "multiclass" / "metrics.json").read_text(encoding="utf-8"))
    accuracy = metrics["models"]["dermadeit"]["views"]["8"]["accuracy"]
    expect(page.locator("#batch-figures")).to_contain_text(f"{accuracy:.3f}")
