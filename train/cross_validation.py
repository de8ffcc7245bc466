"""Compare recipes on held-out lesions: the short trainings of train/search.yaml, in folds.

    python -m train.cross_validation --data FOLDER --weights FOLDER --output runs/search
    python -m train.cross_validation --data FOLDER --only 'colour*/fold0-*' --list
    python -m train.cross_validation_report --runs runs/search

The lesions of train, validation and calibration are dealt into folds; test is never touched. Each training learns
from all folds but one. It answers about that one, and about photos of other cameras (isic2020_external.csv beside
the manifest), which no training learns from. What it answered is kept, its weights are not. Trainings of the first
fold come first, so that an early stop leaves a comparison of all arms.

    python -m train.cross_validation --search train/regimes.yaml --only 'few-*' --output runs/regimes

A search may hold back whole splits in place of folds, and an arm may name others in braces as its teacher: it
learns what their networks say of the train photos.

The same command goes on where it was cut off and leaves out what is done. It may run several times side by side:
each training is done by one of them, and a student waits for its teachers. Options that are not known here are
given to every training, before those of its arm.
"""

from __future__ import annotations

import argparse
import gc
import logging
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from filelock import FileLock, Timeout
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader

from dermadeit.data.dataset import LesionDataset, collate
from dermadeit.data.manifest import Manifest, check_leaks, read_source
from dermadeit.errors import ConfigurationError, DermaDeiTError
from dermadeit.files import require_folder, write_atomically
from dermadeit.imaging.preprocessing import DIHEDRAL_VIEWS, apply_dihedral
from dermadeit.tasks import DIAGNOSIS, TASKS, create_own_task
from train.answers import EXTERNAL, Answers, Images
from train.command_line import explaining_mistakes, parse_arguments
from train.configuration import FILE_PREFIX, TrainingConfiguration
from train.data.splitting import assign_splits, fold_of
from train.loaders import find_manifest
from train.loop import EVALUATION_BATCH, FREE_BETWEEN_RUNS, Training
from train.plan import settle
from train.programme import PROGRAMME_FILE
from train.teachers.file import mean_log_probabilities, write_log_probabilities

logger = logging.getLogger("train.cross_validation")

SEARCH_FILE = Path(__file__).with_name("search.yaml")

EXTERNAL_FILE = "isic2020_external.csv"
EXTERNAL_SOURCE = "isic2020_external"

POOLED_SPLITS = ("train", "validation", "calibration")
"""The splits whose lesions are dealt into folds."""

VIEWS = 2
"""Dihedral views of a held-out photo. They are as accurate as eight, at a quarter of the time."""

EXTERNAL_VIEWS = DIHEDRAL_VIEWS
"""Of a photo of another camera, as it is served: there are few of them."""

TEACHING_FOLDER = "teaching"
"""Below the output folder: what networks say about train photos. Nothing in it is needed once all is done."""

_PROBE_STEPS = 2000


# ---------------------------------------------------------------------------------------------------- plan


@dataclass(frozen=True)
class PlannedRun:
    """One training of the search.

    Attributes:
        arm: Name of the recipe that is tried.
        fold: The fold that it does not see.
        seed: Decides its random choices.
        without: The source that it does not see; an empty string where it sees all.
        arguments: Those of train/distill.py. A teacher in braces is one or several other arms, divided by commas.
        teaches: Whether its network teaches another arm, and so is asked about what it learnt from too.
    """

    arm: str
    fold: int
    seed: int
    without: str
    arguments: tuple[str, ...]
    teaches: bool = False

    @property
    def teachers(self) -> tuple[PlannedRun, ...]:
        """The trainings whose networks are its teacher, as far as their names go; none with any other teacher."""
        arms = next((word[1:-1].split(",") for word in self.arguments if word.startswith("{")), [])
        return tuple(replace(self, arm=arm, teaches=True) for arm in arms)

    @property
    def name(self) -> str:
        """Where its answers are kept below the output folder, without the suffix."""
        return f"{self.arm}/fold{self.fold}-seed{self.seed}" + (
            f"-without-{self.without}" if self.without else ""
        )


