"""Batches of a training: how often images are drawn."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from dermadeit.data.dataset import LesionDataset
from dermadeit.data.manifest import Manifest, ManifestRow
from dermadeit.imaging.preprocessing import Preprocessing
from dermadeit.tasks import BINARY
from train.configuration import TrainingConfiguration
from train.loaders import create_train_loader

# In the east nine of ten are nevi, in the west a quarter; the north has nothing else.
COUNTS = {
    ("east", "nevus"): 90, ("east", "others"): 10, ("west", "nevus"): 10, ("west", "others"): 30,
    ("north", "nevus"): 20,
}  # fmt: skip


@pytest.fixture
def dataset(monkeypatch: pytest.MonkeyPatch) -> LesionDataset:
    rows = [
        ManifestRow(f"{source}-{label}-{index}", "x.png", Path("x.png"), label, "train", "", source)
        for (source, label), count in COUNTS.items()
        for index in range(count)
    ]
    made = LesionDataset(Manifest(BINARY, tuple(rows), ()), Preprocessing(1))
    monkeypatch.setattr(made, "_pixels", lambda index: torch.zeros(3, 1, 1, dtype=torch.uint8))
    return made


def _drawn(dataset: LesionDataset, balancing: str, epochs: int = 60) -> Counter:
    """Source and class to how often it is drawn, as a share."""
    configuration = TrainingConfiguration.create(model="deit", teacher="none", class_balancing=balancing)
    loader = create_train_loader(dataset, configuration, torch.Generator().manual_seed(0))
    found: Counter = Counter()
    for _ in range(epochs):
        for _, _, indices in loader:
            rows = [dataset.manifest.rows[index] for index in indices.tolist()]
            found.update((row.source, row.label) for row in rows)
    return Counter({key: count / found.total() for key, count in found.items()})


def _share(drawn: Counter, name: str) -> float:
    return sum(share for key, share in drawn.items() if name in key)


def test_without_balancing_the_data_are_followed(dataset: LesionDataset) -> None:
    drawn = _drawn(dataset, "none")
    for key, count in COUNTS.items():
        assert drawn[key] == pytest.approx(count / len(dataset), abs=0.02)


def test_a_sampler_draws_classes_equally_often(dataset: LesionDataset) -> None:
    drawn = _drawn(dataset, "sampler")
    assert _share(drawn, "others") == pytest.approx(0.5, abs=0.03)


def test_sources_are_drawn_equally_often_with_their_own_classes(dataset: LesionDataset) -> None:
    drawn = _drawn(dataset, "source")
    for source in ("east", "west", "north"):
        assert _share(drawn, source) == pytest.approx(1 / 3, abs=0.03)
    assert drawn["west", "others"] / _share(drawn, "west") == pytest.approx(0.75, abs=0.03)


def test_within_sources_classes_are_drawn_as_often_as_in_all(dataset: LesionDataset) -> None:
    drawn = _drawn(dataset, "class_within_source")
    for source in ("east", "west"):
        assert drawn[source, "others"] / _share(drawn, source) == pytest.approx(0.25, abs=0.03)
    for source, share in (("east", 100 / 160), ("west", 40 / 160), ("north", 20 / 160)):
        assert _share(drawn, source) == pytest.approx(share, abs=0.03)
