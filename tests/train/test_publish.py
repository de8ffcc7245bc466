"""Publishing final trainings: what ships is calibrated, and test is read once."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from dermadeit.inference.predictor import load_predictor
from dermadeit.publishing.benchmark import read_benchmark
from dermadeit.tasks import BINARY, DIAGNOSES
from train import publish as publish_module
from train.distill import DONE_FILE


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty folders in place of those that ship."""
    for name in ("CHECKPOINT_ROOT", "BENCHMARK_ROOT", "EVIDENCE_ROOT"):
        folder = tmp_path / name.lower()
        folder.mkdir()
        monkeypatch.setattr(publish_module, name, folder)
    return tmp_path


@pytest.fixture
def data(tmp_path: Path, synthetic_data: Path) -> Path:
    """Photos of all diagnoses, labelled at random: six lesions of each calibrate, five validate; few to test."""
    lines = ["image_id,file,diagnosis,lesion_group,split"]
    folder = tmp_path / "data" / "images"
    shutil.copytree(synthetic_data / "images", folder)
    for path in sorted(folder.iterdir()):
        with Image.open(path) as photo:
            photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path.with_stem(f"{path.stem}_mirrored"))
    photos = sorted(folder.iterdir())
    splits = [*["calibration"] * 6, *["validation"] * 5, *["test"] * 3, "train"]
    for index in range(len(splits) * len(DIAGNOSES)):
        file, diagnosis = photos[index].name, list(DIAGNOSES)[index % len(DIAGNOSES)]
        lines.append(
            f"image{index},images/{file},{diagnosis},lesion{index},{splits[index // len(DIAGNOSES)]}"
        )
    (tmp_path / "data" / "manifest.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "data"


@pytest.fixture
def runs(tmp_path: Path, checkpoint_root: Path) -> Path:
    """A programme whose three final trainings are done, one of them of two classes."""
    trained = {
        "diagnosis/final/dermadeit": checkpoint_root / "dermadeit",
        "diagnosis/final/mobilenetv2": checkpoint_root / "mobilenetv2",
        "binary/final/original": checkpoint_root / "binary" / "dermadeit",
    }
    for name, source in trained.items():
        folder = tmp_path / "runs" / name
        shutil.copytree(source, folder)
        (folder / "training.json").write_text("{}")
        (folder / DONE_FILE).parent.mkdir()
        (folder / DONE_FILE).touch()
    return tmp_path / "runs"


@pytest.mark.slow
def test_a_final_training_ships_calibrated_and_its_test_predictions_are_filed_once(
    runs: Path, places: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--runs", str(runs), "--data", str(data)]
    assert publish_module.main(arguments) == 0
    shipped = {
        model: load_predictor(model=model, root=places / "checkpoint_root")
        for model in ("dermadeit", "mobilenetv2")
    }
    assert {path.name for path in (places / "checkpoint_root").iterdir()} == set(shipped)
    assert shipped["dermadeit"].checkpoint.trust.neighbours is not None
    # An index of 3 MB a baseline is more than its similar cases are worth.
    assert shipped["mobilenetv2"].checkpoint.trust.neighbours is None
    filed = places / "benchmark_root" / "diagnosis"
    assert {path.name for path in filed.glob("*.csv")} == {"images.csv", "dermadeit.csv", "mobilenetv2.csv"}
    beside = places / "benchmark_root" / "binary"
    assert {path.name for path in beside.glob("*.csv")} == {"images.csv", "original.csv"}
    assert set(read_benchmark(beside, BINARY).models) == {"dermadeit", "mobilenetv2", "original"}
    for task, images in (("diagnosis", 24), ("malignancy", 24), ("binary", 24), ("multiclass", 9)):
        [(model, evidence)] = json.loads(
            (places / "evidence_root" / task / "metrics.json").read_text()
        ).items()
        assert (model, evidence["task"], evidence["n"]) == ("dermadeit", task, images)
        assert evidence["weights_sha256"] == shipped["dermadeit"].checkpoint.weights_sha256
        assert evidence["calibration"]["after"]

    def read_again(*_: object, **__: object) -> None:
        raise AssertionError("test was read a second time")

    monkeypatch.setattr(publish_module, "evaluate_tasks", read_again)
    # As after an interruption: measured, but not filed.
    (filed / "mobilenetv2.csv").unlink()
    assert publish_module.main(arguments) == 0
    assert (filed / "mobilenetv2.csv").is_file()


def test_without_a_final_training_it_names_the_program_to_run_first(
    tmp_path: Path, synthetic_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert publish_module.main(["--runs", str(tmp_path), "--data", str(synthetic_data)]) == 2
    assert "python -m train.programme" in caplog.text


@pytest.mark.slow
def test_both_arms_of_the_leakage_test_are_read_on_the_test_images_of_their_own_split(
    runs: Path, checkpoint_root: Path, places: Path, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    by_image = data.with_name("by_image")
    shutil.copytree(data, by_image)
    arguments = ["--runs", str(runs), "--data", str(data), "--image-level-data", str(by_image)]
    arguments += ["--task", "binary", "--model", "none of them"]
    assert publish_module.main(arguments) == 2
    assert "three-way/no-teacher" in caplog.text
    for split_by, model in (("lesion", "dermadeit"), ("image", "mobilenetv2")):
        folder = runs / "binary" / publish_module.LEAKAGE_TEST_ARMS[split_by]
        shutil.copytree(checkpoint_root / "binary" / model, folder)
        shutil.copytree(runs / "binary" / "final" / "original" / DONE_FILE.parent, folder / DONE_FILE.parent)
    assert publish_module.main(arguments) == 2
    assert "no lesion lies in two splits" in caplog.text
    table = by_image / "manifest.csv"
    table.write_text(table.read_text().replace(",lesion89,", ",lesion0,"))
    assert publish_module.main(arguments) == 0
    filed = places / "benchmark_root" / "binary" / "leakage_test"
    assert {path.relative_to(filed).as_posix() for path in filed.rglob("*.csv")} == {
        "lesion/dermadeit.csv", "lesion/images.csv", "image/mobilenetv2.csv", "image/images.csv",
    }  # fmt: skip
    assert "image89,nevus,lesion89,,test" in (filed / "lesion" / "images.csv").read_text()
    assert "image89,nevus,lesion0,,test" in (filed / "image" / "images.csv").read_text()