def plan_runs(
    search: Mapping[str, Any], sources: list[str], seeds: int | None = None, extra: Sequence[str] = ()
) -> Iterator[PlannedRun]:
    """All trainings of a search, the content of search.yaml, the most informative first.

    Every arm on fold 0, then with each source left out in turn where the search asks for that, then the other
    folds, then the other seeds.

    Args:
        search: `folds`, or `held_out` (splits that are held back as the only fold); `base` (arguments of all
            arms), `arms` (name to further arguments), `leave_one_source_out` (names of arms), and `seeds`.
        sources: Names of the collections.
        seeds: Repetitions of each training, in place of the search's.
        extra: Arguments that overrule the base's, but not an arm's own.
    """
    teaching = {
        arm
        for own in search["arms"].values()
        for word in shlex.split(own or "")
        if word.startswith("{")
        for arm in word[1:-1].split(",")
    }
    if unknown := teaching - search["arms"].keys():
        raise ConfigurationError(f"The search has no arm “{min(unknown)}”, which is to teach another one.")
    for seed in range(seeds or search.get("seeds", 1)):
        for fold in range(search.get("folds", 1)):
            for without in ["", *sources] if fold == 0 else [""]:
                for arm, own in search["arms"].items():
                    if without and arm not in search.get("leave_one_source_out", []):
                        continue
                    words = [*shlex.split(search["base"]), *extra, *shlex.split(own or "")]
                    arguments = (*words, "--seed", str(seed))
                    yield PlannedRun(arm, fold, seed, without, arguments, arm in teaching)


# ---------------------------------------------------------------------------------------------------- data


@dataclass(frozen=True)
class Pool:
    """What trainings learn from and answer about.

    Attributes:
        manifest: The photos whose lesions are dealt into folds, with the fold, as a number, in place of the split.
        external: Photos of other cameras; None where there are none.
    """

    manifest: Manifest
    external: Manifest | None

    @property
    def sources(self) -> list[str]:
        """Names of the collections."""
        return sorted({row.source for row in self.manifest.rows})

    @property
    def images(self) -> Images:
        """All photos and the truth about them."""
        rows = [(row, row.source, int(row.split)) for row in self.manifest.rows]
        if self.external is not None:
            rows += [(row, EXTERNAL_SOURCE, EXTERNAL) for row in self.external.rows]
        return Images(
            np.array([row.image_id for row, _, _ in rows]),
            np.array([row.lesion_group for row, _, _ in rows]),
            np.array([source for _, source, _ in rows]),
            np.array([row.label for row, _, _ in rows]),
            np.array([fold for _, _, fold in rows], dtype=np.int8),
        )

    def part(self, run: PlannedRun) -> tuple[Manifest, Manifest]:
        """What a training learns from, as train and validation splits, and what it answers about besides.

        Its validation split is the fold that is held out, of all sources; the second manifest holds the other
        photos of a source that is left out, and may be empty.
        """
        learnt, beside = [], []
        for row in self.manifest.rows:
            if int(row.split) == run.fold:
                learnt.append(replace(row, split="validation"))
            elif row.source != run.without:
                learnt.append(replace(row, split="train"))
            else:
                beside.append(row)
        return replace(self.manifest, rows=tuple(learnt)), replace(self.manifest, rows=tuple(beside))


def read_pool(folder: Path, search: Mapping[str, Any]) -> Pool:
    """Reads a data folder, and deals its lesions into folds.

    Args:
        folder: Holds the manifest.
        search: With `folds`, the folds have the same mixture of diagnoses and sources. With `held_out`, these
            splits are fold 0 and train is fold 1, and there are no photos of other cameras.

    Raises:
        TableError: The manifest can't be used, or a lesion is in two splits.
    """
    manifest = read_source(find_manifest(folder), TASKS["diagnosis"])
    check_leaks(manifest)
    if held_out := search.get("held_out"):
        rows = [row for row in manifest.rows if row.split in ("train", *held_out)]
        rows = tuple(replace(row, split="1" if row.split == "train" else "0") for row in rows)
        return Pool(replace(manifest, rows=rows), None)
    rows = [row for row in manifest.rows if row.split in POOLED_SPLITS]
    dealt = assign_splits(
        [row.lesion_group for row in rows],
        [(row.label, row.source) for row in rows],
        {str(fold): 1 for fold in range(search["folds"])},
        seed=0,
    )
    rows = tuple(replace(row, split=fold) for row, fold in zip(rows, dealt, strict=True))
    table = folder / EXTERNAL_FILE
    external = read_source(table, create_own_task(("benign", "mel"))) if table.is_file() else None
    return Pool(replace(manifest, rows=rows), external)


