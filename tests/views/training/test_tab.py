"""The tab on training and model card: what it shows of the files that there are, and of those that are not."""

import json
from html import unescape

import gradio as gr
import pytest
from playwright.sync_api import expect

from dermadeit.models.checkpoints import CHECKPOINT_ROOT
from dermadeit.models.specs import OURS
from dermadeit.publishing.benchmark import BENCHMARK_ROOT
from dermadeit.publishing.model_card_text import LICENCES
from dermadeit.tasks import get_task
from dermadeit.views.training.record import models_with_record, read_records
from dermadeit.views.training.sections import model_html, stages_html
from dermadeit.views.training.tab import TrainingAndCardTab, read_card


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def figures(accuracy):
    names = ("accuracy", "cohen_kappa", "f1_macro", "roc_auc")
    return {"n": 1611, **dict.fromkeys(names, accuracy), "intervals": {"accuracy": [0.5, 0.9]}}


def stage_report(interval):
    return {
        "stage": "ablations",
        "task": "binary",
        "split": "validation",
        "trainings": [
            {"name": "original", "views": 8, "figures": figures(0.7)},
            {
                "name": "<i>right</i>",
                "views": 8,
                "figures": figures(0.75),
                "compared_with": "original",
                "differences": {"accuracy": {"difference": 0.05, "interval": interval}},
            },
        ],
    }


@pytest.mark.slow
@pytest.mark.parametrize("model", models_with_record())
def test_every_shipped_checkpoint_is_shown_with_curves_data_and_confusion(model):
    page = model_html(model, CHECKPOINT_ROOT, BENCHMARK_ROOT)
    records = read_records(model)
    assert records
    for record in records:
        assert f"<dd>{record.weights_sha256[:12]}</dd>" in page
        assert f"epoch {record.training['best_epoch']}" in page
        for counts in record.training["data"].values():
            assert f"<td>{counts['images']:,}</td>" in page
        assert record.training["changed_settings"]
        for name in record.training["changed_settings"]:
            assert f"<code>{name}</code>" in page
    assert page.count('<svg class="dd-plot"') >= 3
    assert "other weights" not in page


def test_a_model_without_a_checkpoint_comes_with_the_command_that_trains_it(tmp_path):
    page = model_html("deit", tmp_path, tmp_path)
    assert "python train/distill.py --recipe plain --task diagnosis" in page


@pytest.mark.slow
def test_a_record_with_nothing_in_it_says_so(tmp_path):
    write(tmp_path / "binary" / "deit" / "config.json", {"architecture": "deit"})
    page = model_html("deit", tmp_path, BENCHMARK_ROOT)
    assert "The settings were not recorded." in page
    assert "no record of its training" in page


def test_what_a_record_says_is_shown_as_text(tmp_path):
    folder = tmp_path / "binary" / "deit"
    write(folder / "config.json", {"architecture": "<script>alert(1)</script>"})
    evil = {"configuration": {"<b>name": "<b>value"}, "data": {"<b>split": {"<b>class": 1}}}
    write(folder / "training.json", evil)
    page = model_html("deit", tmp_path, BENCHMARK_ROOT)
    assert "<script" not in page
    assert "<b>" not in page.lower()


def test_the_networks_of_a_teacher_are_counted(tmp_path):
    network = "vit-augreg@sha256:" + 64 * "0"
    teacher = f"{network}+{network}+deit@sha256:{64 * '1'}"
    write(tmp_path / "binary/deit/config.json", {"architecture": "deit"})
    write(tmp_path / "binary/deit/training.json", {"configuration": {"teacher": teacher}})
    assert "<dd>2 × vit-augreg, deit</dd>" in model_html("deit", tmp_path, BENCHMARK_ROOT)


def test_figures_of_other_weights_are_called_so(tmp_path):
    config = dict(read_records("dermadeit")[0].config)
    config["dermadeit"] = {**config["dermadeit"], "weights_sha256": "0" * 64}
    write(tmp_path / "dermadeit" / "config.json", config)
    assert "These figures belong to other weights." in model_html("dermadeit", tmp_path, BENCHMARK_ROOT)


@pytest.mark.parametrize(("interval", "bold"), [([0.01, 0.09], True), ([-0.01, 0.11], False), (None, False)])
def test_only_a_difference_whose_interval_excludes_zero_is_bold(tmp_path, interval, bold):
    write(tmp_path / "binary" / "ablations.json", stage_report(interval))
    page = stages_html(tmp_path)
    assert "0.700 [0.500, 0.900]" in page
    assert "+0.050" in page
    assert ("<strong>+0.050" in page) is bold
    assert "&lt;i&gt;right&lt;/i&gt;" in page
    assert "python -m train.programme_report --stage three-way" in page


def test_repeated_trainings_show_what_each_seed_gave(tmp_path):
    report = stage_report([0.01, 0.09])
    write(tmp_path / "binary" / "ablations.json", report)
    assert "Accuracy by seed" not in stages_html(tmp_path)
    report["trainings"][1]["by_seed"] = {"0": {"accuracy": 0.74}, "1": {"accuracy": 0.76}}
    write(tmp_path / "binary" / "ablations.json", report)
    page = stages_html(tmp_path)
    assert "Accuracy by seed" in page
    assert "0.740, 0.760" in page


def test_stages_that_were_not_run_come_with_their_commands(tmp_path):
    page = stages_html(tmp_path)
    for stage in ("ablations", "three-way"):
        assert f"python -m train.programme --stage teachers --stage {stage}" in page
    assert "--only '*/resolution/*'" in unescape(page)
    assert "--stage at-224-pixels --stage diagnoses-at-160-pixels" in page
    assert "<table" not in page


def test_the_card_fits_below_the_headings_of_the_tab(tmp_path):
    write(
        tmp_path / "card.md", "# Card\n\n[Data](#data)\n\n## Data\n\n### Nevus\n\n```sh\n# a comment\n```\n"
    )
    assert read_card(tmp_path / "card.md") == (
        "\n[Data](#h-data)\n\n### Data\n\n#### Nevus\n\n```sh\n# a comment\n```\n"
    )
    assert "python -m dermadeit model-card" in read_card(tmp_path / "missing.md")


def test_the_tab_is_filled_once_and_not_again_with_each_visit():
    tab = TrainingAndCardTab()
    with gr.Blocks(analytics_enabled=False), gr.Tab("Training") as panel:
        tab.render(panel)
    updates = tab._open(False, None)
    assert updates[tab._shown] is True
    assert tab._open(updates[tab._shown], None) == gr.skip()


@pytest.mark.browser
def test_the_tab_fills_when_it_is_opened(open_tab):
    page = open_tab("training")
    page.wait_for_selector("#trainings svg")
    titles = [get_task(record.task).title for record in read_records(OURS)]
    expect(page.locator("#trainings .dd-training h3")).to_have_text(titles)
    expect(page.locator("#stages h3")).to_have_count(4)
    expect(page.locator("#panel-training")).to_contain_text(LICENCES.splitlines()[0])
    page.wait_for_selector("#training-status :text('The trainings of DermaDeiT')")
    for radio in page.locator("#training-model input").all()[1:]:
        before = page.inner_html("#trainings")
        radio.check()
        page.wait_for_function(
            "before => document.querySelector('#trainings').innerHTML !== before", arg=before
        )
