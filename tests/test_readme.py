"""README and docs say what the files say, and what they name is there."""

import json
import re

import pytest
import yaml
from repository import ROOT

from dermadeit.evaluation.predictions import measure
from dermadeit.metrics.classification import FIGURES
from dermadeit.models.checkpoints import answered_tasks, find_checkpoint
from dermadeit.models.specs import MODEL_SPECS
from dermadeit.publishing.benchmark import filed_tasks, read_benchmark
from dermadeit.publishing.benchmark_table import (
    END,
    START,
    SUMMARY_END,
    SUMMARY_START,
    render_summary,
    render_tables,
)
from dermadeit.publishing.error_codes import error_codes_page
from dermadeit.tasks import Task

README = (ROOT / "README.md").read_text(encoding="utf-8")
BENCHMARK = ROOT / "assets" / "benchmark"


def test_the_tables_of_results_equal_the_files_they_come_from() -> None:
    results = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert results.split(START)[1].split(END)[0].strip() == render_tables(BENCHMARK).strip()
    assert README.split(SUMMARY_START)[1].split(SUMMARY_END)[0].strip() == render_summary(BENCHMARK).strip()


def test_the_page_of_error_codes_is_that_of_the_enum() -> None:
    assert (ROOT / "docs" / "errors.md").read_text(encoding="utf-8") == error_codes_page()


@pytest.mark.slow
@pytest.mark.parametrize("task", filed_tasks(), ids=lambda task: task.key)
def test_the_figures_are_those_of_the_filed_predictions(task: Task) -> None:
    metrics = json.loads((BENCHMARK / task.key / "metrics.json").read_text())
    filed = read_benchmark(BENCHMARK / task.key, task)
    assert metrics["models"].keys() == filed.models.keys()
    for model, by_views in filed.models.items():
        for views, predictions in by_views.items():
            written = metrics["models"][model]["views"][str(views)]
            figures = measure(predictions).figures
            assert {name: written[name] for name in FIGURES} == pytest.approx(
                {name: figures[name] for name in FIGURES}
            )
            low, high = written["intervals"]["accuracy"]
            assert low <= written["accuracy"] <= high


@pytest.mark.parametrize("task", filed_tasks(), ids=lambda task: task.key)
def test_the_figures_are_those_of_the_embedded_checkpoints(task: Task) -> None:
    hashes = json.loads((BENCHMARK / task.key / "metrics.json").read_text())["weights_sha256"]
    found = [model for model in MODEL_SPECS if task in answered_tasks(model)]
    assert found
    for model in found:
        config = json.loads((find_checkpoint(task.key, model) / "config.json").read_text())
        assert hashes[model] == config["dermadeit"]["weights_sha256"]


def test_the_space_is_configured_for_this_app() -> None:
    front = yaml.safe_load(README.split("---")[1])
    assert front["sdk"] == "gradio"
    assert (ROOT / front["app_file"]).is_file()
    assert front["python_version"] in ("3.11", "3.12", "3.13")
    [bounds] = re.findall(r"^gradio(.*)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    low, high = re.fullmatch(r">=([\d.]+),<(\d+)", bounds).groups()
    version = tuple(map(int, front["sdk_version"].split(".")))
    assert tuple(map(int, low.split("."))) <= version < (int(high),)
    assert len(front["short_description"]) <= 60
