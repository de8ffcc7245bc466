"""The command line is a contract: keys, files and exit codes."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main
from encoded_images import dicom_file, smooth_pixels
from PIL import Image
from typer.testing import CliRunner

import dermadeit
from dermadeit.cli import _prediction_line, app
from dermadeit.data.manifest import read_source
from dermadeit.evaluation.calibrate import fit_trust
from dermadeit.inference.doctor import Finding
from dermadeit.inference.predictor import Predictor
from dermadeit.models.checkpoints import answered_tasks, find_checkpoint, load_checkpoint, read_task
from dermadeit.models.specs import MODEL_SPECS
from dermadeit.tasks import BINARY, MULTICLASS
from dermadeit.trust.calibration import OPERATING_POINTS
from dermadeit.trust.files import write_trust

KEYS = {
    "file", "sha256", "task", "model", "status", "label", "probabilities", "logits", "ledger", "warnings", "error",
    "verdict", "abstain", "warning_codes", "calibrated", "operating_point", "conformal_set", "stability",
    "quality", "ood_score", "neighbours", "neighbour_votes", "neighbour_disagreement", "saliency_check",
}  # fmt: skip


@pytest.fixture
def binary(checkpoint_root: Path) -> list[str]:
    return ["--task", "binary", "--model", str(checkpoint_root / "binary" / "dermadeit")]


def _run(*arguments: object, exit_code: int = 0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == exit_code, result.output
    return result


def test_predict_prints_a_json_line_for_each_image(binary: list[str], lesion_files: list[Path]) -> None:
    result = _run("predict", *lesion_files[:3], *binary, "--views", 2, "--format", "jsonl")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["file"] for line in lines] == [str(path) for path in lesion_files[:3]]
    for line in lines:
        assert line.keys() >= KEYS
        assert line["status"] == "ok"
        assert line["label"] == max(line["probabilities"], key=line["probabilities"].get)
        assert list(line["probabilities"]) == list(line["logits"]) == ["nevus", "others"]


def test_predict_reads_a_folder(binary: list[str], lesion_files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    shutil.copy(lesion_files[0], tmp_path / "deeper" / "a.jpg")
    shutil.copy(lesion_files[1], tmp_path / "b.unknown")
    (tmp_path / "labels.csv").write_text("image_id,label\n")
    (tmp_path / ".hidden.jpg").write_bytes(b"")
    result = _run("predict", tmp_path, *binary, "--format", "jsonl")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["file"] for line in lines] == [
        str(tmp_path / "b.unknown"),
        str(tmp_path / "deeper" / "a.jpg"),
    ]
    (tmp_path / "empty").mkdir()
    result = _run("predict", tmp_path / "empty", *binary, exit_code=2)
    assert "no images" in result.stderr


def test_one_bad_file_never_stops_the_others(
    binary: list[str], lesion_files: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "bad.jpg").write_bytes(lesion_files[0].read_bytes()[:200])
    files = [lesion_files[0], tmp_path / "bad.jpg", tmp_path / "missing.jpg", lesion_files[1]]
    result = _run("predict", *files, *binary, "--format", "jsonl", exit_code=3)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["status"] for line in lines] == ["ok", "failed", "failed", "ok"]
    assert lines[1]["error"].keys() == {"code", "message"}
    assert lines[1].keys() >= KEYS


def test_predict_prints_a_readable_table(binary: list[str], lesion_files: list[Path], tmp_path: Path) -> None:
    trick = tmp_path / "a\x1b[31mb.jpg"
    trick.write_bytes(b"")
    result = _run("predict", lesion_files[0], trick, *binary, exit_code=3)
    good, bad = result.stdout.splitlines()
    assert "nevus" in good and "%" in good
    assert "\x1b" not in bad and "empty" in bad


def test_predict_writes_an_overlay_for_each_image_it_could_read(
    binary: list[str], lesion_files: list[Path], tmp_path: Path
) -> None:
    result = _run(
        "predict", lesion_files[0], tmp_path / "missing.jpg", *binary,
        "--saliency", tmp_path / "maps", "--format", "jsonl", exit_code=3,
    )  # fmt: skip
    line = json.loads(result.stdout.splitlines()[0])
    [written] = (tmp_path / "maps").iterdir()
    assert Path(line["saliency"]) == written
    with Image.open(written) as overlay, Image.open(lesion_files[0]) as photo:
        assert overlay.size == photo.size
        assert not np.array_equal(np.asarray(overlay), np.asarray(photo.convert("RGB")))


@pytest.fixture(scope="module")
def withholding(
    checkpoint_root: Path, synthetic_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> list:
    """A photo that shows nothing, and the options of a model that withholds its answer."""
    folder = tmp_path_factory.mktemp("withholding")
    for name in ("model.safetensors", "config.json"):
        (folder / name).write_bytes((checkpoint_root / "binary" / "dermadeit" / name).read_bytes())
    lines = [
        f"{path.name},{BINARY.classes[index % 2]},{index},calibration"
        for index, path in enumerate(sorted((synthetic_data / "images").iterdir())[:26])
    ]
    (folder / "table.csv").write_text("\n".join(["file,label,lesion_group,split", *lines]) + "\n")
    manifest = read_source(folder / "table.csv", BINARY, synthetic_data / "images")
    write_trust(folder, fit_trust(manifest, None, Predictor(load_checkpoint(folder)), views=1))
    Image.new("RGB", (90, 90), (255, 255, 255)).save(folder / "white.png")
    return [folder / "white.png", "--task", "binary", "--model", folder, "--views", 1]


@pytest.mark.slow
def test_an_overlay_does_not_give_a_withheld_answer_away(withholding: list, tmp_path: Path) -> None:
    arguments = ["predict", *withholding, "--saliency", tmp_path]
    printed = _run(*arguments).stdout
    assert "no heatmap, because the answer is withheld" in printed
    assert "nevus" not in printed
    assert "others" not in printed
    line = json.loads(_run(*arguments, "--format", "jsonl").stdout)
    assert (line["verdict"], line["saliency"]) == ("abstain", None)
    assert not list(tmp_path.iterdir())
    line = json.loads(_run(*arguments, "--even-if-withheld", "--format", "jsonl").stdout)
    assert [line["saliency"]] == [str(path) for path in tmp_path.iterdir()]


def test_a_text_line_of_a_withheld_answer_leaves_out_what_would_name_it() -> None:
    line = {
        "file": "a.jpg", "error": None, "probabilities": {"nevus": 1.0}, "verdict": "abstain",
        "abstain": {"reasons": ["It is blurred."]}, "warnings": ["Small.", "Most speak against Nevus."],
        "neighbour_disagreement": True,
    }  # fmt: skip
    assert _prediction_line(line) == "a.jpg\tanswer withheld\tIt is blurred.\tSmall."


def test_a_conditional_answer_is_printed_with_its_condition(
    checkpoint_root: Path, lesion_files: list[Path]
) -> None:
    folder = checkpoint_root / "multiclass" / "dermadeit"
    arguments = ["predict", lesion_files[0], "--task", "multiclass", "--model", folder, "--views", 1]
    assert MULTICLASS.caveat in _run(*arguments).stderr
    result = _run(*arguments, "--format", "jsonl")
    assert MULTICLASS.caveat not in result.stderr
    assert json.loads(result.stdout)["status"] == "ok"


def test_evaluate_writes_its_files_and_prints_the_figures(
    binary: list[str], synthetic_data: Path, tmp_path: Path
) -> None:
    source = synthetic_data / "manifest.csv"
    result = _run("evaluate", source, *binary, "--split", "test", "--views", 1, "--output", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "metrics.json", "predictions.csv", "failures.csv", "attributes.csv",
    }  # fmt: skip
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())["dermadeit"]
    assert f"accuracy            {metrics['accuracy']:.3f}" in result.stdout
    assert metrics.keys() >= {
        "n", "accuracy", "precision_macro", "recall_macro", "f1_macro", "cohen_kappa", "balanced_accuracy",
        "roc_auc", "confusion_matrix",
    }  # fmt: skip


@pytest.mark.slow
def test_evaluate_takes_class_folders_and_several_models(
    checkpoint_root: Path, lesion_files: list[Path], tmp_path: Path
) -> None:
    for index, path in enumerate(lesion_files):
        target = tmp_path / "images" / ("nevus" if index % 2 else "others") / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (tmp_path / "images" / "others" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    models = [f"--model={checkpoint_root / 'binary' / name}" for name in ("dermadeit", "mobilenetv2")]
    _run(
        "evaluate",
        tmp_path / "images",
        "--task",
        "binary",
        *models,
        "--output",
        tmp_path / "out",
        exit_code=3,
    )
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert list(metrics) == ["dermadeit", "mobilenetv2"]
    assert metrics["dermadeit"]["n"] == len(lesion_files)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "a.jpg", "--task", "benign"], "benign"),
        (["predict", "--task", "binary"], "IMAGE"),
        (["predict", "a.jpg", "--task", "binary", "--views", "9"], "equal to 8"),
        (["predict", "a.jpg", "--task", "binary", "--model", "resnet"], "resnet"),
        (["predict", "a.jpg", "--task", "binary", "--model", "dinov2"], "train/distill.py"),
        (["evaluate", "missing.csv", "--task", "binary", "--output", "out"], "missing.csv"),
        (["predict", "a.jpg", "--task", "multiclass", "--model", "./nowhere"], "nowhere"),
    ],
)
def test_mistakes_in_the_call_end_with_a_sentence_and_exit_code_2(arguments: list[str], message: str) -> None:
    result = _run(*arguments, exit_code=2)
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not result.stdout


def test_two_checkpoints_of_one_model_are_not_mixed_up(
    binary: list[str], synthetic_data: Path, tmp_path: Path
) -> None:
    result = _run(
        "evaluate", synthetic_data / "manifest.csv", *binary, "--model", f"{binary[3]}/",
        "--output", tmp_path / "out", exit_code=2,
    )  # fmt: skip
    assert "both of the model “dermadeit”" in result.stderr


def test_leaking_tables_are_refused_unless_allowed(
    binary: list[str], lesion_files: list[Path], tmp_path: Path
) -> None:
    table = tmp_path / "labels.csv"
    rows = [
        f"{path.name},nevus,L1,{split}" for path, split in zip(lesion_files, ("train", "test"), strict=False)
    ]
    table.write_text("\n".join(["file,label,lesion_id,split", *rows]) + "\n")
    arguments = ["evaluate", table, *binary, "--images", lesion_files[0].parent, "--output", tmp_path / "out"]
    refused = _run(*arguments, exit_code=2).stderr
    assert "L1" in refused and "--allow-leaks" in refused
    assert "includes training images" in _run(*arguments, "--allow-leaks").stderr


def test_an_output_that_is_a_file_is_refused_before_any_work(
    binary: list[str], synthetic_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").touch()
    arguments = ["evaluate", synthetic_data / "manifest.csv", *binary, "--output", tmp_path / "out"]
    assert "can't be used as a folder" in _run(*arguments, exit_code=2).stderr


def test_a_checkpoint_of_the_other_task_is_refused(checkpoint_root: Path, lesion_files: list[Path]) -> None:
    folder = checkpoint_root / "binary" / "dermadeit"
    result = _run("predict", lesion_files[0], "--task", "multiclass", "--model", folder, exit_code=2)
    assert "“binary”, not “multiclass”" in result.stderr


def test_models_lists_every_network_and_how_to_train_the_others() -> None:
    rows = [json.loads(line) for line in _run("models", "--format", "jsonl").stdout.splitlines()]
    assert {row["model"] for row in rows} == set(MODEL_SPECS)
    embedded = [(row["model"], row["task"]) for row in rows if row["from"] == "embedded"]
    folders = {find_checkpoint(task.key, name) for name in MODEL_SPECS for task in answered_tasks(name)}
    assert sorted(embedded) == sorted((folder.name, read_task(folder).key) for folder in folders)
    [missing] = [row for row in rows if row["model"] == "dinov2"]
    assert "python train/distill.py --recipe dinov2 --task diagnosis" in missing["from"]
    assert all(row["parameters"] > 1e6 for row in rows)
    assert "MB" in _run("models").stdout


def test_runs_as_a_module() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "dermadeit", "--help"], capture_output=True, text=True, check=True
    )
    assert "not a medical device" in result.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["models"], ["predict", "--help"]])
def test_what_reads_no_photo_loads_nothing_slow(arguments: list[str]) -> None:
    program = (
        "import sys\n"
        "from dermadeit.cli import app\n"
        f"app({arguments}, standalone_mode=False)\n"
        "slow = {'torch', 'timm', 'sklearn', 'matplotlib', 'gradio', 'openvino'}\n"
        "print(slow & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip()
    assert done.stderr.strip() == "set()"


def test_the_version_is_that_of_the_package() -> None:
    assert _run("--version").stdout.strip() == dermadeit.__version__


def _commands() -> dict[str, Any]:
    """Every command by its words."""
    root = typer.main.get_command(app)
    found = {}
    for name, command in root.commands.items():
        inner = getattr(command, "commands", None) or {"": command}
        found |= {f"{name} {key}".strip(): each for key, each in inner.items()}
    return found


@pytest.mark.parametrize("name", list(_commands()))
def test_help_ends_with_an_example_of_the_command(name: str) -> None:
    command = _commands()[name]
    words = shlex.split(command.epilog)
    assert words[: 4 + len(name.split())] == ["Example:", "python", "-m", "dermadeit", *name.split()]
    # It can be parsed, with all that is required.
    command.make_context(name, words[4 + len(name.split()) :])


def test_a_wrong_choice_names_the_right_ones() -> None:
    result = _run("predict", "photo.jpg", "--operating-point", "best", exit_code=2)
    assert all(name in result.stderr for name in OPERATING_POINTS)


def test_quiet_prints_results_alone(checkpoint_root: Path, lesion_files: list[Path]) -> None:
    arguments = [
        "predict",
        lesion_files[0],
        "--model",
        checkpoint_root / "multiclass" / "dermadeit",
        "--views",
        1,
    ]
    loud, quiet = _run(*arguments), _run("--quiet", *arguments)
    assert MULTICLASS.caveat in loud.stderr
    assert quiet.stderr == ""
    assert quiet.stdout == loud.stdout


def test_the_doctor_ends_with_a_code(monkeypatch: pytest.MonkeyPatch) -> None:
    for works, exit_code in ((True, 0), (False, 2)):
        findings = [Finding("torch", "2.11"), Finding("photo", "what was found", works=works)]
        monkeypatch.setattr("dermadeit.inference.doctor.examine", lambda findings=findings: iter(findings))
        assert "what was found" in _run("doctor", exit_code=exit_code).stdout


def test_any_picture_of_a_dicom_file_can_be_read(binary: list[str], tmp_path: Path) -> None:
    frames = np.stack([smooth_pixels(), 255 - smooth_pixels()])
    (tmp_path / "two.dcm").write_bytes(dicom_file(frames, "RGB", frames=2))
    Image.fromarray(frames[1]).save(tmp_path / "second.png")
    arguments = [*binary, "--views", 1, "--format", "jsonl"]
    second, alone = (
        json.loads(_run("predict", tmp_path / name, "--frame", frame, *arguments).stdout)
        for name, frame in (("two.dcm", 2), ("second.png", 1))
    )
    assert second["logits"] == pytest.approx(alone["logits"])
    failed = json.loads(_run("predict", tmp_path / "two.dcm", "--frame", 3, *arguments, exit_code=3).stdout)
    assert failed["error"]["code"] == "no_such_frame"
    assert Path(failed["file"]).name == "two.dcm"
