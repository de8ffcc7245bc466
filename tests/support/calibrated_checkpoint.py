"""A calibrated predictor with random weights, for the tests of what only a calibrated one shows."""

from functools import cache
from pathlib import Path

from dermadeit.data.manifest import read_source
from dermadeit.evaluation.calibrate import fit_trust
from dermadeit.inference.predictor import Predictor
from dermadeit.models.checkpoints import load_checkpoint
from dermadeit.tasks import BINARY
from dermadeit.trust.files import write_trust

PHOTOS = 52


@cache
def calibrated_predictor(checkpoint_root: Path, synthetic_data: Path) -> Predictor:
    """Calibrates a copy of the binary checkpoint on synthetic photos that are labelled at random.

    Args:
        checkpoint_root: The fixture.
        synthetic_data: The fixture; half of its first photos calibrate, the others are the similar cases.
    """
    folder = checkpoint_root.with_name(f"{checkpoint_root.name}-calibrated")
    folder.mkdir()
    lines = ["image_id,file,label,lesion_group,split"]
    for index, path in enumerate(sorted((synthetic_data / "images").iterdir())[:PHOTOS]):
        split = ("train", "calibration")[index % 2]
        label = BINARY.classes[index // 2 % 2]
        lines.append(f"ISIC_{index:07d},{path.name},{label},{split} {index},{split}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    for name in ("model.safetensors", "config.json"):
        (folder / name).write_bytes((checkpoint_root / "binary" / "dermadeit" / name).read_bytes())
    manifest = read_source(folder / "table.csv", BINARY, synthetic_data / "images")
    cases, predictor = manifest.select("train"), Predictor(load_checkpoint(folder))
    write_trust(folder, fit_trust(manifest.select("calibration"), cases, predictor))
    return Predictor(load_checkpoint(folder))
