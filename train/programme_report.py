"""What the programme's ablations bring, on the validation split: figures with intervals, and paired differences.

    python -m train.programme_report --runs runs --stage ablations --stage three-way

Reads the validation predictions of the trainings that are done, and writes `assets/benchmark/<task>/<stage>.json`
and the tables of the stages in docs/results.md.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dermadeit.errors import ConfigurationError
from dermadeit.evaluation.comparison import Difference, align, paired_differences
from dermadeit.evaluation.predictions import Measurement, PredictionSet, measure, read_predictions
from dermadeit.files import read_json, require_folder, write_json
from dermadeit.metrics.classification import (
    FIGURES,
    INTERVAL_METHOD,
    SEEDED_INTERVAL_METHOD,
    mean_over_seeds,
    percentile_intervals,
)
from dermadeit.publishing.benchmark import BENCHMARK_ROOT
from dermadeit.reporting.markdown import (
    STAGE_DIFFERENCE,
    difference_text,
    markdown_table,
    stage_difference,
    stage_table,
    write_between_marks,
)
from dermadeit.tasks import TASKS
from train.command_line import explaining_mistakes
from train.distill import DONE_FILE
from train.programme import PROGRAMME_FILE, repetitions

logger = logging.getLogger("train.programme_report")

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results.md"


@dataclass(frozen=True, eq=False)
class Repeated:
    """The figures of one training over its seeds.

    Attributes:
        name: Its key in the programme.
        by_seed: Each seed to what was measured with it, of the same images in the same order; None for a training
            of a stage without seeds.
    """

    name: str
    by_seed: Mapping[int | None, Measurement]

    @property
    def first(self) -> Measurement:
        """What was measured with the first seed."""
        return next(iter(self.by_seed.values()))

    @property
    def figures(self) -> dict[str, float | None]:
        """Each figure's mean over the seeds, None where it is undefined for one of them."""
        values = {name: [measured.figures[name] for measured in self.by_seed.values()] for name in FIGURES}
        return {name: None if None in found else float(np.mean(found)) for name, found in values.items()}

    @property
    def resampled(self) -> Mapping[str, np.ndarray]:
        """Each figure's mean over the seeds, on every resample of lesions and seeds: float [resamples]."""
        return self._resampled

    @cached_property
    def _resampled(self) -> dict[str, np.ndarray]:
        by_seed = list(self.by_seed.values())
        return {
            name: mean_over_seeds(np.stack([measured.resampled[name] for measured in by_seed]))
            for name in FIGURES
        }

    def to_dict(self) -> dict[str, Any]:
        """Its entry in the report."""
        first = self.first
        entry: dict[str, Any] = {"name": self.name, "views": first.predictions.views}
        if None in self.by_seed:
            return entry | {"figures": first.to_dict()}
        described = {
            "method": SEEDED_INTERVAL_METHOD if len(self.by_seed) > 1 else INTERVAL_METHOD,
            "lesions": len(set(first.predictions.lesion_groups)),
            "seeds": len(self.by_seed),
        }
        return entry | {
            "figures": {
                "n": first.figures["n"],
                **self.figures,
                "intervals": described | percentile_intervals(self.resampled),
            },
            "by_seed": {
                str(seed): {figure: measured.figures[figure] for figure in FIGURES}
                for seed, measured in self.by_seed.items()
            },
        }

    def minus(self, other: Repeated) -> dict[str, Difference]:
        """Each figure to its difference to that of another training, with the seeds that both were run with."""
        seeds = self.by_seed.keys() & other.by_seed.keys()
        return paired_differences(self._with(seeds), other._with(seeds)) if seeds else {}

    def _with(self, seeds: Set[int | None]) -> Repeated:
        """The training with some of its seeds; itself, with what it has computed, where they are all."""
        if seeds == self.by_seed.keys():
            return self
        return Repeated(self.name, {seed: self.by_seed[seed] for seed in self.by_seed if seed in seeds})


