"""A network of all eight diagnoses with random weights, calibrated, for the tests of its readings."""

from functools import cache
from pathlib import Path

import torch

from dermadeit.data.manifest import Manifest, read_source
from dermadeit.evaluation.calibrate import fit_trust
from dermadeit.imaging.preprocessing import Preprocessing
from dermadeit.inference.predictor import Predictor
from dermadeit.models.checkpoints import load_checkpoint, save_checkpoint
from dermadeit.models.classifier import create_classifier
from dermadeit.tasks import DIAGNOSES, DIAGNOSIS
from dermadeit.trust.files import write_trust

SIZE = 64
LESIONS = 11
"""Of each diagnosis: six calibrate and five validate, which is one more than a class needs."""

VIEWS = 2


def eight_diagnoses_root(synthetic_data: Path, *, calibrated: bool = True) -> Path:
    """A folder with the checkpoint as `dermadeit/`, and beside it `table.csv` with photos labelled at random.

    Args:
        synthetic_data: The fixture.
        calibrated: Whether to calibrate it on them.
    """
    # To the cache, an argument that is left out is another call.
    return _make_root(synthetic_data, calibrated)


@cache
def _make_root(synthetic_data: Path, calibrated: bool) -> Path:
    root = synthetic_data.with_name(f"eight-diagnoses-{calibrated}")
    torch.manual_seed(0)
    classifier = create_classifier("dermadeit", len(DIAGNOSIS.classes), image_size=SIZE)
    # Random weights alone would say the same of every photo.
    torch.nn.init.normal_(classifier.head.weight, std=0.3)
    folder = root / "dermadeit"
    save_checkpoint(folder, classifier, DIAGNOSIS, Preprocessing(SIZE))
    names = list(DIAGNOSES)
    lines = ["image_id,file,diagnosis,lesion_group,split"]
    photos = sorted((synthetic_data / "images").iterdir())[: LESIONS * len(names)]
    for index, path in enumerate(photos):
        split = "calibration" if index // len(names) < 6 else "validation"
        lines.append(f"image{index},{path.name},{names[index % len(names)]},lesion{index},{split}")
    (root / "table.csv").write_text("\n".join(lines) + "\n")
    if calibrated:
        whole = labelled_photos(synthetic_data, root)
        predictor = Predictor(load_checkpoint(folder))
        trust = fit_trust(
            whole.select("calibration"), None, predictor, validation=whole.select("validation"), views=VIEWS
        )
        write_trust(folder, trust)
    return root


def labelled_photos(synthetic_data: Path, root: Path) -> Manifest:
    """The photos of `table.csv` beside a checkpoint."""
    return read_source(root / "table.csv", DIAGNOSIS, synthetic_data / "images")
