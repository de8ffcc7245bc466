"""OpenVINO says what PyTorch says, of every network, and tells nobody that it was used."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dermadeit.errors import ConfigurationError
from dermadeit.imaging.decode import decode_image
from dermadeit.imaging.preprocessing import Preprocessing
from dermadeit.inference.predictor import Predictor, load_predictor
from dermadeit.inference.saliency import grad_cam
from dermadeit.models.checkpoints import load_checkpoint, save_checkpoint
from dermadeit.models.classifier import create_classifier
from dermadeit.models.runtimes.openvino_runtime import OpenVinoRuntime
from dermadeit.models.runtimes.torch_runtime import TorchRuntime
from dermadeit.models.specs import MODEL_SPECS, get_spec
from dermadeit.tasks import DIAGNOSIS, get_task

SMALL = sorted(set(MODEL_SPECS) - {"deit-base", "dermadeit-base", "deit-small", "dermadeit-small"})
"""The others differ from the tiny ones by their width alone."""


def _pixels(size: int, count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(count, 3, size, size), dtype=np.uint8)


def _weights(classifier: torch.nn.Module) -> dict[str, np.ndarray]:
    return {key: value.numpy() for key, value in classifier.state_dict().items()}


@pytest.mark.parametrize("name", SMALL)
def test_openvino_says_what_torch_says(name: str) -> None:
    size = 56 if name == "dinov2" else 64
    torch.manual_seed(0)
    classifier = create_classifier(name, 5, image_size=size).eval()
    for layer in classifier.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            # Fresh statistics would hide a wrong use of them. Small variances would let the values explode.
            torch.nn.init.uniform_(layer.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(layer.running_var, 2.0, 6.0)
    preprocessing = Preprocessing(size)
    reference = TorchRuntime(classifier, preprocessing, torch.device("cpu"))
    fast = OpenVinoRuntime(get_spec(name), _weights(classifier.backbone), preprocessing, "f32")
    views = (8, 1, 3)
    pixels = _pixels(size)
    for ours, theirs in zip(fast.run(pixels, views), reference.run(pixels, views), strict=True):
        for part in ("logits", "class_embedding", "distillation_embedding", "shallow_embedding"):
            expected = getattr(theirs, part)
            assert getattr(ours, part).shape == expected.shape
            np.testing.assert_allclose(getattr(ours, part), expected, rtol=1e-3, atol=1e-4)
    if get_spec(name).is_transformer:
        np.testing.assert_allclose(fast.tokens(pixels), reference.tokens(pixels), rtol=1e-3, atol=1e-4)
    shown = pixels.astype(np.float32) / 255
    np.testing.assert_allclose(fast.logits(shown), reference.logits(shown), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(64, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)),
        Preprocessing(64, per_image_zscore=True),
        Preprocessing(64, colour_constancy="shades_of_grey"),
        Preprocessing(64, per_image_zscore=True, colour_constancy="shades_of_grey"),
    ],
)
def test_a_factor_and_an_offset_normalise_as_torch_does(preprocessing: Preprocessing) -> None:
    pixels = _pixels(64)
    pixels[1] = 0
    pixels[2, 0] //= 4
    scale, shift = preprocessing.standardisation(pixels)
    expected = torch.stack([preprocessing.normalise(image) for image in torch.from_numpy(pixels)])
    np.testing.assert_allclose(pixels * scale + shift, expected.numpy(), atol=1e-4)


@pytest.fixture(params=[DIAGNOSIS.key, "multiclass"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Predictor, Predictor]:
    """The same checkpoint, read by PyTorch and by what is chosen automatically."""
    task = get_task(request.param, {DIAGNOSIS.key: DIAGNOSIS, "multiclass": get_task("multiclass")})
    torch.manual_seed(0)
    classifier = create_classifier("dermadeit", len(task.classes), image_size=64)
    save_checkpoint(tmp_path, classifier, task, Preprocessing(64))
    checkpoint = load_checkpoint(tmp_path)
    return Predictor(checkpoint), Predictor(checkpoint, runtime="auto")


def test_records_and_maps_agree_and_name_their_runtime(
    pair: tuple[Predictor, Predictor], lesion_files: list[Path]
) -> None:
    reference, fast = pair
    image = decode_image(lesion_files[0])
    [theirs], [ours] = reference.predict([image]), fast.predict([image])
    assert theirs.runtime == "torch"
    assert ours.to_dict()["runtime"].startswith("openvino-")
    for key, value in theirs.probabilities.items():
        # bfloat16 has three significant digits.
        assert ours.probabilities[key] == pytest.approx(value, abs=0.02)
    key = reference.checkpoint.task.classes[1]
    np.testing.assert_allclose(
        grad_cam(fast, image, key).values, grad_cam(reference, image, key).values, atol=0.1
    )


def test_another_network_than_the_weights_is_run_by_torch(predictors: dict[str, Predictor]) -> None:
    checkpoint = predictors["binary"].checkpoint
    replaced = checkpoint.with_classifier(checkpoint.classifier)
    assert Predictor(replaced, runtime="auto").runtime.name == "torch"
    with pytest.raises(ConfigurationError, match="torch"):
        Predictor(replaced, runtime="openvino")


def test_a_runtime_that_fails_is_replaced_by_torch_unless_it_was_asked_for(
    checkpoint_root: Path, lesion_files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no such instruction")

    monkeypatch.setattr("dermadeit.models.runtimes.graph.build_graph", fail)
    predictor = load_predictor("binary", root=checkpoint_root, runtime="auto")
    [record] = predictor.predict(lesion_files[:1])
    assert record.runtime == "torch"
    with pytest.raises(ConfigurationError, match="can't run"):
        load_predictor("binary", root=checkpoint_root, runtime="openvino").predict(lesion_files[:1])


def test_a_first_use_sends_nothing_and_needs_no_torch(
    checkpoint_root: Path, lesion_files: list[Path]
) -> None:
    # Importing OpenVINO as it is reports that to its makers, from a thread of its own.
    program = (
        "import socket, sys, threading\n"
        "def refuse(*_, **__):\n"
        "    print('somebody asked for', _)\n"
        "    raise OSError\n"
        "socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse\n"
        "from pathlib import Path\n"
        "from dermadeit import load_predictor\n"
        f"predictor = load_predictor('binary', root=Path({str(checkpoint_root)!r}), runtime='openvino')\n"
        f"[record] = predictor.predict([{str(lesion_files[0])!r}])\n"
        "print(record.runtime, sorted({'torch', 'timm', 'openvino_telemetry'} & set(sys.modules)))\n"
        "print(threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    named, threads = done.stdout.splitlines()
    assert named.startswith("openvino-") and named.endswith(" []")
    assert threads == "1"
