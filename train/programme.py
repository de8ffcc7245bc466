"""Run the trainings of train/programme.yaml, one after another, or several side by side.

    python -m train.programme --weights FOLDER --workers 2
    python -m train.programme --stage teachers --stage three-way --only 'binary/*'

A stage starts when the one before it has ended. distill.py goes on with a training that was cut off, ends at once
where it is done, and refuses a folder that holds another one. A training that builds on one which is not done is
left out. Options that are not known here are given to every training.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from dermadeit.errors import ConfigurationError
from dermadeit.files import require_folder
from dermadeit.models.checkpoints import WEIGHTS_FILE
from train.command_line import explaining_mistakes, parse_arguments
from train.configuration import CHECKPOINT_PREFIX
from train.distill import DONE_FILE

logger = logging.getLogger("train.programme")

PROGRAMME_FILE = Path(__file__).with_name("programme.yaml")


class PlannedTraining(NamedTuple):
    """A training of the programme: its stage, its folder below the output folder, and distill.py's arguments."""

    stage: str
    name: str
    arguments: list[str]


def read_trainings(programme: Mapping[str, Any]) -> Iterator[PlannedTraining]:
    """All trainings of a programme, the content of programme.yaml, in order."""
    for stage, content in programme["stages"].items():
        for task, of_task in content.get("tasks", {"": ""}).items():
            so_far = of_all = content.get("arguments", "")
            for name, own in content["trainings"].items():
                so_far = f"{so_far if content.get('cumulative') else of_all} {own}"
                for seed, repetition in repetitions(name, content).items():
                    arguments = so_far if seed is None else f"{so_far} --seed {seed}"
                    if task:
                        arguments += f" --task {task} {of_task}"
                        repetition = f"{task}/{stage}/{repetition}"
                    yield PlannedTraining(stage, repetition, shlex.split(arguments))


def repetitions(name: str, content: Mapping[str, Any]) -> dict[int | None, str]:
    """Each seed of a stage to the name of a training with it; without seeds, None to the training's own name."""
    return {seed: f"{name}-seed{seed}" for seed in range(content.get("seeds", 0))} or {None: name}


def fill(word: str, programme: Mapping[str, Any], output: Path) -> tuple[str, list[Path]]:
    """An argument with what it has in braces filled in, and the folders of the trainings that it names."""
    if not word.startswith("{"):
        return word, []
    if networks := programme["teachers"].get(word[1:-1]):
        folders = [output / network for network in networks]
        return CHECKPOINT_PREFIX + ",".join(map(str, folders)), folders
    return str(output / word[1:-1] / WEIGHTS_FILE), [output / word[1:-1]]


def run(training: PlannedTraining, programme: Mapping[str, Any], options: argparse.Namespace) -> bool:
    """Runs a training unless something that it builds on is missing; returns whether it is done."""
    filled = [fill(word, programme, options.output) for word in training.arguments]
    for folder in (folder for _, folders in filled for folder in folders):
        if not (folder / DONE_FILE).is_file():
            logger.warning("%s is left out, since %s is not done", training.name, folder)
            return False
    folder = options.output / training.name
    words = [*options.extra, *(word for word, _ in filled), "--output", str(folder)]
    words += ["--teacher-cache", str(options.output / "teacher_cache")]
    if options.weights and "--init" not in words:
        model = parse_arguments(words).configuration.model.model
        words += ["--init", str(options.weights / programme["weights"][model])]
    folder.mkdir(parents=True, exist_ok=True)
    logger.info("%s starts", training.name)
    environment = {"OMP_NUM_THREADS": str(max((os.cpu_count() or 1) // options.workers, 1))} | os.environ
    with (folder / "log.txt").open("a") as log:
        command = [sys.executable, str(Path(__file__).with_name("distill.py")), *words]
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment).returncode  # noqa: S603
    logger.info("%s %s", training.name, f"failed: see {folder / 'log.txt'}" if code else "is done")
    return code == 0


@explaining_mistakes
def main(arguments: list[str] | None = None) -> int:
    """Runs the programme; returns 0 when all of it is done, 3 when some is not, 2 for a mistake in the call."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parser = argparse.ArgumentParser(description="Run the trainings of train/programme.yaml.")
    parser.add_argument("--stage", action="append", help="only this stage; may be repeated")
    parser.add_argument(
        "--only", action="append", help="only trainings of this name, * for any; may be repeated"
    )
    parser.add_argument("--output", type=Path, default=Path("runs"), help="folder of all outputs")
    parser.add_argument("--weights", type=Path, help="folder of pretrained backbones, in place of the Hub")
    parser.add_argument("--workers", type=int, default=1, help="trainings side by side; 2 suit two CPU cores")
    options, options.extra = parser.parse_known_args(arguments)
    require_folder(options.output)
    programme = yaml.safe_load(PROGRAMME_FILE.read_text(encoding="utf-8"))
    stages = options.stage or list(programme["stages"])
    if unknown := set(stages) - programme["stages"].keys():
        known = ", ".join(programme["stages"])
        raise ConfigurationError(f"There is no stage “{unknown.pop()}” in the programme, but {known}.")
    chosen = (
        training
        for training in read_trainings(programme)
        if training.stage in stages
        and any(fnmatch(training.name, pattern) for pattern in options.only or ["*"])
    )
    done = []
    with ThreadPoolExecutor(options.workers) as pool:
        for _, stage in groupby(chosen, key=lambda training: training.stage):
            done += pool.map(lambda training: run(training, programme, options), stage)
    return 0 if all(done) else 3


if __name__ == "__main__":
    sys.exit(main())
