"""Training sees exactly the pixels that serving sees."""

from pathlib import Path

import pytest
import torch

from dermadeit.data.dataset import LesionDataset, collate
from dermadeit.data.manifest import read_source
from dermadeit.errors import TableError
from dermadeit.imaging.decode import decode_image
from dermadeit.imaging.preprocessing import Preprocessing
from dermadeit.tasks import get_task

BINARY = get_task("binary")


@pytest.mark.parametrize("cache_bytes", [0, 2**30])
def test_training_and_serving_prepare_an_image_alike(synthetic_data: Path, cache_bytes: int) -> None:
    manifest = read_source(synthetic_data / "manifest.csv", BINARY)
    preprocessing = Preprocessing(64)
    dataset = LesionDataset(manifest, preprocessing, cache_bytes)
    for _ in range(2):
        pixels, labels, indices = collate([dataset[0], dataset[5]])
        trained_on = preprocessing.normalise(pixels)
        served = torch.stack(
            [preprocessing(decode_image(manifest.rows[index].path).pixels) for index in (0, 5)]
        )
        assert torch.equal(trained_on, served)
    assert indices.tolist() == [0, 5]
    assert labels.tolist() == [BINARY.index_of(manifest.rows[index].label) for index in (0, 5)]


def test_a_bad_training_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "labels.csv").write_text("file,label\nbad.jpg,nevus\n")
    dataset = LesionDataset(read_source(tmp_path / "labels.csv", BINARY), Preprocessing(64))
    with pytest.raises(TableError, match=r"bad\.jpg"):
        dataset[0]
