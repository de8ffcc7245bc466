"""What the programme's ablations bring, on the validation split: figures with intervals, and paired differences.

    python train/programme_report.py --runs runs --stage ablations --stage three-way

Reads the validation predictions of the trainings that are done, and writes `assets/benchmark/<task>/<stage>.json`
and README's tables of the stages.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import yaml

from dermadeit.benchmark_files import BENCHMARK_ROOT
from dermadeit.comparison import Difference, compare
from dermadeit.errors import ConfigurationError
from dermadeit.files import write_atomically, write_json
from dermadeit.metrics import HEADLINE_FIGURES
from dermadeit.predictions import Measurement, measure, read_predictions
from dermadeit.result_tables import around_marks, difference_text, figure_text, markdown_table
from dermadeit.tasks import TASKS
from train.programme import DONE_FILE, PROGRAMME_FILE
from train.programs import explaining_mistakes

logger = logging.getLogger("train.programme_report")

FIGURES = ("accuracy", "cohen_kappa", "f1_macro", "roc_auc")
README = Path(__file__).resolve().parent.parent / "README.md"


def measure_stage(stage: str, content: Mapping[str, Any], task: str, runs: Path) -> dict[str, Any]:
    """The figures of a stage's trainings that are done, in order.

    Args:
        stage: Name of the stage.
        content: Its entry in programme.yaml. The rungs of a ladder are compared with the rung above, other
            trainings with the first.
        task: Key of the task.
        runs: The programme's output folder.

    Returns:
        JSON-ready: `stage`, `task`, `split`, and `trainings` with `name`, `figures`, `compared_with` and
        `differences`.
    """
    names = [*content.get("trainings", {}), *content.get("ladder", {})]
    trainings: list[dict[str, Any]] = []
    measured: list[tuple[str, Measurement]] = []
    for name in names:
        folder = runs / task / stage / name
        if not (folder / DONE_FILE).is_file():
            logger.info("%s/%s/%s has not been run", task, stage, name)
            continue
        [predictions] = read_predictions(folder / DONE_FILE.parent / "predictions.csv")
        measurement = measure(predictions)
        entry = {"name": name, "views": predictions.views, "figures": measurement.to_dict()}
        if measured:
            other, reference = measured[-1 if "ladder" in content else 0]
            comparison = compare(measurement, reference)
            entry["compared_with"] = other
            entry["differences"] = {
                figure: {"difference": value.difference, "interval": value.interval}
                for figure, value in comparison.differences.items()
            }
        measured.append((name, measurement))
        trainings.append(entry)
    return {"stage": stage, "task": task, "split": "validation", "trainings": trainings}


def render_stage(report: Mapping[str, Any]) -> str:
    """A stage's figures as a Markdown table."""
    rows = [
        [
            training["name"],
            *(figure_text(training["figures"], name) for name in FIGURES),
            _accuracy_difference(training),
        ]
        for training in report["trainings"]
    ]
    images = report["trainings"][0]["figures"]["n"] if report["trainings"] else 0
    header = ["training", *(HEADLINE_FIGURES[name] for name in FIGURES), "difference of accuracy"]
    caption = f"`{report['task']}`, validation, {images:,} images, eight views:"
    return f"{caption}\n\n{markdown_table(header, rows)}"


def _accuracy_difference(training: Mapping[str, Any]) -> str:
    if "differences" not in training:
        return "–"
    return difference_text(Difference(**training["differences"]["accuracy"]))


def write_tables(readme: Path, stage: str, reports: Sequence[Mapping[str, Any]]) -> None:
    """Replaces the tables of a stage in a Markdown file, between `<!-- STAGE -->` and `<!-- /STAGE -->`.

    Raises:
        ConfigurationError: The file has no such place.
    """
    before, after = around_marks(readme, stage)
    tables = "\n\n".join(render_stage(report) for report in reports)
    whole = f"{before}\n\n{tables}\n\n{after}"
    write_atomically(readme, lambda partial: partial.write_text(whole, encoding="utf-8"))


@explaining_mistakes
def main(arguments: list[str] | None = None) -> int:
    """Reports as asked; returns the exit code: 0, or 2 for a mistake that the message explains."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description="Tables of the programme's ablations.")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the programme's output folder")
    parser.add_argument("--stage", action="append", required=True, help="may be repeated")
    parser.add_argument("--readme", type=Path, default=README)
    parser.add_argument("--root", type=Path, default=BENCHMARK_ROOT, help="where the figures are written")
    options = parser.parse_args(arguments)
    stages = yaml.safe_load(PROGRAMME_FILE.read_text(encoding="utf-8"))["stages"]
    for stage in options.stage:
        if "tasks" not in stages.get(stage, {}):
            raise ConfigurationError(f"There is no stage “{stage}” with tasks in the programme.")
        reports = [
            report
            for task in stages[stage]["tasks"]
            if task in TASKS
            if (report := _filed(stage, stages[stage], task, options.runs, options.root))
        ]
        write_tables(options.readme, stage, reports)
    return 0


def _filed(
    stage: str, content: Mapping[str, Any], task: str, runs: Path, root: Path
) -> dict[str, Any] | None:
    """Measures and files a stage; where nothing of it was run here, what was filed before, or None."""
    path = root / task / f"{stage}.json"
    report = measure_stage(stage, content, task, runs)
    if report["trainings"]:
        write_json(path, report)
        return report
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
