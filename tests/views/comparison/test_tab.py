"""The comparison of models: below the browser, over HTTP, and as a visitor meets it."""

import json
from dataclasses import replace
from html import unescape
from types import SimpleNamespace

import pytest
from calibrated_checkpoint import calibrated_predictor
from gradio_client import Client, handle_file
from playwright.sync_api import expect
from raw_calls import SERVER_FILE, call_raw, file_record
from visitor import expect_values

from dermadeit.evaluation.comparison import gather_models
from dermadeit.imaging.decode import decode_image
from dermadeit.inference.records import ABSTAIN
from dermadeit.inference.side_by_side import agreement
from dermadeit.inference.zoo import ModelZoo
from dermadeit.metrics.classification import HEADLINE_FIGURES
from dermadeit.models.specs import COMPARED_MODELS
from dermadeit.publishing.benchmark import BENCHMARK_ROOT, ENSEMBLE_TITLE, filed_tasks, read_benchmark
from dermadeit.tasks import BINARY, MULTICLASS
from dermadeit.trust.calibration import OPERATING_POINTS
from dermadeit.views.batch.model_comparison import ModelComparison, compare_in_steps, differences_html
from dermadeit.views.comparison.photo_cards import OWN_ANSWER, agreement_html, cards_html
from dermadeit.views.comparison.photo_run import compare_photo
from dermadeit.views.comparison.published import ORIGINAL_FILE, benchmark_html, speed_html
from dermadeit.views.comparison.teacher import TEACHER, teacher_card_html

DONE = "#compare-status :text('Done.')"
HERE = ("dermadeit", "mobilenetv2")


@pytest.fixture(scope="module")
def photo(lesion_files):
    return decode_image(lesion_files[1])


@pytest.fixture(scope="module")
def client(app_url, tmp_path_factory):
    return Client(
        app_url, verbose=False, analytics_enabled=False, download_files=tmp_path_factory.mktemp("downloads")
    )


def drawn(zoo, result, point="balanced", shown_class=OWN_ANSWER):
    return cards_html(
        zoo.entries(result.task.key),
        result.outcomes,
        result.task,
        result.preview,
        shown_class=shown_class,
        point=point,
        running=False,
    )


@pytest.mark.slow
def test_the_models_come_one_by_one_and_those_without_weights_say_what_makes_them(zoo, photo):
    steps = list(compare_photo(zoo, MULTICLASS, photo))
    assert [tuple(step.outcomes) for step in steps] == [(), HERE[:1], HERE]
    page = drawn(zoo, steps[-1])
    assert page.count('data-state="read"') == 2
    # Three have no weights here; of the teacher there are filed answers.
    assert page.count('data-state="missing"') == 3
    assert page.count('data-state="filed"') == 1
    assert "python train/distill.py --recipe plain --task multiclass<" in page
    assert page.count("data:image/webp;base64,") == 2
    records = steps[-1].records(zoo)
    assert [record["model"] for record in records] == list(COMPARED_MODELS)
    assert [record["error"] and record["error"]["code"] for record in records] == [
        None, "no_checkpoint", None, "no_checkpoint", "no_checkpoint",
    ]  # fmt: skip


def test_a_model_that_fails_does_not_take_the_others_with_it(zoo, photo, caplog):
    secret = "/home/somebody"

    def predictor(task, model):
        if model == "dermadeit":
            raise OSError(secret)
        return zoo.predictor(task, model)

    broken = SimpleNamespace(entries=zoo.entries, predictor=predictor)
    *_, result = compare_photo(broken, BINARY, photo)
    assert [reading.title for reading in result.readings] == ["MobileNetV2"]
    page = drawn(zoo, result)
    assert "An internal error occurred" in page
    assert secret not in page + caplog.text


@pytest.mark.slow
def test_a_calibrated_model_shows_its_decision_at_every_operating_point(
    zoo, checkpoint_root, synthetic_data, photo
):
    predictor = calibrated_predictor(checkpoint_root, synthetic_data)
    calibrated = ModelZoo(checkpoint_root, {("binary", "dermadeit"): predictor})
    *_, result = compare_photo(calibrated, BINARY, photo)
    reading = result.outcomes["dermadeit"]
    for point in OPERATING_POINTS:
        [expected] = predictor.predict([photo], operating_point=point)
        assert reading.decisions[point] == expected.operating_point
    page = drawn(calibrated, result, "sensitivity_95")
    assert page.count("<dt>Decision, 95\u00a0% sensitivity</dt>") == 1
    assert page.count("Not calibrated:") == 1
    assert page.count("Probability") == page.count("Model score") == 1
    assert not result.agreement.pairs[0].comparable