# ------------------------------------------------------------------------------------------------ training


def perform(run: PlannedRun, configuration: TrainingConfiguration, pool: Pool, output: Path) -> None:
    """Trains, from where an earlier try was cut off, and writes what the training answers.

    Args:
        run: The training.
        configuration: Its settings.
        pool: The photos.
        output: Folder of all answers. The state of the training lies beside its own until they are written.
    """
    path = answers_path(run, output)
    manifest, beside = pool.part(run)
    training = Training(configuration, manifest)
    state = path.with_suffix(".state")
    if state.is_file():
        training.resume(state)
    while training.epoch < configuration.optimisation.epochs:
        started = time.perf_counter()
        losses = training.run_epoch()
        training.epoch += 1
        seconds = time.perf_counter() - started
        training.curves.append({"epoch": training.epoch, **losses, "seconds": round(seconds, 1)})
        write_atomically(state, partial(torch.save, training.state()))
        logger.info(
            "%s: epoch %d of %d, loss %.3f, %.0f s", run.name, training.epoch,
            configuration.optimisation.epochs, losses["loss"], seconds,
        )  # fmt: skip
    if run.teaches:
        teach(training, manifest.select("train"), teaching_path(run, output))
    held_out = manifest.select("validation")
    parts = [part for part in (held_out, beside, pool.external) if part is not None and part.rows]
    answered = [answer(training, part, EXTERNAL_VIEWS if part is pool.external else VIEWS) for part in parts]
    named = name_sources(answered[0][1], held_out)
    about = {
        "classes": list(manifest.task.classes),
        "arm": run.arm,
        "fold": run.fold,
        "seed": run.seed,
        "without": run.without,
        "arguments": list(run.arguments),
        "settings": deciding_settings(configuration),
        "curves": training.curves,
        "threads": torch.get_num_threads(),
        "device": training.device.type,
        "precision": training.precision,
    }
    image_ids = np.array([row.image_id for part in parts for row in part.rows])
    Answers(
        image_ids,
        np.concatenate([log_probabilities for log_probabilities, _ in answered]),
        np.concatenate([named, np.full(len(image_ids) - len(named), "")]),
        about,
    ).write(path)
    state.unlink(missing_ok=True)


def teach(training: Training, manifest: Manifest, path: Path) -> None:
    """Writes what the network of a training says about train photos, for its students.

    Args:
        training: Done. With `folds` it only answers about the lesions of the fold that it did not see.
        manifest: The photos, of which it may have seen some or all.
        path: The file.
    """
    data = training.configuration.data
    if data.folds:
        rows = [row for row in manifest.rows if fold_of(row.lesion_group, data.folds) == data.held_out_fold]
        manifest = replace(manifest, rows=tuple(rows))
    log_probabilities, _ = answer(training, manifest, VIEWS)
    image_ids = [row.image_id for row in manifest.rows]
    write_log_probabilities(path, image_ids, manifest.task.classes, log_probabilities)


@torch.inference_mode()
def answer(training: Training, manifest: Manifest, views: int) -> tuple[np.ndarray, np.ndarray]:
    """What the network of a training says about photos: the mean logit of the first dihedral views.

    Returns:
        Log-probabilities, float32 [N, K], and the class tokens of the unturned photos, float32 [N, D].
    """
    classifier = training.classifier.eval()
    loader = DataLoader(
        LesionDataset(manifest, training.preprocessing, cache_bytes=0),
        batch_size=EVALUATION_BATCH,
        num_workers=training.configuration.data.workers,
        collate_fn=collate,
    )
    answers, tokens = [], []
    for pixels, _, _ in loader:
        images = training.preprocessing.normalise(pixels.to(training.device))
        logits = torch.zeros(len(images), len(training.task.classes), device=training.device)
        for view in range(views):
            with training.accelerator.autocast():
                token, _ = classifier.embed(apply_dihedral(images, view))
                logits += classifier.head(token).float() / views
            if view == 0:
                tokens.append(token.float().cpu())
        answers.append(logits.log_softmax(dim=-1).cpu())
    return torch.cat(answers).numpy(), torch.cat(tokens).numpy()


