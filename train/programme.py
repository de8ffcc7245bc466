"""Run every training of train/programme.yaml unattended, and keep account of what ran.

    python train/programme.py --weights FOLDER --lanes 2
    python train/programme.py --stage teachers --hours 3

Each lane runs one training at a time, on its own cores. A training that was cut off goes on where it was, one that
failed is left out together with those that need it, and one that is done is not run again. The account is
programme.json in the output folder.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import yaml

from dermadeit.errors import ConfigurationError
from dermadeit.files import write_json
from dermadeit.models.checkpoints import TRAINING_FILE, WEIGHTS_FILE
from train.command_line import explaining_mistakes, parse_arguments
from train.configuration import CHECKPOINT_PREFIX

logger = logging.getLogger("train.programme")

PROGRAMME_FILE = Path(__file__).resolve().parent / "programme.yaml"
ACCOUNT_FILE = "programme.json"
DONE_FILE = Path("validation") / "failures.csv"
"""The last file that a training writes."""

SECONDS_BETWEEN_LOOKS = 2.0
IMAGE_LEVEL_DATA = "{image-level-data}"

# glibc gives the big buffers of each step back to the kernel and faults them in again: a tenth of the time.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**33)}


@dataclass(frozen=True)
class Step:
    """One training of the programme.

    Attributes:
        stage: The stage it belongs to.
        name: Its output folder, below the programme's.
        arguments: For train/distill.py; what stands in braces is not filled in yet.
        needs: Names of the trainings that must be done first.
    """

    stage: str
    name: str
    arguments: tuple[str, ...]
    needs: tuple[str, ...]


def read_steps(
    programme: Mapping[str, Any], stages: Sequence[str] = (), patterns: Sequence[str] = ()
) -> list[Step]:
    """The trainings of a programme, in order.

    Args:
        programme: The content of programme.yaml.
        stages: Which stages; none for all.
        patterns: Which names, such as `*/dermadeit`; none for all.

    Raises:
        ConfigurationError: There is no such stage.
    """
    unknown = [stage for stage in stages if stage not in programme["stages"]]
    if unknown:
        raise ConfigurationError(
            f"There is no stage “{unknown[0]}” in the programme. Its stages are {', '.join(programme['stages'])}."
        )
    return [
        Step(stage, name, tuple(arguments), _needs(arguments, programme["teachers"]))
        for stage, content in programme["stages"].items()
        if not stages or stage in stages
        for name, arguments in _trainings(stage, content)
        if not patterns or any(fnmatch(name, pattern) for pattern in patterns)
    ]


def _needs(arguments: Sequence[str], teachers: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The trainings that arguments name: the teacher's, and the one to start from."""
    named = [
        argument.strip("{}")
        for argument in arguments
        if argument.startswith("{") and argument != IMAGE_LEVEL_DATA
    ]
    return tuple(training for name in named for training in teachers.get(name, [name]))


