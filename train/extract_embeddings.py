"""Fill the cache of a teacher's embeddings, once, before students are trained on them.

    python -m train.extract_embeddings --teacher monet --data DATA --views 8

Several processes share the work: on GPUs with “accelerate launch --num_processes 2” in place of “python”, on CPUs
with “torchrun --standalone --nproc_per_node 2” (“accelerate launch --cpu” starts a single one).

What is already there is kept, so the same command continues a run that was cut off. The data folder (`--data`,
else DERMADEIT_DATA, else data/) holds manifest.csv and the images that it names.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import compress
from pathlib import Path

import torch
from accelerate import PartialState

from dermadeit.data.manifest import SPLITS, Manifest, read_source
from dermadeit.errors import ConfigurationError, TableError
from dermadeit.files import require_folder
from dermadeit.imaging.preprocessing import DIHEDRAL_VIEWS
from dermadeit.tasks import DIAGNOSIS, TASKS, get_task
from train.command_line import explaining_mistakes
from train.loaders import find_manifest
from train.teachers.cache import BATCH_IMAGES, SHARD_IMAGES, TeacherCache, teacher_cache_folder
from train.teachers.networks import Teacher, create_teachers, unseen

logger = logging.getLogger("train.extract_embeddings")

LONGEST_WAIT = timedelta(days=7)
"""How long a process waits for the slowest; torch gives up after minutes, and a shard can take an hour."""


@explaining_mistakes
def main(arguments: Sequence[str] | None = None) -> int:
    """Fills the caches; returns the exit code: 0, or 2 for a mistake that the message explains."""
    options = _parse(arguments)
    require_folder(options.output)
    state = PartialState(cpu=_wants_cpu(options.device), timeout=LONGEST_WAIT)
    level = logging.INFO if state.is_main_process else logging.ERROR
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    extract(options, state)
    state.destroy_process_group()
    return 0


def extract(options: argparse.Namespace, state: PartialState) -> None:
    """Embeds the split with each of the teachers; every process takes its share of the missing shards.

    Raises:
        DermaDeiTError: The data, the teacher or the cache can't be used.
    """
    manifest = _read_manifest(options)
    assert state.device is not None
    teachers = create_teachers(options.teacher, state.device)
    if not teachers:
        raise ConfigurationError("The teacher “none” has no embeddings. Name another with --teacher.")
    views = range(options.views)
    for teacher in teachers:
        rows = tuple(compress(manifest.rows, unseen(teacher, manifest)))
        _fill(teacher, replace(manifest, rows=rows), views, options, state)


def _fill(
    teacher: Teacher, manifest: Manifest, views: range, options: argparse.Namespace, state: PartialState
) -> None:
    folder = teacher_cache_folder(options.output, teacher, views)
    # The first process writes the header and clears damaged shards away, then all see the same.
    with state.main_process_first():
        cache = TeacherCache(teacher, views, folder, options.shard_images)
        missing = cache.missing(manifest)
    state.wait_for_everyone()
    share = missing[state.process_index :: state.num_processes]
    cache.fill(share, options.batch_size, show_progress=state.is_main_process)
    state.wait_for_everyone()
    logger.info("%s: %d images in %d views are in %s", teacher.name, len(manifest.rows), len(views), folder)


def _read_manifest(options: argparse.Namespace) -> Manifest:
    path = find_manifest(options.data)
    try:
        return read_source(path, get_task(options.task)).select(options.split)
    except TableError as error:
        raise TableError(
            f"{error.user_message} The table was read for the task “{options.task}”; a table with the labels of "
            "another is read with --task.",
            code=error.code,
        ) from error


def _wants_cpu(device: str) -> bool:
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("There is no CUDA device here. Use --device cpu or auto.")
    return device == "cpu" or not torch.cuda.is_available()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fill the cache of a teacher's embeddings.")
    parser.add_argument("--teacher", required=True, help="as in train/distill.py, such as monet")
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("DERMADEIT_DATA", "data")), metavar="FOLDER"
    )
    parser.add_argument(
        "--views",
        type=int,
        choices=range(1, DIHEDRAL_VIEWS + 1),
        default=DIHEDRAL_VIEWS,
        help="quarter turns first, then their mirror images",
    )
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument(
        "--task",
        choices=TASKS,
        default=DIAGNOSIS.key,
        help="whose images; the cache of all diagnoses serves every task",
    )
    parser.add_argument("--output", type=Path, default=Path("runs/teacher_cache"), metavar="FOLDER")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--batch-size", type=_at_least_one, default=BATCH_IMAGES, metavar="IMAGES")
    parser.add_argument(
        "--shard-images",
        type=_at_least_one,
        default=SHARD_IMAGES,
        metavar="IMAGES",
        help="the unit of resuming",
    )
    return parser.parse_args(arguments)


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
