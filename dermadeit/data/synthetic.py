"""Self-made synthetic pictures that look like dermoscopy: the app's examples and the tests' data.

They show no patient. Each diagnosis is drawn with its textbook signs, exaggerated enough for a classifier to
learn something from them; nothing measured on them says anything about real skin.

Run as a program: ``python -m dermadeit.synthetic FOLDER --lesions N --seed S``.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dermadeit.data.manifest import SPLITS
from dermadeit.data.tabular import write_csv
from dermadeit.errors import ConfigurationError, ErrorCode
from dermadeit.files import file_sha256
from dermadeit.imaging.rendering import LesionRecipe, render_lesion
from dermadeit.tasks import DIAGNOSES

MANIFEST_COLUMNS = (
    "image_id", "file", "dataset", "diagnosis", "lesion_id", "lesion_group", "sex", "age", "anatomic_site",
    "width", "height", "split", "sha256",
)  # fmt: skip

SKIN_TONES = (
    (236, 200, 186), (228, 184, 164), (214, 164, 138), (190, 136, 106), (150, 102, 76), (104, 70, 54),
)  # fmt: skip
"""sRGB skin colours from light to dark, after the six Fitzpatrick types."""

_SITES = ("anterior torso", "posterior torso", "head/neck", "upper extremity", "lower extremity")
_SPLIT_SHARES = (0.6, 0.1, 0.1, 0.2)

logger = logging.getLogger(__name__)


# Ranges from which `random_recipe` draws, a pair of lowest and highest value for each field that differs from
# the defaults. Sources of the signs: the pattern analysis of dermoscopy textbooks.
_LOOKS: dict[str, dict[str, tuple[float, float]]] = {
    "NV": {"irregularity": (0.02, 0.08), "border": (0.12, 0.25), "network": (0.4, 0.8), "dots": (0, 30)},
    "MEL": {
        "irregularity": (0.12, 0.24), "border": (0.1, 0.22), "network": (0.3, 0.7), "dots": (30, 90),
        "veil": (0.4, 0.8), "radius": (0.26, 0.36), "elongation": (1.1, 1.5),
    },
    "BCC": {
        "irregularity": (0.05, 0.15), "border": (0.15, 0.3), "strength": (0.5, 0.7), "vessels": (5, 10),
        "dots": (0, 8), "scar": (0.0, 0.3),
    },
    "AK": {"irregularity": (0.1, 0.2), "border": (0.3, 0.5), "strength": (0.35, 0.55), "scale": (0.2, 0.4)},
    "BKL": {
        "irregularity": (0.08, 0.2), "border": (0.08, 0.14), "strength": (0.6, 0.85), "cysts": (8, 25),
        "dots": (5, 25),
    },
    "DF": {
        "irregularity": (0.02, 0.08), "border": (0.3, 0.45), "strength": (0.5, 0.7), "network": (0.3, 0.5),
        "scar": (0.4, 0.65), "radius": (0.2, 0.3),
    },
    "VASC": {
        "irregularity": (0.03, 0.12), "border": (0.12, 0.22), "strength": (0.65, 0.85), "lacunae": (10, 25),
        "radius": (0.18, 0.32),
    },
    "SCC": {"irregularity": (0.1, 0.2), "border": (0.15, 0.3), "strength": (0.6, 0.8), "scale": (0.7, 1.0)},
}  # fmt: skip

_PALETTES: dict[str, tuple[tuple[tuple[int, int, int], ...], ...]] = {
    "NV": (((142, 92, 62),), ((122, 76, 50),), ((156, 106, 76),)),
    "MEL": (
        ((124, 80, 56), (62, 42, 36), (154, 96, 78)),
        ((104, 68, 50), (50, 36, 34), (132, 86, 64)),
    ),
    "BCC": (((222, 142, 136), (232, 172, 162)), ((214, 132, 124), (226, 160, 150), (120, 100, 110))),
    "AK": (((218, 130, 118), (226, 150, 132)),),
    "BKL": (((146, 108, 72), (112, 80, 56)), ((166, 128, 92), (128, 94, 70))),
    "DF": (((172, 122, 96),), ((158, 108, 86),)),
    "VASC": (((170, 60, 62), (122, 38, 56)), ((150, 48, 58), (98, 40, 66))),
    "SCC": (((214, 128, 118), (186, 88, 82)), ((222, 142, 128), (198, 104, 92))),
}
_PIGMENTED = {"MEL", "NV", "BKL", "DF"}
_WHOLE_NUMBERS = {"dots", "vessels", "lacunae", "cysts"}


def random_recipe(rng: np.random.Generator, diagnosis: str) -> LesionRecipe:
    """Draws a recipe with the signs of a diagnosis.

    Args:
        rng: Source of randomness; advanced.
        diagnosis: One of `tasks.DIAGNOSES`.

    Returns:
        The recipe. Raises `KeyError` for another diagnosis.
    """
    ranges = {"radius": (0.22, 0.36), "elongation": (1.0, 1.35), "vignette": (0.1, 0.5)} | _LOOKS[diagnosis]
    drawn: dict[str, Any] = {name: rng.uniform(*bounds) for name, bounds in ranges.items()}
    drawn |= {name: round(drawn[name]) for name in _WHOLE_NUMBERS & drawn.keys()}
    tone = rng.choice(len(SKIN_TONES), p=(0.22, 0.28, 0.2, 0.14, 0.1, 0.06))
    skin = np.clip(np.array(SKIN_TONES[tone]) + rng.normal(0, 5) + rng.normal(0, 2, 3), 0, 255)
    palette = _PALETTES[diagnosis][rng.integers(len(_PALETTES[diagnosis]))]
    # On dark skin pigment must look darker than what surrounds it, while inflamed skin stays a little lighter.
    light = min(1.0, skin.mean() / 190)
    shade = light if diagnosis in _PIGMENTED else 0.45 + 0.55 * light
    colours = np.clip(
        np.array(palette) * shade + rng.normal(0, 6) + rng.normal(0, 2.5, (len(palette), 3)), 0, 255
    )
    return LesionRecipe(
        seed=int(rng.integers(2**31)),
        skin=tuple(skin.astype(int).tolist()),
        colours=tuple(tuple(colour) for colour in colours.astype(int).tolist()),
        hairs=int(rng.integers(4, 25)) if rng.random() < 0.3 else 0,
        **drawn,
    )


def write_dataset(
    folder: Path,
    *,
    lesions: int,
    seed: int,
    images_per_lesion: tuple[int, int] = (1, 2),
    size: tuple[int, int] = (256, 256),
) -> Path:
    """Writes pictures and their manifest, the same bytes for the same arguments and Pillow version.

    Args:
        folder: Gets ``images/`` and ``manifest.csv``; created when missing.
        lesions: Number of lesions, at least one for each diagnosis and split (32).
        seed: 0 or more.
        images_per_lesion: Fewest and most pictures of a lesion.
        size: Width and height of the pictures in pixels.

    Returns:
        The path of the manifest, whose files are relative to `folder`.

    Raises:
        ConfigurationError: There are too few lesions to have every diagnosis in every split.
    """
    fewest = len(DIAGNOSES) * len(SPLITS)
    if lesions < fewest:
        raise ConfigurationError(
            f"{lesions} lesions are too few: every diagnosis in every split takes at least {fewest}.",
            code=ErrorCode.TOO_FEW_LESIONS,
        )
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for lesion in range(lesions):
        # Its own generator for each lesion, so that a larger dataset starts with the smaller one.
        rng = np.random.default_rng((seed, lesion))
        details = _describe_lesion(rng, lesion)
        recipe = random_recipe(rng, str(details["diagnosis"]))
        for view in range(int(rng.integers(images_per_lesion[0], images_per_lesion[1] + 1))):
            if view:
                recipe = replace(recipe, hairs=int(rng.integers(0, 12)), vignette=rng.uniform(0.1, 0.5))
            picture = render_lesion(recipe, size)
            if view % 2:
                picture = picture.transpose(Image.Transpose.ROTATE_180)
            name = f"SYN_{lesion:05d}_{view}"
            rows.append(details | _save(picture, folder, name, "png" if lesion % 5 == 4 else "jpg"))
    manifest = folder / "manifest.csv"
    write_csv(manifest, MANIFEST_COLUMNS, rows)
    return manifest


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m dermadeit.data.synthetic``."""
    parser = argparse.ArgumentParser(description="Writes a synthetic dermoscopy-like dataset.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lesions", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        manifest = write_dataset(options.folder, lesions=options.lesions, seed=options.seed)
    except ConfigurationError as error:
        parser.error(error.user_message)
    logger.info("Wrote %d lesions and %s", options.lesions, manifest)


def _describe_lesion(rng: np.random.Generator, lesion: int) -> dict[str, str | int]:
    turn, kind = divmod(lesion, len(DIAGNOSES))
    return {
        "dataset": "synthetic",
        "diagnosis": tuple(DIAGNOSES)[kind],
        "lesion_id": f"SYNL_{lesion:05d}",
        "lesion_group": f"SYNL_{lesion:05d}",
        "sex": str(rng.choice(("female", "male"))),
        "age": int(rng.integers(4, 18)) * 5,
        "anatomic_site": str(rng.choice(_SITES)),
        # The first lesions of a diagnosis go to one split each, so that none is without it.
        "split": SPLITS[turn] if turn < len(SPLITS) else str(rng.choice(SPLITS, p=_SPLIT_SHARES)),
    }


def _save(picture: Image.Image, folder: Path, name: str, suffix: str) -> dict[str, str | int]:
    file = f"images/{name}.{suffix}"
    options: dict[str, Any] = {"quality": 92} if suffix == "jpg" else {}
    picture.save(folder / file, **options)
    return {
        "image_id": name,
        "file": file,
        "width": picture.width,
        "height": picture.height,
        "sha256": file_sha256(folder / file),
    }


if __name__ == "__main__":
    main()