def measure_stage(stage: str, content: Mapping[str, Any], task: str, runs: Path) -> dict[str, Any]:
    """The figures of a stage's trainings that are done, in order.

    Args:
        stage: Name of the stage.
        content: Its entry in programme.yaml. The trainings of a cumulative stage are compared with the one
            above, others with the first, or with those of the same names in the stage `compared_with`.
        task: Key of the task.
        runs: The programme's output folder.

    Returns:
        JSON-ready: `stage`, `task`, `split`, and `trainings` with `name`, `views`, `figures`, `compared_with` (a
        training of the stage, or the stage that has one of the same name) and `differences`; in a stage with seeds
        the figures are means over those that were run, and `by_seed` holds those of each.

    Raises:
        ResultFileError: The trainings were not validated on the same images with the same labels and lesions.
    """
    elsewhere = content.get("compared_with")
    repeated = _read_trainings(stage, content, task, runs)
    if elsewhere:
        reference = repeated[0].first.predictions if repeated else None
        found = {other.name: other for other in _read_trainings(elsewhere, content, task, runs, reference)}
        others = [found.get(training.name) for training in repeated]
    else:
        others = [None, *(repeated if content.get("cumulative") else repeated[:1] * len(repeated))][
            : len(repeated)
        ]
    trainings = [training.to_dict() for training in repeated]
    for entry, training, other in zip(trainings, repeated, others, strict=True):
        differences = training.minus(other) if other else {}
        if other and differences:
            entry["compared_with"] = elsewhere or other.name
            entry["differences"] = {name: asdict(value) for name, value in differences.items()}
    return {"stage": stage, "task": task, "split": "validation", "trainings": trainings}


def _read_trainings(
    stage: str, content: Mapping[str, Any], task: str, runs: Path, reference: PredictionSet | None = None
) -> list[Repeated]:
    """The trainings of these names in a stage that are done, their images in the order of the reference."""
    measured: dict[str, dict[int | None, Measurement]] = {}
    for name in content["trainings"]:
        for seed, repetition in repetitions(name, content).items():
            folder = runs / task / stage / repetition
            if not (folder / DONE_FILE).is_file():
                logger.info("%s/%s/%s has not been run", task, stage, repetition)
                continue
            [predictions] = read_predictions(folder / DONE_FILE.parent / "predictions.csv")
            reference = predictions if reference is None else reference
            measured.setdefault(name, {})[seed] = align(reference, measure(predictions))
    return [Repeated(name, by_seed) for name, by_seed in measured.items()]


def render_stage(report: Mapping[str, Any]) -> str:
    """A stage's figures as a Markdown table."""
    trainings = report["trainings"]
    header, rows = stage_table(trainings)
    differences = [stage_difference(training) for training in trainings]
    cells = [
        [*row, difference_text(difference) if difference else "–"]
        for row, difference in zip(rows, differences, strict=True)
    ]
    first = trainings[0]
    caption = (
        f"`{report['task']}`, {report['split']}, {first['figures']['n']:,} images, {first['views']} views:"
    )
    return f"{caption}\n\n{markdown_table([*header, STAGE_DIFFERENCE], cells)}"


def write_tables(readme: Path, stage: str, reports: Sequence[Mapping[str, Any]]) -> None:
    """Replaces the tables of a stage in a Markdown file, between `<!-- STAGE -->` and `<!-- /STAGE -->`.

    Raises:
        ConfigurationError: The file has no such place.
    """
    write_between_marks(readme, stage, "\n\n".join(render_stage(report) for report in reports))


@explaining_mistakes
def main(arguments: list[str] | None = None) -> int:
    """Reports as asked; returns the exit code: 0, or 2 for a mistake that the message explains."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description="Tables of the programme's ablations.")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the programme's output folder")
    parser.add_argument("--stage", action="append", required=True, help="may be repeated")
    parser.add_argument(
        "--readme", type=Path, default=RESULTS, help="Markdown file whose tables are replaced"
    )
    parser.add_argument("--root", type=Path, default=BENCHMARK_ROOT, help="where the figures are written")
    options = parser.parse_args(arguments)
    require_folder(options.root)
    require_folder(options.readme.parent)
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
    return read_json(path) if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
