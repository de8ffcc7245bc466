"""Teachers, from our own checkpoints and from copies of published models with random weights."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from dermadeit.data.manifest import read_source
from dermadeit.errors import CheckpointError, ConfigurationError
from dermadeit.models.checkpoints import load_checkpoint
from dermadeit.tasks import DIAGNOSIS
from train.data.splitting import leave_out_fold
from train.teachers import foundation
from train.teachers.foundation import FOUNDATION_MODELS
from train.teachers.networks import create_teachers, unseen

CPU = torch.device("cpu")
VIEWS = (0, 2, 5)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(autouse=True)
def _full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foundation, "cpu_has_bf16", lambda: False)


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [
        rng.integers(0, 256, (90, 60, 3), dtype=np.uint8),
        rng.integers(0, 256, (40, 70, 3), dtype=np.uint8),
    ]


def turned(square: np.ndarray, view: int) -> np.ndarray:
    """A dihedral view in NumPy's own terms: mirrored from 4 on, then turned by quarters."""
    return np.rot90(np.fliplr(square) if view >= 4 else square, view % 4)


def expected_input(
    image: np.ndarray, view: int, size: int, mean: tuple, std: tuple, resampling: Image.Resampling
) -> torch.Tensor:
    square = np.array(Image.fromarray(image).resize((size, size), resampling))
    values = (turned(square, view) / 255 - np.array(mean)) / np.array(std)
    return torch.from_numpy(values.transpose(2, 0, 1).copy()).float()[None]


# ------------------------------------------------------------------------------------------------ checkpoints


def test_a_checkpoint_teaches_its_class_embedding_and_logits_in_every_view(
    checkpoint_root: Path, images: list[np.ndarray]
) -> None:
    folder = checkpoint_root / "multiclass" / "dermadeit"
    (teacher,) = create_teachers(f"checkpoint:{folder}", CPU)
    assert (teacher.name, teacher.classes, teacher.embedding_dim) == ("dermadeit", ("mel", "bcc", "scc"), 192)
    assert (teacher.folds, teacher.held_out_fold) == (0, 0)
    assert load_checkpoint(folder).weights_sha256 in teacher.identity
    assert json.loads(json.dumps(teacher.preprocessing)) == teacher.preprocessing
    output = teacher.embed(images, VIEWS)
    assert (output.embeddings.shape, output.logits.shape) == ((2, 3, 192), (2, 3, 3))
    assert output.embeddings.dtype == output.logits.dtype == np.float32
    classifier = load_checkpoint(folder).classifier
    for position, view in enumerate(VIEWS):
        pixels = expected_input(images[1], view, 64, IMAGENET_MEAN, IMAGENET_STD, Image.Resampling.BICUBIC)
        tokens = classifier.backbone.forward_features(pixels)
        np.testing.assert_allclose(output.embeddings[1, position], tokens[0, 0].numpy(), atol=1e-4)
        logits = classifier.backbone.head(tokens[0, 0])
        np.testing.assert_allclose(output.logits[1, position], logits.numpy(), atol=1e-4)


def test_every_checkpoint_is_a_teacher_and_knows_its_fold(own_checkpoint: Callable[..., Path]) -> None:
    folders = [
        own_checkpoint("first", folds=2, held_out_fold=0),
        own_checkpoint("second", folds=2, held_out_fold=1),
        own_checkpoint("third", "dermadeit"),
    ]
    teachers = create_teachers("checkpoint:" + ",".join(map(str, folders)), CPU)
    assert [teacher.name for teacher in teachers] == ["mobilenetv2-fold0", "mobilenetv2-fold1", "dermadeit"]
    assert [(teacher.folds, teacher.held_out_fold) for teacher in teachers] == [(2, 0), (2, 1), (0, 0)]


def test_teachers_of_one_call_have_different_names(checkpoint_root: Path) -> None:
    folders = [checkpoint_root / task / "mobilenetv2" for task in ("binary", "multiclass")]
    first, second = create_teachers("checkpoint:" + ",".join(map(str, folders)), CPU)
    assert first.name != second.name
    assert first.name.startswith("mobilenetv2-")
    assert first.identity != second.identity


def test_a_cross_fitted_teacher_answers_for_what_its_training_left_out(
    own_checkpoint: Callable[..., Path], synthetic_data: Path
) -> None:
    manifest = read_source(synthetic_data / "manifest.csv", DIAGNOSIS).select("train")
    (teacher,) = create_teachers(f"checkpoint:{own_checkpoint('one', folds=3, held_out_fold=2)}", CPU)
    seen_rows = leave_out_fold(manifest, 3, 2).rows
    assert [row not in seen_rows for row in manifest.rows] == unseen(teacher, manifest).tolist()
    assert 0 < unseen(teacher, manifest).sum() < len(manifest.rows)
    whole = replace(teacher, folds=0, held_out_fold=0)
    assert unseen(whole, manifest).tolist() == [True] * len(manifest.rows)