@pytest.mark.slow
def test_published_accuracy_stands_against_the_time_just_measured(zoo, photo):
    *_, result = compare_photo(zoo, BINARY, photo)
    drawn = speed_html(BINARY, result.readings)
    metrics = json.loads((BENCHMARK_ROOT / "binary" / "metrics.json").read_text(encoding="utf-8"))
    for reading in result.readings:
        accuracy = metrics["models"][reading.prediction.model]["views"]["8"]["accuracy"]
        assert f"{accuracy * 100:.1f}" in drawn
    assert speed_html(BINARY, ()) == ""


@pytest.mark.slow
def test_one_model_alone_agrees_with_nobody(zoo, photo):
    *_, result = compare_photo(zoo, BINARY, photo)
    assert "Models that agree can all be wrong" in agreement_html(result.agreement)
    alone = agreement_html(agreement(BINARY, result.readings[:1]), only_one=True)
    assert "Only one model" in alone
    assert "agree can" not in alone


@pytest.mark.slow
def test_a_withheld_answer_has_to_be_opened_and_has_no_heatmap_unless_a_class_is_chosen(zoo, photo):
    *_, result = compare_photo(zoo, BINARY, photo)
    reading = result.outcomes["dermadeit"]
    withheld = replace(
        reading.prediction,
        verdict=ABSTAIN,
        abstain_reasons=("It is <b>blurred</b>.",),
        abstain_codes=("blur",),
    )
    result = replace(result, outcomes={"dermadeit": replace(reading, prediction=withheld)})
    page = drawn(zoo, result)
    assert "It is &lt;b&gt;blurred&lt;/b&gt;." in page
    assert page.index("<details>") < page.index("Model score") < page.index("</details>")
    assert "data:image" not in page
    assert "data:image" in drawn(zoo, result, shown_class="others")


def shown(figures, name):
    if figures[name] is None:
        return "–"
    bounds = figures["intervals"].get(name)
    interval = f' <span class="dd-interval">[{bounds[0]:.3f}, {bounds[1]:.3f}]</span>' if bounds else ""
    return f"{figures[name]:.3f}{interval}"


@pytest.mark.parametrize("task", filed_tasks(), ids=lambda task: task.key)
def test_the_published_figures_are_those_of_the_files(task):
    page = benchmark_html(task)
    metrics = json.loads((BENCHMARK_ROOT / task.key / "metrics.json").read_text(encoding="utf-8"))
    for by_views in (model["views"] for model in metrics["models"].values()):
        for figures in by_views.values():
            for part in (figures, *figures.get("sources", {}).values()):
                for name in HEADLINE_FIGURES:
                    assert f"<td>{shown(part, name)}</td>" in page
    together = "".join(f"<td>{shown(metrics['ensemble'], name)}</td>" for name in HEADLINE_FIGURES)
    assert f'<th scope="row">{ENSEMBLE_TITLE}</th><td></td>{together}' in page
    original = json.loads((BENCHMARK_ROOT / ORIGINAL_FILE).read_text(encoding="utf-8"))
    reported = original["tasks"].get(task.key, ())
    for row in reported:
        assert f'<th scope="row">{row["model"]}</th><td>{row["accuracy"]:.4f}</td>' in page
        assert page.index("Not comparable") < page.index("As reported")
    for reason in original["why_not_comparable"]:
        assert (reason in unescape(page)) == bool(reported)


@pytest.mark.slow
def test_compare_answers_programs(client, zoo, lesion_files):
    records = client.predict(handle_file(lesion_files[1]), "binary", api_name="/compare")
    assert [record["model"] for record in records] == list(COMPARED_MODELS)
    for record in records:
        if record["model"] in HERE:
            [expected] = zoo.predictor("binary", record["model"]).predict([lesion_files[1]])
            assert record["probabilities"] == pytest.approx(dict(expected.probabilities), abs=1e-6)
            assert record["latency"]["milliseconds"]["1"] > 0
        else:
            assert record["error"]["code"] == "no_checkpoint"