def name_sources(tokens: np.ndarray, manifest: Manifest) -> np.ndarray:
    """The source of each photo as a linear probe reads it from the class token, fitted on other lesions.

    Args:
        tokens: float [N, D].
        manifest: The N photos. None of their lesions was trained on.

    Returns:
        str [N], all empty where there is only one source.
    """
    sources = np.array([row.source for row in manifest.rows])
    if len(set(sources)) < 2:
        return np.full(len(sources), "")
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=_PROBE_STEPS))
    lesions = [row.lesion_group for row in manifest.rows]
    return np.asarray(cross_val_predict(probe, tokens, sources, groups=lesions, cv=GroupKFold(2)))


# ------------------------------------------------------------------------------------------------- program


def answers_path(run: PlannedRun, output: Path) -> Path:
    """Where the answers of a training are kept."""
    return output / f"{run.name}.npz"


def teaching_path(run: PlannedRun, output: Path) -> Path:
    """Where lies what the network of a training says about train photos."""
    return output / TEACHING_FOLDER / f"{run.name}.npz"


def teacher_path(run: PlannedRun, output: Path) -> Path:
    """Where lies what the teachers of a training say together."""
    return output / TEACHING_FOLDER / f"{run.name}-teacher.npz"


def configure(run: PlannedRun, options: argparse.Namespace) -> TrainingConfiguration:
    """The settings of a training."""
    said = f"{FILE_PREFIX}{teacher_path(run, options.output)}"
    words = [said if word.startswith("{") else word for word in run.arguments]
    words += ["--data", str(options.data)]
    if options.weights and "--init" not in words:
        model = parse_arguments(words).configuration.model.model
        weights = yaml.safe_load(PROGRAMME_FILE.read_text(encoding="utf-8"))["weights"]
        words += ["--init", str(options.weights / weights[model])]
    configuration = parse_arguments(words).configuration
    if configuration.data.task != "diagnosis":
        raise ConfigurationError("A cross-validation is of all eight diagnoses: use --task diagnosis.")
    return settle(configuration, download=False)


def deciding_settings(configuration: TrainingConfiguration) -> dict[str, Any]:
    """The settings that decide what a training answers: not where it is computed, nor where its files lie."""
    return {
        name: value
        for name, value in configuration.settings.items()
        if name not in FREE_BETWEEN_RUNS and name != "device"
    }


def refuse_other_settings(run: PlannedRun, options: argparse.Namespace) -> None:
    """Raises `ConfigurationError` where a training is done already, and with other settings than now."""
    path = answers_path(run, options.output)
    if not path.is_file():
        return
    there, now = Answers.read(path).about["settings"], deciding_settings(configure(run, options))
    differing = [name for name, value in there.items() if name in now and now[name] != value]
    if differing:
        raise ConfigurationError(
            f"“{path}” was answered with other settings: {', '.join(differing)}. Choose another --output, or give "
            "the arm another name."
        )


class Outcome(Enum):
    """What came of a try to do a training."""

    DONE = "done"
    FAILED = "failed"
    BUSY = "another process is at it"
    TOO_EARLY = "its teachers are not done"


def work_off(runs: Sequence[PlannedRun], options: argparse.Namespace, pool: Pool) -> bool:
    """Does trainings in their order, a student once its teachers are done; returns whether all are done.

    Where nothing is left to do but what waits for other processes, it waits too, and takes over what they leave.
    """
    left, whole = list(runs), True
    while left:
        outcomes: dict[Outcome, PlannedRun] = {}
        for run in left:
            outcome = try_run(run, options, pool)
            if outcome in (Outcome.DONE, Outcome.FAILED):
                left.remove(run)
                whole &= outcome is Outcome.DONE
                break
            outcomes.setdefault(outcome, run)
        else:
            if Outcome.BUSY not in outcomes:
                for run in left:
                    logger.error("%s is left out, since its teachers are not done", run.name)
                return False
            busy = outcomes[Outcome.BUSY]
            logger.info("%s is being done by another process, and is waited for", busy.name)
            lock = _lock_of(busy, options.output)
            with FileLock(lock):
                pass
            if is_done(busy, options.output):
                lock.unlink(missing_ok=True)
    return whole


