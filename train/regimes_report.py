"""What a teacher brings where labels are few, photos small, or labels wrong: a table, a figure, and their file.

    python -m train.regimes_report --runs runs/regimes

Reads what train.cross_validation has kept so far of the trainings of train/regimes.yaml. Writes report.json and
differences.svg into assets/benchmark/regimes, and a section into docs/results.md between `<!-- regimes -->` and
`<!-- /regimes -->`. To keep the answers too, copy images.npz and the folders of the arms there; with
`--runs assets/benchmark/regimes` everything is then made again.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dermadeit.errors import ConfigurationError
from dermadeit.evaluation.comparison import Difference
from dermadeit.files import require_folder, write_atomically, write_json
from dermadeit.metrics.classification import RESAMPLES
from dermadeit.publishing.benchmark import BENCHMARK_ROOT
from dermadeit.reporting.figures import alt_text, difference_figure, encode_figure
from dermadeit.reporting.format import NOTHING, count, counted, decimal
from dermadeit.reporting.markdown import (
    around_marks,
    difference_text,
    markdown_table,
    write_between_marks,
)
from train.command_line import explaining_mistakes
from train.cross_validation import SEARCH_FILE
from train.cross_validation_report import TEACHER_OF, Search, report
from train.programme_report import RESULTS

logger = logging.getLogger("train.regimes_report")

REGIMES_FILE = SEARCH_FILE.with_name("regimes.yaml")
PLACE = "regimes"
REPORT_FILE, FIGURE_FILE = "report.json", "differences.svg"

COLUMNS: Mapping[str, str] = {
    "binary_roc_auc": "AUROC, binary",
    "malignancy_roc_auc": "AUROC, malignancy",
    "binary_nll": "NLL, binary",
    "malignancy_nll": "NLL, malignancy",
    "binary_accuracy": "accuracy, binary",
    "malignancy_accuracy": "accuracy, malignancy",
}
"""The figures of the table. Not of eight diagnoses: with few labels the rare ones have a handful of lesions."""

DRAWN: Mapping[str, Sequence[str]] = {
    "AUROC": ("binary_roc_auc", "malignancy_roc_auc"),
    "Accuracy": ("binary_accuracy", "malignancy_accuracy"),
}
"""The panels of the figure."""

_READINGS = ("Nevus or not", "Malignant or benign")


def taught_arms(content: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Title of each regime that has been run with a teacher and without, to its entry in report.json."""
    return {
        title: content["arms"][arm] | {"name": arm}
        for arm, title in plan["titles"].items()
        if content["arms"].get(arm, {}).get("differences")
    }


def describe(content: Mapping[str, Any], plan: Mapping[str, Any], figure: str) -> str:
    """The section of docs/results.md.

    Args:
        content: Of report.json.
        plan: The content of regimes.yaml.
        figure: The image's path and its alt text, as a Markdown image.
    """
    rows = [
        row for title, entry in taught_arms(content, plan).items() for row in _rows(title, entry, content)
    ]
    table = markdown_table(["regime", "training", *COLUMNS.values()], rows)
    about = (
        "Plain and taught have the same start, recipe and number of steps, and are told the same labels. They are "
        f"compared on {count(content['images'])} photos of {counted(content['lesions'], 'lesion')} of validation "
        "and calibration. Where labels are few, the teacher is two networks that are told no more labels; the "
        "student also learns what they say of all other train photos. Probabilities are calibrated on other "
        f"lesions than those that are measured. Intervals: {content['method']}. Trainings: `train/regimes.yaml`."
    )
    return "\n\n".join(["### With few labels, small photos or wrong labels", about, figure, table])


def _rows(title: str, entry: Mapping[str, Any], content: Mapping[str, Any]) -> Iterator[list[str]]:
    arms, seeds = content["arms"], len(entry["trainings"])
    named = {"plain": arms[entry["compared_with"]], "taught": entry}
    if teacher := arms.get(f"{entry['name']}{TEACHER_OF}"):
        named["the teacher itself"] = teacher
    for number, (name, arm) in enumerate(named.items()):
        figures = arm["figures"]
        values = [decimal(figures[key]["value"]) if key in figures else NOTHING for key in COLUMNS]
        yield [f"{title} ({counted(seeds, 'seed')})" if number == 0 else "", name, *values]
    found = [entry["differences"].get(key) for key in COLUMNS]
    yield [
        "",
        "taught minus plain",
        *(
            difference_text(Difference(one["difference"], one["interval"])) if one else NOTHING
            for one in found
        ),
    ]


@explaining_mistakes
def main(arguments: list[str] | None = None) -> int:
    """Writes the report; returns 0, or 2 for a mistake in the call."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description="Compare trainings with and without a teacher.")
    parser.add_argument("--runs", type=Path, default=Path("runs/regimes"), help="folder of the answers")
    parser.add_argument("--search", type=Path, default=REGIMES_FILE, help="YAML file with the arms")
    parser.add_argument(
        "--output", type=Path, default=BENCHMARK_ROOT / "regimes", help="folder of report and figure"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="Markdown file that gets the section")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help="how often the lesions are drawn")
    options = parser.parse_args(arguments)
    around_marks(options.results, PLACE)
    require_folder(options.output)
    plan = yaml.safe_load(options.search.read_text(encoding="utf-8"))
    content = report(Search(options.runs, options.resamples), plan)
    entries = taught_arms(content, plan)
    if not entries:
        raise ConfigurationError(
            f"“{options.runs}” holds no training with a teacher beside its plain partner yet."
        )
    drawing = difference_figure(
        "What a teacher brings",
        list(entries),
        {
            panel: {
                reading: [entry["differences"].get(key, {}) for entry in entries.values()]
                for reading, key in zip(_READINGS, keys, strict=True)
            }
            for panel, keys in DRAWN.items()
        },
    )
    path = options.output / FIGURE_FILE
    write_json(options.output / REPORT_FILE, content)
    write_atomically(path, lambda partial: partial.write_bytes(encode_figure(drawing, "svg")))
    shown = Path(os.path.relpath(path.resolve(), options.results.resolve().parent)).as_posix()
    write_between_marks(options.results, PLACE, describe(content, plan, f"![{alt_text(drawing)}]({shown})"))
    logger.info("The section is in %s", options.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
