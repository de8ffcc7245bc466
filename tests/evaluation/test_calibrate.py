"""Calibrating a checkpoint, and what it then says of a photo; files that don't belong to it are refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from dermadeit.cli import app
from dermadeit.errors import CheckpointError, ConfigurationError
from dermadeit.imaging.preprocessing import Preprocessing
from dermadeit.inference.predictor import NOT_CALIBRATED, Predictor, load_predictor
from dermadeit.inference.records import Prediction
from dermadeit.models.checkpoints import load_checkpoint, save_checkpoint
from dermadeit.models.classifier import create_classifier
from dermadeit.tasks import get_task
from dermadeit.trust.calibration import OPERATING_POINTS
from dermadeit.trust.gating import warning_sentences

pytestmark = pytest.mark.slow


def _run(*arguments: object, exit_code: int = 0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == exit_code, result.output
    return result


@pytest.fixture(scope="module")
def table(synthetic_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of the photos to train, half to calibrate, labels at random; the test images don't exist."""
    lines = ["image_id,file,label,lesion_group,split"]
    for index, path in enumerate(sorted((synthetic_data / "images").iterdir())):
        split = ("train", "calibration")[index % 2]
        label = ("nevus", "others")[index // 2 % 2]
        lines.append(f"image{index},{path.name},{label},{split} {index // 2 % 40},{split}")
    lines += [f"hidden{index},hidden{index}.jpg,nevus,hidden{index},test" for index in range(3)]
    path = tmp_path_factory.mktemp("table") / "table.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def calibrated(
    checkpoint_root: Path, synthetic_data: Path, table: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A checkpoint folder after `calibrate`."""
    parent = tmp_path_factory.mktemp("calibrated")
    folder = Path(shutil.copytree(checkpoint_root / "binary" / "dermadeit", parent / "dermadeit"))
    (parent / "not_skin").mkdir()
    Image.new("RGB", (90, 90), (0, 0, 255)).save(parent / "not_skin" / "blue.png")
    result = _run(
        "calibrate", table, "--task", "binary", "--model", folder, "--images", synthetic_data / "images",
        "--not-skin", parent / "not_skin", "--views", 2,
    )  # fmt: skip
    assert "calibration error" in result.stdout
    assert "withheld, not skin: 1 of 1" in result.stdout
    return folder


@pytest.fixture
def copy(calibrated: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(calibrated, tmp_path / "copy"))


def test_a_calibrated_checkpoint_answers_with_calibrated_probabilities(
    calibrated: Path, lesion_files: list[Path]
) -> None:
    predictor = load_predictor("binary", str(calibrated))
    [plain] = Predictor(load_checkpoint(calibrated, calibrated=False)).predict(lesion_files[:1], views=2)
    [record] = predictor.predict(lesion_files[:1], views=2, operating_point="sensitivity_95")
    calibration = predictor.checkpoint.calibration
    assert (plain.calibrated, record.calibrated) == (False, True)
    assert record.logits == pytest.approx(plain.logits, abs=1e-5)
    expected = calibration.probabilities(np.array(list(record.logits.values())), views=2)
    assert list(record.probabilities.values()) == pytest.approx(expected.tolist())
    assert record.label == max(record.probabilities, key=record.probabilities.get)
    point = record.operating_point
    assert (point.name, point.threshold) == ("sensitivity_95", calibration.operating_points["sensitivity_95"])
    reached = record.probabilities["others"] >= point.threshold
    assert point.decision == ("others" if reached else "nevus")
    assert set(record.conformal_set) <= {"nevus", "others"}
    assert record.stability.flips in (0, 1)


def test_what_was_not_fitted_is_not_pretended(calibrated: Path, lesion_files: list[Path]) -> None:
    # The checkpoint was calibrated for at most two views.
    [record] = load_predictor("binary", str(calibrated)).predict(lesion_files[:1], views=3)
    assert not record.calibrated
    assert NOT_CALIBRATED in record.warnings
    assert (record.operating_point, record.conformal_set, record.verdict) == (None, None, "answer")


def test_an_answer_for_a_photo_that_shows_nothing_is_withheld(calibrated: Path, tmp_path: Path) -> None:
    Image.new("RGB", (90, 90), (200, 150, 130)).save(tmp_path / "skin.png")
    arguments = ["predict", tmp_path / "skin.png", "--task", "binary", "--model", calibrated, "--views", 2]
    line = json.loads(_run(*arguments, "--format", "jsonl").stdout)
    assert line["verdict"] == "abstain"
    assert "uniform" in line["abstain"]["codes"]
    assert len(line["abstain"]["reasons"]) == len(line["abstain"]["codes"])
    printed = _run(*arguments).stdout
    assert line["abstain"]["reasons"][0] in printed
    assert f"\t{line['label']}\t" not in printed


def test_predict_prints_everything_that_is_asked_for(calibrated: Path, lesion_files: list[Path]) -> None:
    arguments = [
        "predict", lesion_files[0], "--task", "binary", "--model", calibrated, "--views", 2,
        "--neighbours", 3, "--check-saliency", "--operating-point", "specificity_95",
    ]  # fmt: skip
    line = json.loads(_run(*arguments, "--format", "jsonl").stdout)
    assert line["operating_point"]["name"] == "specificity_95"
    assert line["stability"].keys() >= {"agreeing_share", "spread", "flips"}
    assert line["saliency_check"]["method"] == "Grad-SAM"
    assert line["saliency_check"]["faithful"] in (True, False)
    assert len(line["neighbours"]) == 3
    distances = [near["distance"] for near in line["neighbours"]]
    assert distances == sorted(distances)
    assert line["neighbour_disagreement"] in (True, False)
    assert sum(line["neighbour_votes"].values()) >= len(line["neighbours"])
    assert {"sharpness", "contrast"} <= line["quality"]["measures"].keys()
    assert "similar: " in _run(*arguments, "--format", "table").stdout or line["abstain"]


def test_an_index_of_similar_cases_can_be_left_out(
    copy: Path, table: Path, synthetic_data: Path, lesion_files: list[Path]
) -> None:
    _run(
        "calibrate", table, "--task", "binary", "--model", copy, "--images", synthetic_data / "images",
        "--views", 1, "--no-similar-cases",
    )  # fmt: skip
    predictor = load_predictor("binary", str(copy))
    [prediction] = predictor.predict(lesion_files[:1], 1)
    assert prediction.calibrated
    with pytest.raises(ConfigurationError, match="no index of similar cases"):
        predictor.predict(lesion_files[:1], 1, neighbours=3)


def test_a_training_image_is_recognised(
    calibrated: Path, table: Path, synthetic_data: Path, lesion_files: list[Path]
) -> None:
    [record] = load_predictor("binary", str(calibrated)).predict(lesion_files[:1], views=1, neighbours=2)
    assert any("(image0)" in warning for warning in record.warnings)
    assert "image0" not in {near.image_id for near in record.neighbours}


def test_evaluate_measures_what_was_promised(
    calibrated: Path, synthetic_data: Path, table: Path, tmp_path: Path
) -> None:
    _run(
        "evaluate", table, "--task", "binary", "--model", calibrated, "--split", "calibration",
        "--images", synthetic_data / "images", "--views", 2, "--output", tmp_path,
    )  # fmt: skip
    metrics = json.loads((tmp_path / "metrics.json").read_text())["dermadeit"]
    promised = json.loads((calibrated / "calibration.json").read_text())
    # On the images it was fitted on, the promise is kept to the letter.
    coverage = metrics["conformal"]["classes"]
    assert all(coverage[key]["lesion_coverage"]["value"] >= 0.9 for key in ("nevus", "others"))
    points = metrics["operating_points"]
    assert points.keys() == {"target", "prevalence", *OPERATING_POINTS}
    for name in OPERATING_POINTS:
        fitted = promised["readings"]["binary"]["by_views"]["2"]["operating_points"][name]
        assert points[name]["sensitivity"]["value"] == pytest.approx(fitted["sensitivity"])
        assert points[name]["specificity"]["value"] == pytest.approx(fitted["specificity"])
    assert points["sensitivity_95"]["sensitivity"]["value"] >= 0.95
    after, before = metrics["calibration"]["after"], metrics["calibration"]["before"]
    assert after["nll"]["value"] <= before["nll"]["value"]
    assert after["nll"]["value"] == pytest.approx(metrics["nll"])
    assert metrics["risk_coverage"]["curve"][-1]["risk"] == pytest.approx(1 - metrics["accuracy"])
    assert metrics["abstention"]["abstained"]["n"] == metrics["n"]
    assert 0 <= metrics["stability"]["flip_rate"]["value"] <= 1
    assert metrics["slices"].keys() >= {"sex", "skin_tone"}


def test_fitting_refuses_at_most_three_in_a_hundred_calibration_lesions(calibrated: Path) -> None:
    gates = json.loads((calibrated / "calibration.json").read_text())["report"]["gates"]["calibration"]
    assert gates["refused"] <= 0.03 * gates["images"]


def _photos_of_skin_and_of_nothing(tmp_path: Path) -> tuple[Path, Path]:
    """Folders of photos of anything but skin: some to learn from, others of the same kind."""
    rng = np.random.default_rng(0)
    learned, fresh = tmp_path / "learned", tmp_path / "fresh"
    for index in range(24):
        folder = learned if index < 16 else fresh
        folder.mkdir(exist_ok=True)
        blocks = rng.integers(0, 2, (12, 12, 3)) * np.array((40, 255, 120))
        picture = Image.fromarray(blocks.astype(np.uint8)).resize((120, 120), Image.Resampling.NEAREST)
        picture.save(folder / f"{index}.png")
    return learned, fresh


def test_gates_learn_what_to_withhold_from_photos_of_anything_but_skin(
    copy: Path, table: Path, synthetic_data: Path, lesion_files: list[Path], tmp_path: Path
) -> None:
    learned, fresh = _photos_of_skin_and_of_nothing(tmp_path)
    lesions, strange = lesion_files[:6], sorted(fresh.iterdir())
    plain = load_predictor("binary", str(copy)).predict(lesions, 1)
    known = {name: part for name, part in _contents(copy).items() if name.startswith("neighbours.")}
    _run(
        "calibrate", table, "--task", "binary", "--model", copy, "--images", synthetic_data / "images",
        "--not-skin", learned, "--gates-only",
    )  # fmt: skip
    predictor = load_predictor("binary", str(copy))
    records = predictor.predict(lesions, 1)
    assert [record.verdict for record in records] == ["answer"] * len(lesions)
    assert [record.probabilities for record in records] == [record.probabilities for record in plain]
    assert known
    for name, part in known.items():
        np.testing.assert_array_equal(_contents(copy)[name], part)
    refused = predictor.predict(strange, 1)
    assert {record.abstain_codes for record in refused} == {("not_skin",)}
    assert {record.warning_codes for record in refused} == {()}
    report = json.loads((copy / "calibration.json").read_text())["report"]["gates"]
    assert report["not_skin"]["refused"] == report["not_skin"]["images"] == 16
    assert report["calibration"]["refused"] == 0


def test_gates_without_such_photos_withhold_what_is_very_far_from_lesions(
    copy: Path, table: Path, synthetic_data: Path, lesion_files: list[Path], tmp_path: Path
) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 120, 3), np.uint8)).save(
        tmp_path / "n.png"
    )
    result = _run(
        "calibrate", table, "--task", "binary", "--model", copy, "--images", synthetic_data / "images",
        "--gates-only",
    )  # fmt: skip
    assert "not skin" not in result.stdout
    *lesions, noise = load_predictor("binary", str(copy)).predict([*lesion_files[:6], tmp_path / "n.png"], 1)
    assert {record.verdict for record in lesions} == {"answer"}
    assert noise.abstain_codes == ("not_skin",)


def test_gates_alone_need_a_calibration_to_keep(
    checkpoint_root: Path, table: Path, synthetic_data: Path
) -> None:
    result = _run(
        "calibrate", table, "--task", "binary", "--model", checkpoint_root / "binary" / "dermadeit",
        "--images", synthetic_data / "images", "--gates-only", exit_code=2,
    )  # fmt: skip
    assert "without --gates-only" in result.stderr


def test_a_photo_unlike_the_calibration_photos_is_answered_with_a_warning(
    copy: Path, lesion_files: list[Path], tmp_path: Path
) -> None:
    path = copy / "calibration.json"
    content = json.loads(path.read_text())
    content["gates"]["ood_threshold"] = 0.0
    path.write_text(json.dumps(content))
    arguments = ["predict", lesion_files[1], "--task", "binary", "--model", copy, "--views", 2]
    line = json.loads(_run(*arguments, "--format", "jsonl").stdout)
    assert (line["verdict"], line["abstain"]) == ("answer", None)
    assert "out_of_distribution" in line["warning_codes"]
    [sentence] = warning_sentences(["out_of_distribution"])
    assert sentence in line["warnings"]
    printed = _run(*arguments).stdout
    assert sentence in printed
    assert f"\t{line['label']}\t" in printed


def test_a_checkpoint_of_version_0_1_still_answers(copy: Path, lesion_files: list[Path]) -> None:
    path = copy / "calibration.json"
    content = json.loads(path.read_text())
    content["gates"] = {name: content["gates"][name] for name in ("quality", "ood_threshold")}
    path.write_text(json.dumps(content))
    arrays = {name: part for name, part in _contents(copy).items() if not name.startswith("skin.")}
    save_file(arrays, copy / "trust.safetensors", {"weights_sha256": content["weights_sha256"]})
    [record] = load_predictor("binary", str(copy)).predict(lesion_files[:1], 2)
    assert (record.verdict, record.calibrated) == ("answer", True)


def _contents(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "trust.safetensors")


def test_an_uncalibrated_checkpoint_works_and_says_so(
    checkpoint_root: Path, lesion_files: list[Path]
) -> None:
    folder = checkpoint_root / "binary" / "dermadeit"
    arguments = ["predict", lesion_files[0], "--task", "binary", "--model", folder, "--views", 1]
    line = json.loads(_run(*arguments, "--format", "jsonl").stdout)
    assert (line["calibrated"], line["verdict"], line["abstain"]) == (False, "answer", None)
    assert line["warnings"][-1] == NOT_CALIBRATED
    assert "calibrate" in _run(*arguments, "--neighbours", 3, exit_code=2).stderr
    assert "calibrate" in _run(*arguments, "--operating-point", "balanced", exit_code=2).stderr
    assert "balanced" in _run(*arguments, "--operating-point", "youden", exit_code=2).stderr


@pytest.mark.parametrize(
    ("file", "content", "code"),
    [
        ("calibration.json", b'{"format": 1, "task": ', "damaged_checkpoint"),
        ("calibration.json", b'{"format": 1}', "damaged_checkpoint"),
        ("calibration.json", b'{"format": 2, "readings": {}}', "damaged_checkpoint"),
        ("calibration.json", b"[]", "damaged_checkpoint"),
        ("calibration.json", b'{"format": 7}', "checkpoint_refused"),
        ("trust.safetensors", b"", "damaged_checkpoint"),
        ("trust.safetensors", None, "damaged_checkpoint"),
    ],
)
def test_damaged_files_are_refused_with_a_remedy(
    copy: Path, file: str, content: bytes | None, code: str
) -> None:
    if content is None:
        (copy / file).unlink()
    else:
        (copy / file).write_bytes(content)
    with pytest.raises(CheckpointError, match="dermadeit calibrate") as refused:
        load_checkpoint(copy)
    assert refused.value.code == code
    assert not load_checkpoint(copy, calibrated=False).calibration


@pytest.mark.parametrize(
    ("change", "code"),
    [({"weights_sha256": "0" * 64}, "wrong_hash"), ({"classes": ["others", "nevus"]}, "wrong_task")],
)
def test_a_calibration_of_something_else_is_refused(copy: Path, change: dict, code: str) -> None:
    path = copy / "calibration.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match="dermadeit calibrate") as refused:
        load_checkpoint(copy)
    assert refused.value.code == code


def test_arrays_of_other_weights_are_refused(copy: Path, checkpoint_root: Path) -> None:
    torch.manual_seed(1)
    other = create_classifier("dermadeit", 2, image_size=64)
    kept = {name: (copy / name).read_bytes() for name in ("calibration.json", "trust.safetensors")}
    save_checkpoint(copy, other, get_task("binary"), Preprocessing(64))
    # New weights are uncalibrated until they are calibrated themselves.
    assert load_checkpoint(copy).calibration is None
    assert not any((copy / name).exists() for name in kept)
    for name, content in kept.items():
        (copy / name).write_bytes(content)
    with pytest.raises(CheckpointError, match="other weights"):
        load_checkpoint(copy)


def test_the_model_is_run_once_for_everything(
    calibrated: Path, lesion_files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = load_predictor("binary", str(calibrated))
    backbone = predictor.checkpoint.classifier.backbone
    passes, forward_features = [], backbone.forward_features
    monkeypatch.setattr(
        backbone, "forward_features", lambda images: passes.append(len(images)) or forward_features(images)
    )
    results = predictor.predict(lesion_files[:3], views=2, neighbours=2)
    assert passes == [3, 3]
    assert all(isinstance(result, Prediction) and result.ood_score is not None for result in results)


def test_a_table_without_calibration_images_is_named(
    calibrated: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    table = tmp_path / "table.csv"
    name = next((synthetic_data / "images").iterdir()).name
    table.write_text(f"file,label,split\n{name},nevus,train\n")
    result = _run("calibrate", table, "--task", "binary", "--model", calibrated, exit_code=2)
    assert "no images of the split “calibration”" in result.stderr


def test_outputs_are_those_of_each_view(calibrated: Path, lesion_files: list[Path]) -> None:
    from dermadeit.imaging.decode import decode_image

    predictor = load_predictor("binary", str(calibrated))
    image = decode_image(lesion_files[0])
    [outputs] = predictor.outputs([image], views=4)
    classifier = predictor.checkpoint.classifier
    tensor = predictor.checkpoint.preprocessing(image.pixels)[None]
    class_embedding, distillation_embedding = (part.numpy()[0] for part in classifier.embed(tensor))
    np.testing.assert_allclose(outputs.class_embedding, class_embedding, atol=1e-5)
    np.testing.assert_allclose(outputs.distillation_embedding, distillation_embedding, atol=1e-5)
    turned = classifier(tensor.rot90(3, dims=(-2, -1))).numpy()[0]
    np.testing.assert_allclose(outputs.logits[3], turned, atol=1e-5)
    with pytest.raises(ConfigurationError, match="1 to 8"):
        predictor.outputs([image], views=0)
