"""Exported networks give our answers: in onnxruntime, OpenVINO, transformers, and by the documented program."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from eight_diagnoses import VIEWS, eight_diagnoses_root
from PIL import Image
from repository import ROOT
from transformers import pipeline

from dermadeit.errors import ConfigurationError, ModelError
from dermadeit.imaging.decode import decode_image
from dermadeit.inference.predictor import Predictor, load_predictor
from dermadeit.models.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from dermadeit.models.runtimes.openvino_import import openvino as import_openvino
from dermadeit.publishing.exports import (
    check_parity,
    example_photos,
    export_onnx,
    export_openvino,
    onnx_runner,
)
from dermadeit.publishing.transformers_export import export_transformers

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkpoint(synthetic_data: Path) -> Checkpoint:
    """A calibrated network of eight diagnoses."""
    return load_checkpoint(eight_diagnoses_root(synthetic_data) / "dermadeit")


@pytest.fixture(scope="module")
def exported(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its ONNX file."""
    folder = tmp_path_factory.mktemp("onnx")
    assert export_onnx(checkpoint, folder, VIEWS) <= 1e-4
    return folder / "model.onnx"


def test_onnx_gives_our_logits_and_probabilities(
    checkpoint: Checkpoint, exported: Path, lesion_files: list[Path]
) -> None:
    records = Predictor(checkpoint).predict(lesion_files, VIEWS)
    prepare = checkpoint.preprocessing
    pixels = np.stack(
        [prepare.resize(decode_image(path).pixels).permute(1, 2, 0).numpy() for path in lesion_files]
    )
    logits, probabilities = onnx_runner(exported)(pixels)
    np.testing.assert_allclose(logits, [list(record.logits.values()) for record in records], atol=1e-4)
    np.testing.assert_allclose(
        probabilities, [list(record.class_probabilities.values()) for record in records], atol=1e-4
    )


def test_openvino_gives_our_logits(checkpoint: Checkpoint, tmp_path: Path) -> None:
    assert export_openvino(checkpoint, tmp_path, VIEWS) <= 1e-4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.bin", "model.xml"]
    about = import_openvino().Core().read_model(tmp_path / "model.xml").get_rt_info("dermadeit").value
    assert json.loads(about)["classes"] == list(checkpoint.network.classes)


def test_a_file_that_answers_otherwise_is_refused(checkpoint: Checkpoint, exported: Path) -> None:
    run = onnx_runner(exported)
    for wrong in (1e-3, np.nan):
        with pytest.raises(ModelError, match="differs"):
            check_parity(
                checkpoint, VIEWS, lambda pixels, wrong=wrong: (run(pixels)[0] + wrong, run(pixels)[1])
            )


def test_the_program_of_the_documents_reads_a_photo_as_we_do(
    checkpoint: Checkpoint, exported: Path, lesion_files: list[Path], tmp_path: Path
) -> None:
    blocks = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8"), re.S
    )
    [program] = [block for block in blocks if "onnxruntime" in block]
    assert len(program.splitlines()) <= 30
    # Nothing else of this environment can be imported.
    blocker = (
        "import sys\nfor name in ('torch', 'timm', 'dermadeit', 'transformers'): sys.modules[name] = None\n"
    )
    (tmp_path / "read.py").write_text(blocker + program, encoding="utf-8")
    command = [sys.executable, "read.py", str(exported), str(lesion_files[0])]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=True)
    printed = {name: float(share) for name, share in re.findall(r"^  (\w+) ([\d.]+)$", done.stdout, re.M)}
    [record] = Predictor(checkpoint).predict([lesion_files[0]], VIEWS)
    expected = {
        name: share for reading in record.readings.values() for name, share in reading.probabilities.items()
    }
    assert printed == pytest.approx(expected, abs=2e-4)
    for task in checkpoint.tasks:
        assert f"{task.title}: {task.display_names[record.readings[task.key].label]}" in done.stdout


def test_transformers_gives_our_scores(
    checkpoint: Checkpoint, lesion_files: list[Path], tmp_path: Path
) -> None:
    export_transformers(checkpoint, tmp_path)
    read = pipeline("image-classification", str(tmp_path), device="cpu")
    assert type(read.model).__name__ == "DeiTForImageClassification"
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        np.testing.assert_allclose(
            read.model(pixel_values=images).logits, checkpoint.classifier(images), atol=1e-5
        )
    with Image.open(lesion_files[0]) as photo:
        scores = {line["label"]: line["score"] for line in read(photo.convert("RGB"), top_k=8)}
    uncalibrated = Predictor(load_checkpoint(checkpoint.folder, calibrated=False))
    [record] = uncalibrated.predict([lesion_files[0]], 1)
    assert scores == pytest.approx(record.class_probabilities, abs=1e-3)


def test_transformers_has_no_such_network(checkpoint_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="push"):
        export_transformers(load_checkpoint(checkpoint_root / "binary" / "mobilenetv2"), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("colour_constancy", ["none", "shades_of_grey"])
def test_an_unusual_preparation_is_part_of_the_onnx_file(
    checkpoint_root: Path, tmp_path: Path, colour_constancy: str
) -> None:
    source = load_checkpoint(checkpoint_root / "binary" / "dermadeit")
    unusual = replace(
        source.preprocessing, per_image_zscore=colour_constancy == "none", colour_constancy=colour_constancy
    )
    save_checkpoint(tmp_path / "unusual", source.classifier, source.network, unusual)
    assert export_onnx(load_checkpoint(tmp_path / "unusual"), tmp_path, 1) <= 1e-4


@pytest.mark.nightly
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_embedded_networks_answer_alike_on_every_example(task: str, tmp_path: Path) -> None:
    checkpoint = load_predictor(task).checkpoint
    photos = [decode_image(path) for path in example_photos()]
    export_onnx(checkpoint, tmp_path, 1)
    assert check_parity(checkpoint, 1, onnx_runner(tmp_path / "model.onnx"), photos) <= 1e-4
    assert (
        onnxruntime.InferenceSession(tmp_path / "model.onnx").get_modelmeta().custom_metadata_map["dermadeit"]
    )