@pytest.mark.parametrize("content", ["{", "[]", '{"configuration": {"folds": "many"}}', '{"epochs": 3}'])
def test_a_checkpoint_that_may_have_seen_the_labels_is_refused(
    own_checkpoint: Callable[..., Path], content: str
) -> None:
    folder = own_checkpoint("doubtful")
    (folder / "training.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"training\.json") as caught:
        create_teachers(f"checkpoint:{folder}", CPU)
    assert caught.value.code == "damaged_checkpoint"


def test_no_teacher_and_unknown_teachers() -> None:
    assert create_teachers("none", CPU) == ()
    with pytest.raises(ConfigurationError, match=r"no teacher “panderm”.*medsiglip"):
        create_teachers("panderm", CPU)


# ------------------------------------------------------------------------------------------------ transformers


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, torch.nn.Module]]:
    """Teacher name to a folder as on the Hub and the model that was saved in it."""
    transformers = pytest.importorskip("transformers")
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = vision | {"vocab_size": 50, "max_position_embeddings": 8, "bos_token_id": 1, "eos_token_id": 2}
    sizes = {"image_size": 28, "patch_size": 14}
    torch.manual_seed(0)
    clip = transformers.CLIPModel(
        transformers.CLIPConfig(text_config=text, vision_config=vision | sizes, projection_dim=16)
    )
    siglip = transformers.SiglipModel(
        transformers.SiglipConfig(text_config=text, vision_config=vision | sizes)
    )
    processors = {
        "monet": transformers.CLIPImageProcessor(),
        "medsiglip": transformers.SiglipImageProcessor(size={"height": 28, "width": 28}, resample=2),
    }
    made = {}
    for name, model in (("monet", clip), ("medsiglip", siglip)):
        folder = tmp_path_factory.mktemp(name)
        model.eval().requires_grad_(False).save_pretrained(folder)
        processors[name].save_pretrained(folder)
        made[name] = folder, model
    return made


@pytest.mark.parametrize(
    ("name", "mean", "std", "resampling"),
    [
        ("monet", CLIP_MEAN, CLIP_STD, Image.Resampling.BICUBIC),
        ("medsiglip", (0.5,) * 3, (0.5,) * 3, Image.Resampling.BILINEAR),
    ],
)
def test_image_text_models_teach_the_pooled_image_side(
    towers: dict, images: list[np.ndarray], name: str, mean: tuple, std: tuple, resampling: Image.Resampling
) -> None:
    folder, model = towers[name]
    (teacher,) = create_teachers(f"{name}:{folder}", CPU)
    assert (teacher.name, teacher.classes, teacher.embedding_dim) == (name, None, 32)
    output = teacher.embed(images, VIEWS)
    assert output.logits is None
    for position, view in enumerate(VIEWS):
        pixels = expected_input(images[0], view, 28, mean, std, resampling)
        pooled = model.vision_model(pixel_values=pixels).pooler_output[0]
        np.testing.assert_allclose(output.embeddings[0, position], pooled.numpy(), atol=1e-4)


def test_only_googles_models_come_with_their_terms(towers: dict, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    create_teachers(f"monet:{towers['monet'][0]}", CPU)
    assert "derivative" not in caplog.text
    create_teachers(f"medsiglip:{towers['medsiglip'][0]}", CPU)
    assert "model derivative" in caplog.text
    assert "developers.google.com/health-ai-developer-foundations/terms" in caplog.text


def test_a_local_copy_is_known_by_its_weights(towers: dict, tmp_path: Path) -> None:
    folder = towers["monet"][0]
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    identities = [create_teachers(f"monet:{path}", CPU)[0].identity for path in (folder, copy)]
    assert identities[0] == identities[1]
    weights = load_file(copy / "model.safetensors")
    weights["vision_model.post_layernorm.bias"] += 1
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert create_teachers(f"monet:{copy}", CPU)[0].identity != identities[0]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "pickle"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "no preprocessor_config.json"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"half"), "can't be read"),
        (lambda folder: (folder / "config.json").write_text("{"), "can't be read"),
        (
            lambda folder: save_file({"a": torch.ones(1)}, folder / "model.safetensors"),
            "missing|can't be read",
        ),
    ],
)
def test_a_folder_that_is_no_copy_is_refused(
    towers: dict, tmp_path: Path, damage: Callable[[Path], None], reason: str
) -> None:
    folder = Path(shutil.copytree(towers["monet"][0], tmp_path / "copy"))
    damage(folder)
    with pytest.raises(ConfigurationError, match=reason) as caught:
        create_teachers(f"monet:{folder}", CPU)
    assert caught.value.code == "teacher_unreadable"
    assert "suinleelab/monet" in caught.value.user_message