def try_run(run: PlannedRun, options: argparse.Namespace, pool: Pool) -> Outcome:
    """Does a training unless it is done, another process is at it, or its teachers are not done."""
    path, output = answers_path(run, options.output), options.output
    if is_done(run, output):
        return Outcome.DONE
    if not all(is_done(teacher, output) for teacher in run.teachers):
        return Outcome.TOO_EARLY
    lock = _lock_of(run, output)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            if not is_done(run, output):
                logger.info("%s starts", run.name)
                configuration = configure(run, options)
                join_teachers(run, output)
                perform(run, configuration, pool, output)
        lock.unlink(missing_ok=True)
    except Timeout:
        return Outcome.BUSY
    except DermaDeiTError as error:
        logger.error("%s failed: %s", run.name, error.user_message)
        return Outcome.FAILED
    logger.info("%s is done", run.name)
    # The pixels of a training are as large as the next one's.
    gc.collect()
    return Outcome.DONE


def join_teachers(run: PlannedRun, output: Path) -> None:
    """Writes what the teachers of a training say together, if it has any and that is not there yet."""
    path = teacher_path(run, output)
    if run.teachers and not path.is_file():
        said = [teaching_path(teacher, output) for teacher in run.teachers]
        image_ids, log_probabilities = mean_log_probabilities(said, DIAGNOSIS.classes)
        write_log_probabilities(path, image_ids, DIAGNOSIS.classes, log_probabilities)


def is_done(run: PlannedRun, output: Path) -> bool:
    """Whether a training has answered, about train photos too where it teaches."""
    paths = [answers_path(run, output), *([teaching_path(run, output)] if run.teaches else [])]
    return all(path.is_file() for path in paths)


def _lock_of(run: PlannedRun, output: Path) -> Path:
    return answers_path(run, output).with_suffix(".lock")


@explaining_mistakes
def main(arguments: list[str] | None = None) -> int:
    """Runs the search; returns 0 when all of it is done, 3 when some is not, 2 for a mistake in the call."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parser = argparse.ArgumentParser(
        description="Run the trainings of train/search.yaml.",
        # Unknown options are those of a training, such as --seed beside --seeds.
        allow_abbrev=False,
    )
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with manifest.csv")
    parser.add_argument("--search", type=Path, default=SEARCH_FILE, help="YAML file with the arms")
    parser.add_argument("--output", type=Path, default=Path("runs/search"), help="folder of all answers")
    parser.add_argument("--weights", type=Path, help="folder of pretrained backbones, in place of the Hub")
    parser.add_argument(
        "--seeds", type=int, help="repetitions of each training, in place of the search's; 1 without both"
    )
    parser.add_argument(
        "--only", action="append", help="only trainings of this name, * for any; may be repeated"
    )
    parser.add_argument("--list", action="store_true", help="print the names in their order, and end")
    options, options.extra = parser.parse_known_args(arguments)
    search = yaml.safe_load(options.search.read_text(encoding="utf-8"))
    pool = read_pool(options.data, search)
    runs = [
        run
        for run in plan_runs(search, pool.sources, options.seeds, options.extra)
        if any(fnmatch(run.name, pattern) for pattern in options.only or ["*"])
    ]
    if not runs:
        raise ConfigurationError(f"No training of “{options.search.name}” has such a name. See --list.")
    # Before anything is trained: a mistake in the last arm should not wait for the first ones.
    for run in runs:
        configure(run, options)
        refuse_other_settings(run, options)
    if options.list:
        for run in runs:
            sys.stdout.write(f"{run.name}\n")
        return 0
    require_folder(options.output)
    pool.images.keep(options.output)
    return 0 if work_off(runs, options, pool) else 3


if __name__ == "__main__":
    sys.exit(main())
