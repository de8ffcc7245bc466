import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from repository import ROOT

from dermadeit.data.synthetic import (
    MANIFEST_COLUMNS,
    SKIN_TONES,
    SPLITS,
    random_recipe,
    render_lesion,
    write_dataset,
)
from dermadeit.data.tabular import read_csv
from dermadeit.errors import ConfigurationError
from dermadeit.imaging.decode import decode_image
from dermadeit.tasks import DIAGNOSES

COMMITTED = ROOT / "tests" / "pictures"

PICTURES: dict[str, tuple[str, int, dict]] = {
    "synthetic_nevus": ("NV", 3, {"skin": SKIN_TONES[1], "border": 0.25, "hairs": 0}),
    "synthetic_melanoma_like": ("MEL", 0, {"skin": SKIN_TONES[1], "veil": 0.6, "hairs": 0}),
    "synthetic_bcc_like": ("BCC", 2, {"skin": SKIN_TONES[0], "hairs": 0}),
    "synthetic_scc_like": ("SCC", 4, {"skin": SKIN_TONES[1], "hairs": 0}),
    "synthetic_nevus_dark_skin": (
        "NV",
        5,
        {"skin": SKIN_TONES[4], "colours": ((72, 46, 36),), "radius": 0.27},
    ),
    "synthetic_nevus_with_hair": ("NV", 7, {"skin": SKIN_TONES[2], "hairs": 14}),
}
"""File stem to diagnosis, seed and fixed fields of the pictures in `COMMITTED`."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    return write_dataset(folder, lesions=40, seed=3, size=(96, 80))


@pytest.mark.parametrize("diagnosis", DIAGNOSES)
def test_same_recipe_gives_the_same_pixels(diagnosis):
    recipe = random_recipe(np.random.default_rng(1), diagnosis)
    assert recipe == random_recipe(np.random.default_rng(1), diagnosis)
    first, second = render_lesion(recipe, (120, 100)), render_lesion(recipe, (120, 100))
    assert (first.mode, first.size, first.info) == ("RGB", (120, 100), {})
    assert first.tobytes() == second.tobytes()
    assert (
        first.tobytes()
        != render_lesion(random_recipe(np.random.default_rng(2), diagnosis), (120, 100)).tobytes()
    )


@pytest.mark.parametrize("diagnosis", DIAGNOSES)
def test_lesion_differs_from_the_skin_around_it(diagnosis):
    rng = np.random.default_rng(4)
    for _ in range(5):
        pixels = np.asarray(render_lesion(random_recipe(rng, diagnosis), (128, 128))).astype(float)
        centre, rim = pixels[48:80, 48:80].mean((0, 1)), pixels[8:16, 40:88].mean((0, 1))
        assert np.abs(centre - rim).max() > 5


def test_diagnoses_can_be_told_apart_by_colour():
    rng = np.random.default_rng(5)

    def redness(diagnosis):
        pixels = [
            np.asarray(render_lesion(random_recipe(rng, diagnosis), (96, 96)))[32:64, 32:64]
            for _ in range(12)
        ]
        red, _, blue = np.mean(pixels, axis=(0, 1, 2))
        return red / blue

    assert redness("VASC") > redness("MEL")


def test_unknown_diagnosis():
    with pytest.raises(KeyError):
        random_recipe(np.random.default_rng(0), "FLU")


def test_manifest_matches_the_files(dataset):
    table = read_csv(dataset)
    assert table.columns == MANIFEST_COLUMNS
    assert len({row["image_id"] for row in table.rows}) == len(table.rows)
    for row in table.rows:
        image = decode_image(dataset.parent / row["file"])
        assert image.sha256 == row["sha256"]
        assert (image.width, image.height) == (int(row["width"]), int(row["height"])) == (96, 80)
    assert {Path(row["file"]).suffix for row in table.rows} == {".jpg", ".png"}


def test_splits_are_by_lesion_and_hold_every_diagnosis(dataset):
    rows = read_csv(dataset).rows
    assert {(row["split"], row["diagnosis"]) for row in rows} == {(s, d) for s in SPLITS for d in DIAGNOSES}
    assert (
        len({(row["lesion_id"], row["split"]) for row in rows})
        == len({row["lesion_id"] for row in rows})
        == 40
    )
    assert len(rows) > 40


def test_same_seed_gives_the_same_dataset(tmp_path):
    one = write_dataset(tmp_path / "one", lesions=32, seed=9, size=(64, 64))
    two = write_dataset(tmp_path / "two", lesions=33, seed=9, size=(64, 64))
    other = write_dataset(tmp_path / "other", lesions=32, seed=10, size=(64, 64))
    assert two.read_bytes().startswith(one.read_bytes())
    assert one.read_bytes() != other.read_bytes()


def test_too_few_lesions(tmp_path):
    with pytest.raises(ConfigurationError, match="at least 32"):
        write_dataset(tmp_path, lesions=31, seed=0)


@pytest.mark.slow
def test_program(tmp_path):
    command = [
        sys.executable,
        "-m",
        "dermadeit.data.synthetic",
        str(tmp_path / "made"),
        "--lesions",
        "32",
        "--seed",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "32 lesions" in done.stderr
    assert len(read_csv(tmp_path / "made" / "manifest.csv").rows) >= 32
    assert subprocess.run([*command[:5], "1"], capture_output=True, check=False).returncode == 2


def test_committed_pictures_are_what_the_generator_writes(tmp_path):
    assert {path.stem for path in COMMITTED.glob("*.jpg")} == PICTURES.keys()
    for name, (diagnosis, seed, changes) in PICTURES.items():
        recipe = replace(random_recipe(np.random.default_rng(seed), diagnosis), **changes)
        committed, path = COMMITTED / f"{name}.jpg", tmp_path / f"{name}.jpg"
        render_lesion(recipe, (600, 450)).save(path, quality=88, optimize=True)
        assert committed.stat().st_size < 80_000
        with Image.open(io.BytesIO(committed.read_bytes())) as picture:
            assert (picture.size, "exif" in picture.info) == ((600, 450), False)
        # Not byte for byte: another libjpeg may round otherwise.
        difference = decode_image(committed).pixels.astype(int) - decode_image(path).pixels
        assert np.abs(difference).mean() < 2