# ------------------------------------------------------------------------------------------------ timm


@pytest.mark.slow
def test_dinov2_teaches_its_class_token_at_224_pixels(images: list[np.ndarray], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0, dynamic_img_size=True).eval()
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    (teacher,) = create_teachers(f"dinov2:{tmp_path}", CPU)
    assert (teacher.name, teacher.classes, teacher.embedding_dim) == ("dinov2", None, 384)
    output = teacher.embed(images, (5,))
    pixels = expected_input(images[0], 5, 224, IMAGENET_MEAN, IMAGENET_STD, Image.Resampling.BICUBIC)
    with torch.inference_mode():
        expected = model(pixels)[0].numpy()
    np.testing.assert_allclose(output.embeddings[0, 0], expected, atol=1e-3)
    with pytest.raises(ConfigurationError, match=r"vit_base.*holds a vit_small"):
        create_teachers(f"dinov2-base:{tmp_path}", CPU)


# ------------------------------------------------------------------------------------------------ TensorFlow


def save_derm_foundation(folder: Path, *, input_name: str, batch: int | None) -> None:
    """A SavedModel with the signature of google/derm-foundation.

    The 6144 numbers are height, width, the colour of the top left pixel, then zeros.
    """
    tf = pytest.importorskip("tensorflow")

    def describe(encoded):
        picture = tf.io.decode_png(encoded, channels=3)
        numbers = tf.concat([tf.shape(picture)[:2], tf.cast(picture[0, 0], tf.int32)], 0)
        return tf.pad(tf.cast(numbers, tf.float32), [[0, 6144 - 5]])

    @tf.function(input_signature=[tf.TensorSpec([batch], tf.string, name=input_name)])
    def serve(serialized):
        features = {"image/encoded": tf.io.FixedLenFeature([], tf.string)}
        encoded = tf.io.parse_example(serialized, features)["image/encoded"]
        return {"embedding": tf.map_fn(describe, encoded, fn_output_signature=tf.float32) * module.scale}

    module = tf.Module()
    module.scale = tf.Variable(1.0)
    module.serve = serve
    tf.saved_model.save(module, str(folder), signatures={"serving_default": serve})


@pytest.mark.parametrize(("input_name", "batch"), [("inputs", None), ("examples", 1)])
def test_derm_foundation_gets_squares_of_448_pixels(
    tmp_path: Path, input_name: str, batch: int | None
) -> None:
    save_derm_foundation(tmp_path, input_name=input_name, batch=batch)
    (teacher,) = create_teachers(f"derm-foundation:{tmp_path}", CPU)
    assert (teacher.name, teacher.classes, teacher.embedding_dim) == ("derm-foundation", None, 6144)
    corners = np.array([[[250, 0, 0], [0, 240, 0]], [[0, 0, 230], [220, 210, 0]]], dtype=np.uint8)
    image = corners.repeat(60, axis=0).repeat(80, axis=1)
    output = teacher.embed([image, np.full((50, 50, 3), 7, np.uint8)], VIEWS)
    assert (output.embeddings.shape, output.logits) == ((2, 3, 6144), None)
    for position, view in enumerate(VIEWS):
        expected = [448, 448, *turned(corners, view)[0, 0].tolist()]
        assert output.embeddings[0, position, :5].tolist() == expected
    assert output.embeddings[1, 0, 2:6].tolist() == [7, 7, 7, 0]


def test_another_saved_model_is_not_derm_foundation(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    tf.saved_model.save(tf.Module(), str(tmp_path))
    with pytest.raises(ConfigurationError, match="serving_default"):
        create_teachers(f"derm-foundation:{tmp_path}", CPU)


def test_without_tensorflow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FOUNDATION_MODELS["derm-foundation"].files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ConfigurationError, match=r"pip install -e '\.\[teacher\]'") as caught:
        create_teachers(f"derm-foundation:{tmp_path}", CPU)
    assert caught.value.code == "missing_package"


# ------------------------------------------------------------------------------------------------ Hub


def test_weights_from_the_hub_are_known_by_id_and_revision(
    towers: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def snapshot_download(repository: str, *, allow_patterns: list[str]) -> str:
        asked.append((repository, allow_patterns))
        return str(shutil.copytree(towers["monet"][0], tmp_path / "snapshots" / "1a2b3c"))

    monkeypatch.setattr(foundation, "snapshot_download", snapshot_download)
    (teacher,) = create_teachers("monet", CPU)
    assert teacher.identity == "suinleelab/monet@1a2b3c"
    ((repository, patterns),) = asked
    assert repository == "suinleelab/monet"
    wanted = ("model.safetensors", "config.json", "preprocessor_config.json")
    assert all(any(fnmatch(name, pattern) for pattern in patterns) for name in wanted)
    assert not any(fnmatch("pytorch_model.bin", pattern) for pattern in patterns)
