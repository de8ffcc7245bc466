"""The data of a training: its manifest, and batches of its images."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader, WeightedRandomSampler

from dermadeit.datasets import LesionDataset, collate
from dermadeit.errors import ConfigurationError, ManifestError
from dermadeit.manifest import Manifest, check_leaks, read_source
from dermadeit.tasks import get_task
from train.configuration import TrainingConfiguration


def load_manifest(configuration: TrainingConfiguration) -> Manifest:
    """Reads the data folder's manifest.

    Raises:
        ConfigurationError: There is none.
        ManifestError: It contradicts itself, a lesion crosses splits, or a split lacks a class.
    """
    folder = configuration.data_folder
    if not (folder / "manifest.csv").is_file():
        raise ConfigurationError(
            f"There is no manifest.csv in the data folder “{folder}”. Name the folder with --data or "
            "DERMADEIT_DATA, or make a synthetic one with: python -m dermadeit.synthetic data",
            code="no_data",
        )
    manifest = read_source(folder / "manifest.csv", get_task(configuration.task))
    if not configuration.allow_leaks:
        check_leaks(manifest)
    for split in ("train", "validation"):
        missing = [key for key, count in manifest.select(split).class_counts.items() if not count]
        if missing:
            raise ManifestError(
                f"The split “{split}” has no image of the class {', '.join(missing)}. Every class must be in "
                "train and validation.",
                code="missing_class",
            )
    return manifest


def create_train_loader(
    dataset: LesionDataset, configuration: TrainingConfiguration, generator: torch.Generator
) -> DataLoader:
    """Batches in random order; `sampler` balancing draws every class equally often, with replacement."""
    sampler = None
    if configuration.class_balancing == "sampler":
        weights = (1 / torch.bincount(dataset.labels).double())[dataset.labels]
        sampler = WeightedRandomSampler(weights, len(dataset), generator=generator)
    return DataLoader(
        dataset,
        batch_size=configuration.batch_size,
        sampler=sampler,
        shuffle=sampler is None,
        drop_last=len(dataset) > configuration.batch_size,
        num_workers=configuration.workers,
        collate_fn=collate,
        generator=generator,
    )
