"""The data of a training: its manifest, and batches of its images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, WeightedRandomSampler

from dermadeit.data.dataset import LesionDataset, collate
from dermadeit.data.manifest import Manifest, check_leaks, read_source
from dermadeit.data.own_classes import read_own_task
from dermadeit.errors import ConfigurationError, ErrorCode, TableError
from dermadeit.tasks import BINARY, OWN, get_task
from train.configuration import DataSettings, TrainingConfiguration
from train.data.splitting import DEFAULT_SHARES, advise_shares
from train.original import OriginalDataset, SeededDraws


def find_manifest(folder: Path) -> Path:
    """A data folder's manifest; raises `ConfigurationError` with the command that makes one."""
    path = folder / "manifest.csv"
    if not path.is_file():
        raise ConfigurationError(
            f"There is no manifest.csv in the data folder “{folder}”. Get ISIC 2019 (10 GB) with: python "
            "train/distill.py --download. If you have data already, name its folder with --data or "
            "DERMADEIT_DATA.",
            code=ErrorCode.NO_DATA,
        )
    return path


def load_manifest(settings: DataSettings) -> Manifest:
    """Reads the data folder's manifest.

    Raises:
        ConfigurationError: There is none.
        TableError: It contradicts itself, a lesion crosses splits, or a split lacks a class.
    """
    path = find_manifest(settings.folder)
    task = read_own_task(path) if settings.task == OWN else get_task(settings.task)
    manifest = read_source(path, task)
    if not settings.allow_leaks:
        check_leaks(manifest)
    for split in ("train", "validation"):
        counts = Counter(row.label for row in manifest.rows if row.split == split)
        missing = [key for key in manifest.task.classes if not counts[key]]
        if missing:
            raise TableError(
                f"The split “{split}” has no image of the class {', '.join(missing)}. Every class must be in "
                f"train and validation. {_advice(manifest, path)}",
                code=ErrorCode.MISSING_CLASS,
            )
    return manifest


def _advice(manifest: Manifest, path: Path) -> str:
    label_of = {row.image_id: row.label for row in manifest.rows}
    absent = [key for key in manifest.task.classes if key not in label_of.values()]
    if absent:
        return f"The whole table has no image of {', '.join(absent)}."
    # Images outside the task are split with the others, and every diagnosis has a class in this one.
    rows = manifest.rows if manifest.task.key == OWN else read_source(path, BINARY).rows
    return advise_shares(
        [row.lesion_group for row in rows],
        [(row.metadata.get("diagnosis") or row.label, row.source) for row in rows],
        [label_of.get(row.image_id, "") for row in rows],
        DEFAULT_SHARES,
        seed=0,
    )


def create_train_loader(
    dataset: LesionDataset | OriginalDataset,
    configuration: TrainingConfiguration,
    generator: torch.Generator,
    *,
    processes: int = 1,
    process: int = 0,
) -> DataLoader:
    """Batches in random order; where `class_balancing` asks for that, drawn with replacement.

    Args:
        dataset: The train split.
        configuration: Gives batch size, accumulation, balancing and workers.
        generator: Decides the order; the same state in every process.
        processes: Processes that share each batch.
        process: Which of them this is, from 0.

    Raises:
        ConfigurationError: The batch can't be shared evenly.
    """
    settings = configuration.optimisation
    batch_size, rest = divmod(settings.batch_size // settings.accumulation, processes)
    if rest or not batch_size:
        raise ConfigurationError(
            f"A batch of {settings.batch_size} can't be shared evenly by {processes} processes in "
            f"{settings.accumulation} passes. Choose another --batch-size."
        )
    images = settings.epoch_steps * settings.batch_size or len(dataset)
    if configuration.data.class_balancing != "none":
        weights = sampling_weights(configuration.data.class_balancing, dataset)
        sampler = WeightedRandomSampler(weights.tolist(), images, generator=generator)
    else:
        sampler = RandomSampler(dataset, num_samples=images, generator=generator)
    draws: Any = sampler
    if isinstance(dataset, OriginalDataset):
        # Pairs, where a sampler of torch's gives numbers.
        draws = SeededDraws(sampler, generator)
    drop_last = images > batch_size * processes
    batches = BatchSampler(draws, batch_size * processes, drop_last)
    return DataLoader(
        dataset,
        batch_sampler=BatchSamplerShard(batches, processes, process, split_batches=True),
        num_workers=configuration.data.workers,
        collate_fn=collate,
        generator=generator,
    )


def sampling_weights(balancing: str, dataset: LesionDataset | OriginalDataset) -> torch.Tensor:
    """How often each image is drawn, up to a common factor: float64 [N].

    Args:
        balancing: `sampler` draws every class equally often, `source` every source. `class_within_source` draws
            the classes of a source in the proportions that they have in all images, as far as the source has
            them, and each source as often as without it: knowing the source is then no help to guess the class.
        dataset: N labelled images.
    """
    labels = dataset.labels
    if balancing == "sampler":
        return (1 / torch.bincount(labels).double())[labels]
    names = [row.source for row in dataset.manifest.rows]
    known = {name: index for index, name in enumerate(sorted(set(names)))}
    sources = torch.tensor([known[name] for name in names])
    of_source = torch.bincount(sources).double()
    if balancing == "source":
        return (1 / of_source)[sources]
    table = torch.zeros(len(known), int(labels.max()) + 1, dtype=torch.double)
    table.index_put_((sources, labels), torch.ones(len(labels), dtype=torch.double), accumulate=True)
    wanted = table.sum(dim=0) * (table > 0)
    wanted *= (of_source / wanted.sum(dim=1))[:, None]
    return (wanted / table.clamp_min(1))[sources, labels]
