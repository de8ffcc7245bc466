"""How fast is it? What a user would write and ours, side by side in one run, in one table.

    make bench
    python -m benchmarks.speed.bench --quick --only photo batch
    python -m benchmarks.speed.bench --output assets/benchmark/speed.json --results docs/results.md \
        --architecture docs/architecture.md

- *peer*: the same weights in `pipeline` of transformers, with the heatmap of grad-cam; of training, the original
  project's input pipeline.
- *ours*: the library, the command line or the app, with the runtime that it chooses by itself.
- *network alone*: the passes without anything around them, in PyTorch, which the peer can't beat, and in the
  runtime that ours has chosen, which ours can't beat.

All ways take turns in every round, and a ratio is taken within a round. Reported are medians over the rounds and
95 % intervals by a bootstrap over them. The photos are made of the shipped examples. The machine should do
nothing else: `busy_with_other_work` in the report says what share of its cores did.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scipy.special import softmax

from benchmarks.speed.machine import describe_machine, processor_seconds
from benchmarks.speed.many_photos import measure_batch, measure_visitors
from benchmarks.speed.memory import measure_in_another_process
from benchmarks.speed.peer import Peer
from benchmarks.speed.photos import make_photos
from benchmarks.speed.reading_steps import measure_steps, render_steps
from benchmarks.speed.row import render_rows
from benchmarks.speed.single_photo import label, measure_single_photo
from benchmarks.speed.start_up import measure_start_up
from benchmarks.speed.training_throughput import measure_rows
from dermadeit.about import VERSION
from dermadeit.files import write_json
from dermadeit.inference.predictor import Predictor
from dermadeit.inference.zoo import load_answering
from dermadeit.models.specs import model_name
from dermadeit.reporting.format import count, percent, rounded
from dermadeit.reporting.markdown import around_marks, write_between_marks

logger = logging.getLogger("benchmarks.speed.bench")

PLACE, STEPS_PLACE = "speed", "reading-steps"
"""Marks of the tables in Markdown files."""


@dataclass(frozen=True)
class Effort:
    """How much is done.

    Attributes:
        seconds: Of each row of a single photo, and of the steps of a reading.
        many_seconds: Of each row of many photos.
        rounds: Of each row in any case.
        batch: Photos of the batch.
        visitors: Who come at once.
        starts: How often each process is started.
        memory_photos: Photos during which the memory is watched.
    """

    seconds: float
    many_seconds: float
    rounds: int
    batch: int
    visitors: int
    starts: int
    memory_photos: int


WHOLE = Effort(5, 20, 3, 256, 32, 3, 1000)
QUICK = Effort(0.5, 1, 1, 32, 8, 1, 64)
LONG_MEMORY_PHOTOS = 5000


@dataclass(frozen=True)
class Bench:
    """What is measured.

    Attributes:
        predictor: Ours.
        peer: The same weights in transformers.
        checkpoint: The folder that stands in place of the embedded checkpoints.
        effort: How much is done.
    """

    predictor: Predictor
    peer: Peer
    checkpoint: Path | None
    effort: Effort


SECTIONS: Mapping[str, Callable[[Bench], list[dict[str, Any]]]] = {
    "photo": lambda bench: measure_single_photo(
        bench.predictor, bench.peer, bench.effort.seconds, bench.effort.rounds
    ),
    "batch": lambda bench: measure_batch(
        bench.predictor, bench.peer, bench.effort.batch, bench.effort.many_seconds, bench.effort.rounds
    ),
    "visitors": lambda bench: measure_visitors(
        bench.predictor, bench.effort.visitors, bench.effort.many_seconds, bench.effort.rounds
    ),
    "start": lambda bench: measure_start_up(
        bench.predictor.checkpoint.task.key, bench.checkpoint, bench.peer.folder, bench.effort.starts
    ),
    "memory": lambda bench: measure_in_another_process(bench.effort.memory_photos, bench.checkpoint),
    "training": lambda bench: measure_rows(
        bench.predictor.checkpoint.preprocessing.size, bench.effort.rounds
    ),
}
"""Name of each group of rows to what measures it. `steps`, the profile of a reading, is a table of its own."""

STEPS = "steps"


def measure(effort: Effort, chosen: Sequence[str], checkpoint: Path | None = None) -> dict[str, Any]:
    """The report, JSON-ready.

    Args:
        effort: How much is done.
        chosen: Keys of `SECTIONS`, or `STEPS`.
        checkpoint: A folder in place of the embedded checkpoints.
    """
    predictor = next(iter(load_answering(checkpoint, "auto").values()))
    predictor.warm_up()
    started, (busy, own) = time.perf_counter(), processor_seconds()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(predictor, Peer(predictor.checkpoint, Path(folder)), checkpoint, effort)
        difference = _compare_answers(bench)
        for name, measure_section in SECTIONS.items():
            if name in chosen:
                logger.info("Measuring: %s", name)
                rows += measure_section(bench)
        steps = measure_steps(predictor, effort.seconds, effort.rounds) if STEPS in chosen else None
    seconds = time.perf_counter() - started
    busy_since, own_since = processor_seconds()
    machine = describe_machine()
    others = max(0.0, (busy_since - busy) - (own_since - own)) / (seconds * (machine["cores"] or 1))
    return {
        "dermadeit_version": VERSION,
        "machine": machine,
        "busy_with_other_work": round(others, 3),
        "seconds": round(seconds),
        "model": {
            "name": predictor.checkpoint.model,
            "classes": list(predictor.checkpoint.network.classes),
            "image_size": predictor.checkpoint.preprocessing.size,
            "weights_sha256": predictor.checkpoint.weights_sha256,
            "runtime": predictor.runtime.name,
        },
        "largest_difference_of_a_probability": difference,
        "rows": rows,
        "steps": steps,
    }


def _compare_answers(bench: Bench) -> float:
    """How far softmax scores of the peer are from ours at most, on a few photos: it holds the same weights."""
    differences = []
    for photo in make_photos(8):
        logits = label(bench.predictor, photo, 1).logits
        theirs = bench.peer.label(photo)
        ours = softmax(list(logits.values()))
        differences += [abs(theirs[key] - share) for key, share in zip(logits, ours, strict=True)]
    return float(max(differences))


def render(report: Mapping[str, Any]) -> str:
    """The rows as Markdown, with what they hold for."""
    machine, model, packages = report["machine"], report["model"], report["machine"]["packages"]
    about = (
        f"{machine['processor']}, {machine['cores']} cores, "
        f"{'with' if machine['bfloat16'] else 'without'} bfloat16. "
        f"{model_name(model['name'])} at {model['image_size']} pixels, run by {model['runtime']}. "
        f"Python {machine['python']}, torch {packages['torch']}, transformers {packages['transformers']}. "
        f"Other work took {percent(report['busy_with_other_work'])} of the cores. The probabilities of peer and "
        f"ours differ by at most {rounded(report['largest_difference_of_a_probability'])}."
    )
    return "\n\n".join(
        [about, render_rows(report["rows"]), *filter(None, map(_visitors_text, report["rows"]))]
    )


def _visitors_text(row: Mapping[str, Any]) -> str:
    if "answers" not in row:
        return ""
    return (
        f"{row['title']}: of {count(row['answers'])} answers, {count(row['answers_of_another_photo'])} belonged "
        f"to another photo. 95 % came within {rounded(row['seconds_of_95_percent'])} s."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints the tables, and writes what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    everything = (*SECTIONS, STEPS)
    parser.add_argument("--only", nargs="+", choices=everything, default=everything, help="what to measure")
    parser.add_argument("--quick", action="store_true", help="see whether it runs; the figures mean little")
    parser.add_argument(
        "--long", action="store_true", help=f"watch the memory over {LONG_MEMORY_PHOTOS:,} photos"
    )
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint folder in place of the embedded ones")
    parser.add_argument("--output", type=Path, help="a JSON file to write")
    parser.add_argument("--results", type=Path, help="a Markdown file to put the table into")
    parser.add_argument(
        "--architecture", type=Path, help="a Markdown file to put the steps of a reading into"
    )
    options = parser.parse_args(arguments)
    # Before minutes are spent.
    for document, place in ((options.results, PLACE), (options.architecture, STEPS_PLACE)):
        if document is not None:
            around_marks(document, place)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    logger.setLevel(logging.INFO)
    effort = QUICK if options.quick else WHOLE
    if options.long:
        effort = replace(effort, memory_photos=LONG_MEMORY_PHOTOS)
    report = measure(effort, options.only, options.checkpoint)
    table = render(report)
    steps = render_steps(report["steps"]) if report["steps"] else ""
    logger.info("\n%s\n\n%s", table, steps)
    if options.output:
        write_json(options.output, report)
    if options.results:
        write_between_marks(options.results, PLACE, table)
    if options.architecture:
        write_between_marks(options.architecture, STEPS_PLACE, steps)


if __name__ == "__main__":
    main()
