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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import yaml

from dermadeit.benchmark_files import BENCHMARK_ROOT
from dermadeit.comparison import Difference
from dermadeit.errors import ConfigurationError
from dermadeit.files import write_atomically, write_json
from dermadeit.metrics import CONFIDENCE, FIGURES, HEADLINE_FIGURES, RESAMPLES, percentile_intervals
from dermadeit.predictions import Measurement, measure, on_shared_images, read_predictions
from dermadeit.result_tables import around_marks, difference_text, figure_text, markdown_table, seeds_column
from dermadeit.tasks import TASKS
from train.programme import DONE_FILE, PROGRAMME_FILE, names_of_repetitions
from train.programs import explaining_mistakes

logger = logging.getLogger("train.programme_report")

SHOWN = ("accuracy", "cohen_kappa", "f1_macro", "roc_auc")
README = Path(__file__).resolve().parent.parent / "README.md"

_METHOD = f"{100 * CONFIDENCE:g} %, percentile bootstrap of lesions and seeds, {RESAMPLES} resamples"


@dataclass(frozen=True)
class Repeated:
    """The figures of one training over its seeds.

    Attributes:
        name: Its key in the programme.
        measurements: One for each seed, of the same images in the same order.
    """

    name: str
    measurements: Sequence[Measurement]

    def mean(self, figure: str) -> float | None:
        """The mean of a figure over the seeds, None where it is undefined for one of them."""
        values = [measurement.figures[figure] for measurement in self.measurements]
        return None if None in values else float(np.mean(values))

    def resampled(self, figure: str) -> np.ndarray:
        """The mean of a figure on every resample of the lesions and of the seeds: float [resamples].

        Two trainings with the same seeds on the same images are resampled alike, so the differences of their
        figures are a paired bootstrap. A few seeds say little of how much another one would change: three, drawn
        with replacement, vary by a third less than what they were drawn from.
        """
        by_seed = np.stack([measurement.resampled[figure] for measurement in self.measurements])
        seeds, resamples = by_seed.shape
        drawn = np.random.default_rng(0).integers(0, seeds, (seeds, resamples))
        return np.take_along_axis(by_seed, drawn, axis=0).mean(axis=0)

    def to_dict(self) -> dict[str, Any]:
        """Its entry in the report."""
        [first, *others] = self.measurements
        entry: dict[str, Any] = {"name": self.name, "views": first.predictions.views}
        if not others:
            return entry | {"figures": first.to_dict()}
        intervals = percentile_intervals({figure: self.resampled(figure) for figure in FIGURES})
        return entry | {
            "figures": {
                "n": first.figures["n"],
                **{figure: self.mean(figure) for figure in FIGURES},
                "intervals": {"method": _METHOD, **intervals},
            },
            "by_seed": [
                {figure: of_seed.figures[figure] for figure in FIGURES} for of_seed in self.measurements
            ],
        }

    def minus(self, other: Repeated) -> dict[str, dict[str, Any]]:
        """Each figure to its `difference` to that of another training, and the `interval` of it."""
        intervals = percentile_intervals(
            {figure: self.resampled(figure) - other.resampled(figure) for figure in FIGURES}
        )
        means = {figure: (self.mean(figure), other.mean(figure)) for figure in FIGURES}
        return {
            figure: {
                "difference": None if None in (ours, theirs) else ours - theirs,
                "interval": intervals.get(figure),
            }
            for figure, (ours, theirs) in means.items()
        }


def measure_stage(stage: str, content: Mapping[str, Any], task: str, runs: Path) -> dict[str, Any]:
    """The figures of a stage's trainings that are done, in order.

    Args:
        stage: Name of the stage.
        content: Its entry in programme.yaml. The rungs of a ladder are compared with the rung above, other
            trainings with the first.
        task: Key of the task.
        runs: The programme's output folder.

    Returns:
        JSON-ready: `stage`, `task`, `split`, and `trainings` with `name`, `views`, `figures`, `compared_with` and
        `differences`; with more than one seed the figures are means, and `by_seed` holds those of each. All of
        them are measured on the images that every training could read.

    Raises:
        ManifestError: The trainings disagree about the truth of an image.
    """
    names = [*content.get("trainings", {}), *content.get("ladder", {})]
    done: list[tuple[str, Path]] = []
    for name in names:
        for repetition in names_of_repetitions(name, content):
            folder = runs / task / stage / repetition
            if (folder / DONE_FILE).is_file():
                done.append((name, folder / DONE_FILE.parent / "predictions.csv"))
            else:
                logger.info("%s/%s/%s has not been run", task, stage, repetition)
    shared = on_shared_images([read_predictions(path)[0] for _, path in done]) if done else ()
    measurements: dict[str, list[Measurement]] = {}
    for (name, _), predictions in zip(done, shared, strict=True):
        measurements.setdefault(name, []).append(measure(predictions))
    repeated = [Repeated(name, measured) for name, measured in measurements.items()]
    trainings = [training.to_dict() for training in repeated]
    for index in range(1, len(repeated)):
        other = repeated[index - 1 if "ladder" in content else 0]
        trainings[index]["compared_with"] = other.name
        trainings[index]["differences"] = repeated[index].minus(other)
    return {"stage": stage, "task": task, "split": "validation", "trainings": trainings}


def render_stage(report: Mapping[str, Any]) -> str:
    """A stage's figures as a Markdown table."""
    seeds = seeds_column(report["trainings"])
    rows = [
        [
            training["name"],
            *(figure_text(training["figures"], name) for name in SHOWN),
            *seeds[index : index + 1],
            _accuracy_difference(training),
        ]
        for index, training in enumerate(report["trainings"])
    ]
    images = report["trainings"][0]["figures"]["n"] if report["trainings"] else 0
    header = ["training", *(HEADLINE_FIGURES[name] for name in SHOWN)]
    header += ["accuracy by seed", "difference of accuracy"] if seeds else ["difference of accuracy"]
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
