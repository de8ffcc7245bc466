"""A published model: the same logits by timm and transformers, and back from the Hub with its trust files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from eight_diagnoses import eight_diagnoses_root
from hub_server import TOKEN, hub_stand_in
from transformers import AutoModelForImageClassification
from typer.testing import CliRunner

from dermadeit import load_predictor
from dermadeit.cli import app
from dermadeit.errors import CheckpointError, ConfigurationError
from dermadeit.files import write_json
from dermadeit.imaging.decode import decode_image
from dermadeit.metrics.classification import HEADLINE_FIGURES
from dermadeit.models.checkpoints import load_checkpoint
from dermadeit.publishing.hub import stage_model

pytestmark = pytest.mark.slow

REPOSITORY = "an-org/lesions"


@pytest.fixture(scope="module")
def source(synthetic_data: Path) -> Path:
    """A calibrated checkpoint of eight diagnoses."""
    return eight_diagnoses_root(synthetic_data) / "dermadeit"


@pytest.fixture(scope="module")
def staged(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What would be pushed of it."""
    folder = tmp_path_factory.mktemp("staged")
    stage_model(load_checkpoint(source), folder, REPOSITORY)
    return folder


def _images(size: int) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def _our_logits(folder: Path, images: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        return load_checkpoint(folder).classifier(images).numpy()


def test_plain_timm_gives_our_logits(source: Path, staged: Path) -> None:
    model = timm.create_model(f"local-dir:{staged}", pretrained=True).eval()
    images = _images(64)
    with torch.inference_mode():
        theirs = model(images).numpy()
    np.testing.assert_allclose(theirs, _our_logits(source, images), atol=1e-6)
    assert np.ptp(theirs) > 0.1


def test_transformers_gives_our_logits(source: Path, staged: Path) -> None:
    model = AutoModelForImageClassification.from_pretrained(staged).eval()
    images = _images(64)
    with torch.inference_mode():
        theirs = model(pixel_values=images).logits.numpy()
    np.testing.assert_allclose(theirs, _our_logits(source, images), atol=1e-6)
    assert model.config.id2label[0] == "mel"


def test_a_convolutional_network_is_published_as_it_is(checkpoint_root: Path, tmp_path: Path) -> None:
    source = checkpoint_root / "binary" / "mobilenetv2"
    stage_model(load_checkpoint(source), tmp_path, REPOSITORY)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    images = _images(64)
    with torch.inference_mode():
        np.testing.assert_allclose(model(images).numpy(), _our_logits(source, images), atol=1e-6)


def test_a_staged_folder_answers_as_its_source_does(
    source: Path, staged: Path, lesion_files: list[Path]
) -> None:
    photo = decode_image(lesion_files[0])
    records = [load_predictor(name).predict([photo], 2)[0] for name in (f"local-dir:{staged}", str(source))]
    for record in records:
        assert record.calibrated and record.conformal_set is not None
    published, own = (record.to_dict() for record in records)
    assert published["readings"].keys() == own["readings"].keys() == {
        "diagnosis", "malignancy", "binary", "multiclass",
    }  # fmt: skip
    assert published["probabilities"] == pytest.approx(own["probabilities"], abs=1e-6)


def test_the_card_has_the_figures_of_these_weights_only(source: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(source)
    figures = {name: 0.5 + index / 100 for index, name in enumerate(HEADLINE_FIGURES)}
    for task, digest in (("binary", checkpoint.weights_sha256), ("malignancy", "0" * 64)):
        content = {
            "lesions": 9,
            "weights_sha256": {"dermadeit": digest},
            "models": {"dermadeit": {"views": {"8": figures | {"n": 10, "intervals": {}}}}},
        }
        write_json(tmp_path / "benchmark" / task / "metrics.json", content)
    stage_model(checkpoint, tmp_path / "staged", REPOSITORY, tmp_path / "benchmark")
    front_matter = yaml.safe_load((tmp_path / "staged" / "README.md").read_text().split("---")[1])
    assert front_matter["license"] == "cc-by-nc-4.0"
    [model] = front_matter["model-index"]
    [result] = model["results"]
    assert result["task"]["name"] == "Nevus or not"
    assert {metric["name"]: metric["value"] for metric in result["metrics"]} == {
        title: figures[name] for name, title in HEADLINE_FIGURES.items()
    }


def test_nothing_is_staged_among_other_files_or_under_a_wrong_name(source: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(source)
    (tmp_path / "private.jpg").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="not empty"):
        stage_model(checkpoint, tmp_path, REPOSITORY)
    for name in ("lesions", "a/b/c", "an org/lesions"):
        with pytest.raises(ConfigurationError, match="ORG/NAME"):
            stage_model(checkpoint, tmp_path / "new", name)


def test_altered_weights_are_refused(staged: Path, tmp_path: Path) -> None:
    for file in staged.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with (tmp_path / "model.safetensors").open("ab") as weights:
        weights.write(b"x")
    with pytest.raises(CheckpointError, match="altered"):
        load_predictor(str(tmp_path))


def test_a_dry_run_lists_what_would_be_uploaded(source: Path) -> None:
    # Nobody is logged in here, and nothing can be reached.
    arguments = ["push", "--repo", REPOSITORY, "--model", str(source), "--dry-run"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert {line.split()[0] for line in result.stdout.splitlines()} == {
        "README.md", "calibration.json", "config.json", "model.safetensors", "trust.safetensors",
    }  # fmt: skip


READ_BACK = """\
import json, sys
import timm, torch
from dermadeit import load_predictor
from dermadeit.errors import CheckpointError

[record] = load_predictor("hf-hub:an-org/lesions").predict([sys.argv[1]], 2)
model = timm.create_model("hf-hub:an-org/lesions", pretrained=True).eval()
with torch.inference_mode():
    logits = model(torch.ones(1, 3, 64, 64))[0].tolist()
try:
    load_predictor("hf-hub:an-org/nothing")
except CheckpointError as error:
    print(json.dumps([record.to_dict(), logits, error.code]))
"""


def test_a_model_goes_to_the_hub_and_comes_back(
    source: Path, lesion_files: list[Path], tmp_path: Path
) -> None:
    with hub_stand_in() as hub:
        environment = os.environ | {
            "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN": TOKEN,
        }  # fmt: skip

        def run(*command: str, **changes: str) -> subprocess.CompletedProcess:
            return subprocess.run(
                [sys.executable, *command],
                env=environment | changes,
                capture_output=True,
                text=True,
                encoding="utf-8",
            )

        push = ("-m", "dermadeit", "push", "--repo", REPOSITORY, "--model", str(source))
        refused = run(*push, HF_TOKEN="hf_wrong")
        assert (refused.returncode, hub.files) == (2, {})
        assert "hf auth login" in refused.stderr
        pushed = run(*push, "--private")
        assert pushed.returncode == 0, pushed.stderr
        assert hub.created[-1]["visibility"] == "private"
        names = {"README.md", "config.json", "model.safetensors", "calibration.json", "trust.safetensors"}
        assert {name.removeprefix(f"{REPOSITORY}/") for name in hub.files} >= names
        # Nobody may open a pickle that lies beside.
        hub.files[f"{REPOSITORY}/pytorch_model.bin"] = b"pickle"
        back = run("-c", READ_BACK, str(lesion_files[0]))
        assert back.returncode == 0, back.stderr
        assert not list(tmp_path.rglob("pytorch_model.bin"))
    record, logits, code = json.loads(back.stdout)
    own = load_predictor(str(source)).predict([lesion_files[0]], 2)[0].to_dict()
    assert record["probabilities"] == pytest.approx(own["probabilities"], abs=1e-6)
    assert logits == pytest.approx(_our_logits(source, torch.ones(1, 3, 64, 64))[0], abs=1e-5)
    assert code == "no_checkpoint"