def test_compare_refuses_what_is_no_photo_and_reads_nothing_else(client, app_url, file_of):
    [record] = client.predict(handle_file(file_of(b"%PDF-1.7 not a photo")), "binary", api_name="/compare")
    assert record["error"]["code"] == "not_an_image"
    event, answer = call_raw(app_url, file_record(SERVER_FILE), "compare")
    assert "root:" not in json.dumps(answer)
    assert event == "error" or answer[0][0]["error"]["code"] == "not_an_upload"


def expect_states(page, *states):
    """Waits until the cards of the models are in these states, in their order."""
    expect_values(page.locator("#compare-cards .dd-model"), "data-state", states)


@pytest.mark.browser
def test_an_example_is_read_by_every_model_then_by_those_of_the_other_task(open_tab):
    page = open_tab("comparison")
    expect_states(page, "waiting", "missing", "waiting", "missing", "missing", "filed")
    page.locator("#compare-photo-examples button").first.click()
    page.wait_for_selector(DONE)
    expect_states(page, "read", "missing", "read", "missing", "missing", "filed")
    consensus = page.inner_text("#compare-agreement .dd-consensus")
    expect(page.locator("#compare-status")).to_contain_text(consensus)
    page.wait_for_function(
        "() => [...document.querySelectorAll('#compare-cards img')]"
        ".map(picture => picture.complete && picture.naturalWidth > 0).join() === 'true,true'"
    )
    expect(page.locator("#panel-comparison")).to_contain_text("One colour scale")
    page.locator("#compare-class").get_by_label(BINARY.display_names["others"], exact=True).check()
    page.wait_for_function(
        "() => [...document.querySelectorAll('#compare-cards img')].every(i => /class not a nevus,/i.test(i.alt))"
    )
    with page.expect_download() as download:
        page.locator("#compare-download").click()
    content = json.loads(download.value.path().read_text(encoding="utf-8"))
    assert len(content["models"]) == 5
    assert "Not a medical device." in content["disclaimer"]
    page.locator("#compare-task").get_by_label("Melanoma / BCC / SCC").check()
    page.wait_for_selector("#compare-cards .dd-model-label :text('If malignant')")
    page.wait_for_selector(DONE)
    expect(page.locator("#compare-cards .dd-model[data-state=read]")).to_have_count(2)
    page.locator("#compare-photo").get_by_label("Remove photo").click()
    page.wait_for_selector("#compare-status :text('Ready.')")
    expect(page.locator("#compare-stop")).to_be_disabled()
    expect_states(page, "waiting", "missing", "waiting", "missing", "missing", "filed")


@pytest.mark.browser
def test_the_published_table_follows_the_task(open_tab):
    page = open_tab("comparison")
    page.locator("#compare-task").get_by_label("Melanoma / BCC / SCC").check()
    page.get_by_role("tab", name="Published figures").click()
    page.wait_for_selector("#compare-published [data-task=multiclass]")
    metrics = json.loads((BENCHMARK_ROOT / "multiclass" / "metrics.json").read_text(encoding="utf-8"))
    figures = metrics["models"]["dermadeit"]["views"]["8"]
    accuracy = f"{figures['accuracy']:.3f}"
    expect(page.locator("#compare-published .dd-benchmark").first).to_contain_text(accuracy)
    # Photos that are too large are refused here too, with a sentence that stays.
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
    expect(page.locator("#photo-note .dd-failure")).to_have_count(0)


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


def test_a_difference_says_of_which_class_its_test_is():
    whole = read_benchmark(BENCHMARK_ROOT / "multiclass", MULTICLASS).models["dermadeit"][8]
    compared = gather_models(
        [("a", [whole.take(range(60))]), ("b", [replace(whole.take(range(50)), model="<b>x")])], MULTICLASS
    )
    *_, (_, found) = compare_in_steps(ModelComparison(MULTICLASS, compared))
    page = differences_html(found)
    assert '<th scope="col">DeLong p, melanoma or not</th>' in page
    assert "<b>x" not in page