def _trainings(stage: str, content: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    named = {name: shlex.split(arguments) for name, arguments in content.get("trainings", {}).items()}
    rung: list[str] = []
    for name, arguments in content.get("ladder", {}).items():
        rung = rung + shlex.split(arguments)
        named[name] = rung
    named = {
        repetition: [*arguments, *([] if seed is None else ["--seed", str(seed)])]
        for name, arguments in named.items()
        for seed, repetition in repetitions(name, content).items()
    }
    if "tasks" not in content:
        yield from named.items()
        return
    for task, of_task in content["tasks"].items():
        for name, arguments in named.items():
            yield f"{task}/{stage}/{name}", [*arguments, "--task", task, *shlex.split(of_task)]


def repetitions(name: str, content: Mapping[str, Any]) -> dict[int | None, str]:
    """Each seed of a stage to the name of a training with it; without seeds, None to the training's own name.

    Args:
        name: Its key in the stage.
        content: The stage's entry in programme.yaml.
    """
    if "seeds" not in content:
        return {None: name}
    return {seed: f"{name}-seed{seed}" for seed in range(content["seeds"])}


class Programme:
    """The state of all trainings in an output folder.

    Args:
        steps: What to run.
        output: Folder of all outputs.
        weights: Folder of pretrained backbones, or None for the Hugging Face Hub.
        weight_files: Model name to file name in that folder.
        image_level_data: Data folder with a split by image; without it, trainings that need one are not run.
        extra: Further arguments for every training; its own ones win.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        output: Path,
        weights: Path | None,
        weight_files: Mapping[str, str],
        image_level_data: Path | None = None,
        extra: Sequence[str] = (),
    ) -> None:
        self.steps = [step for step in steps if image_level_data or IMAGE_LEVEL_DATA not in step.arguments]
        self._image_level_data = image_level_data
        self.output = output
        self._weights = weights
        self._weight_files = weight_files
        self._extra = tuple(extra)
        account = output / ACCOUNT_FILE
        self.account: dict[str, dict[str, Any]] = (
            json.loads(account.read_text(encoding="utf-8"))["trainings"] if account.is_file() else {}
        )
        self._wanted = {step.name: _identity(step) for step in self.steps}
        self._failed: set[str] = set()

    def is_done(self, name: str) -> bool:
        """Whether a training has been finished and validated, as far as known with its present arguments."""
        is_wanted = self._is_known_as(name, self._wanted.get(name, {}))
        return (self.output / name / DONE_FILE).is_file() and is_wanted

    def next_step(self, running: Sequence[str]) -> Step | None:
        """The first training that can start, given the names of those that run."""
        for step in self.steps:
            if self.is_done(step.name) or step.name in running or step.name in self._failed:
                continue
            if all(self.is_done(name) for name in step.needs):
                return step
        return None

    def _is_known_as(self, name: str, identity: Mapping[str, Any]) -> bool:
        """Whether the account knows no other training of this name."""
        known = self.account.get(name, {})
        # Older accounts don't say what a training built on.
        return all(known.get(key, value) == value for key, value in identity.items())

    def command(self, step: Step) -> list[str]:
        """The command of a training."""
        starts = {"{" + name + "}": str(self.output / name / WEIGHTS_FILE) for name in step.needs}
        networks = [str(self.output / name) for name in step.needs if "{" + name + "}" not in step.arguments]
        teacher = CHECKPOINT_PREFIX + ",".join(networks)
        # Whatever else stands in braces is the name of the teacher.
        values = {argument: teacher for argument in step.arguments if argument.startswith("{")}
        values |= {IMAGE_LEVEL_DATA: str(self._image_level_data), **starts}
        arguments = [*self._extra, *(values.get(argument, argument) for argument in step.arguments)]
        arguments += ["--output", str(self.output / step.name)]
        arguments += ["--teacher-cache", str(self.output / "teacher_cache")]
        if self._weights is not None and "--init" not in step.arguments:
            model = parse_arguments(arguments).configuration.model_name
            arguments += ["--init", str(self._weights / self._weight_files[model])]
        return [sys.executable, str(Path(__file__).with_name("distill.py")), *arguments]

    def record(self, step: Step, seconds: float, *, succeeded: bool) -> None:
        """Adds a run of a training to the account."""
        identity = _identity(step)
        # What another training of this name took is not this one's.
        known = self.account.get(step.name, {}) if self._is_known_as(step.name, identity) else {}
        entry = {"stage": step.stage, "seconds": round(known.get("seconds", 0.0) + seconds, 1), **identity}
        self.account[step.name] = entry
        entry["ended"] = datetime.now(UTC).isoformat(timespec="seconds")
        entry["state"] = "done" if self.is_done(step.name) else "cut off" if succeeded else "failed"
        if entry["state"] == "done":
            training = self.output / step.name / TRAINING_FILE
            entry["device"] = json.loads(training.read_text(encoding="utf-8"))["environment"]["device"]
        if entry["state"] == "failed":
            self._failed.add(step.name)
        to_come = [other.name for other in self.steps if not self.is_done(other.name)]
        hours = sum(item["seconds"] for item in self.account.values()) / 3600
        write_json(
            self.output / ACCOUNT_FILE,
            {"trainings": self.account, "training_hours": round(hours, 2), "to_come": to_come},
        )


def _identity(step: Step) -> dict[str, Any]:
    """What makes a training another one: its arguments, and the trainings that it builds on."""
    return {"arguments": shlex.join(step.arguments), "needs": list(step.needs)}


def run(programme: Programme, lanes: int, hours: float) -> bool:
    """Runs the trainings that are not done yet.

    Args:
        programme: The trainings.
        lanes: How many run side by side.
        hours: When to stop the trainings that still run; what they have done is kept.

    Returns:
        Whether every training is done.
    """
    deadline = time.monotonic() + 3600 * hours
    # The trainings are stopped and counted when the programme is told to end.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    running: dict[int, tuple[Step, subprocess.Popen, float]] = {}
    try:
        while True:
            for lane, (step, process, started) in list(running.items()):
                if process.poll() is not None:
                    del running[lane]
                    programme.record(step, time.monotonic() - started, succeeded=process.returncode == 0)
                    logger.info("%s: %s", step.name, programme.account[step.name]["state"])
            if time.monotonic() > deadline:
                break
            for lane in set(range(lanes)) - running.keys():
                step = programme.next_step([busy.name for busy, _, _ in running.values()])
                if step is not None:
                    logger.info("%s starts on lane %d", step.name, lane)
                    running[lane] = (step, _start(programme, step, cores[lane::lanes]), time.monotonic())
            if not running:
                break
            time.sleep(SECONDS_BETWEEN_LOOKS)
    finally:
        for step, process, started in running.values():
            process.terminate()
            process.wait()
            programme.record(step, time.monotonic() - started, succeeded=True)
        signal.signal(signal.SIGTERM, before)
    return all(programme.is_done(step.name) for step in programme.steps)


def _start(programme: Programme, step: Step, cores: Sequence[int]) -> subprocess.Popen:
    folder = programme.output / step.name
    folder.mkdir(parents=True, exist_ok=True)
    # What an earlier training with other arguments left would vouch for this one.
    (folder / DONE_FILE).unlink(missing_ok=True)
    environment = os.environ | _KEEP_MEMORY
    command = programme.command(step)
    if cores:
        environment |= {"OMP_NUM_THREADS": str(len(cores))}
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)  # noqa: S603
    if cores:
        os.sched_setaffinity(process.pid, cores)
    return process


@explaining_mistakes
def main(arguments: list[str] | None = None) -> int:
    """Runs the programme; returns 0 when all of it is done, 3 when some is not, 2 for a mistake in the call."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parser = argparse.ArgumentParser(description="Run the trainings of train/programme.yaml.")
    parser.add_argument("--stage", action="append", default=[], help="only this stage; may be repeated")
    parser.add_argument(
        "--only", action="append", default=[], help="only trainings of this name, * for any; may be repeated"
    )
    parser.add_argument("--output", type=Path, default=Path("runs"), help="folder of all outputs")
    parser.add_argument("--weights", type=Path, help="folder of pretrained backbones")
    parser.add_argument("--image-level-data", type=Path, help="data folder with a split by image")
    parser.add_argument("--lanes", type=int, default=1, help="trainings side by side; 2 suit two CPU cores")
    parser.add_argument("--hours", type=float, default=20.0, help="stop after so many hours")
    parser.add_argument("--list", action="store_true", help="show what would run, and stop")
    options, extra = parser.parse_known_args(arguments)
    content = yaml.safe_load(PROGRAMME_FILE.read_text(encoding="utf-8"))
    steps = read_steps(content, options.stage, options.only)
    programme = Programme(
        steps, options.output, options.weights, content["weights"], options.image_level_data, extra
    )
    if options.list:
        for step in programme.steps:
            state = "done" if programme.is_done(step.name) else "to come"
            logger.info("%s (%s): %s", step.name, state, shlex.join(step.arguments))
        return 0
    return 0 if run(programme, options.lanes, options.hours) else 3


if __name__ == "__main__":
    sys.exit(main())
