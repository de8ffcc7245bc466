"""The programme of trainings: what runs, in which order, and what becomes of those that fail."""

from pathlib import Path

import pytest
import yaml

from train import programme as programme_module
from train.command_line import parse_arguments
from train.programme import PROGRAMME_FILE, fill, main, read_trainings

SHIPPED = yaml.safe_load(PROGRAMME_FILE.read_text(encoding="utf-8"))

# In place of train/distill.py: writes what a finished training leaves behind, or fails.
STAND_IN = """
import pathlib, sys
output = pathlib.Path(sys.argv[sys.argv.index("--output") + 1])
with (output.parent / "order.txt").open("a") as order:
    order.write(output.name + " ")
if "--fail" in sys.argv:
    sys.exit(2)
for needed in [a for a in sys.argv if a.startswith("checkpoint:")]:
    for folder in needed.removeprefix("checkpoint:").split(","):
        assert (pathlib.Path(folder) / "validation" / "failures.csv").is_file(), folder
(output / "validation").mkdir(parents=True, exist_ok=True)
(output / "validation" / "failures.csv").write_text("")
(output / "arguments.txt").write_text(" ".join(sys.argv[1:]))
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs a programme's stages with a stand-in for distill.py, into runs/."""
    (tmp_path / "distill.py").write_text(STAND_IN)
    monkeypatch.setattr(programme_module, "__file__", str(tmp_path / "programme.py"))
    monkeypatch.setattr(programme_module, "PROGRAMME_FILE", tmp_path / "programme.yaml")

    def with_stages(stages: dict, *arguments: str) -> int:
        programme = {"teachers": {"teacher": ["a", "b"]}, "stages": stages}
        (tmp_path / "programme.yaml").write_text(yaml.safe_dump(programme, sort_keys=False))
        return main(["--output", str(tmp_path / "runs"), *arguments])

    return with_stages


def _order(tmp_path: Path) -> list[str]:
    return (tmp_path / "runs" / "order.txt").read_text().split()


def test_every_shipped_training_has_arguments_that_train_accepts(tmp_path: Path) -> None:
    trainings = list(read_trainings(SHIPPED))
    assert len({training.name for training in trainings}) == len(trainings)
    stage_of, stages = {training.name: training.stage for training in trainings}, list(SHIPPED["stages"])
    for training in trainings:
        filled = [fill(word, SHIPPED, tmp_path) for word in training.arguments]
        words = ["--epochs", "99", "--seed", "7", *(word for word, _ in filled)]
        settings = parse_arguments(words).configuration.settings
        # What a training says itself wins.
        assert settings["seed"] == (int(training.name[-1]) if "--seed" in training.arguments else 7)
        assert (settings["epochs"] < 99) == ("--epochs" in training.arguments)
        assert "{" not in settings["teacher"] + settings["init"]
        # What it builds on has been run before.
        for folder in (folder for _, folders in filled for folder in folders):
            builds_on = stage_of[folder.relative_to(tmp_path).as_posix()]
            assert stages.index(builds_on) < stages.index(training.stage)


def test_a_stage_is_compared_with_one_of_the_same_trainings() -> None:
    stages = SHIPPED["stages"]
    compared = [stage for stage in stages.values() if "compared_with" in stage]
    assert compared
    for stage in compared:
        other = stages[stage["compared_with"]]
        assert other["trainings"].keys() == stage["trainings"].keys()
        assert other["tasks"].keys() == stage["tasks"].keys()


def test_cumulative_trainings_add_up_and_tasks_and_seeds_multiply() -> None:
    stage = {
        "tasks": {"binary": "--epochs 1", "multiclass": "--epochs 2"},
        "cumulative": True,
        "trainings": {"first": "--alpha 1 --teacher {teacher}", "second": "--alpha 2"},
    }
    found = {training.name: training.arguments for training in read_trainings({"stages": {"s": stage}})}
    assert list(found) == ["binary/s/first", "binary/s/second", "multiclass/s/first", "multiclass/s/second"]
    assert found["multiclass/s/second"] == [
        "--alpha", "1", "--teacher", "{teacher}", "--alpha", "2", "--task", "multiclass", "--epochs", "2",
    ]  # fmt: skip
    repeated = {t.name: t.arguments for t in read_trainings({"stages": {"s": stage | {"seeds": 2}}})}
    assert list(repeated)[:3] == ["binary/s/first-seed0", "binary/s/first-seed1", "binary/s/second-seed0"]
    assert "--seed 1 --task binary" in " ".join(repeated["binary/s/first-seed1"])


def test_a_stage_waits_for_the_one_before(run, tmp_path: Path) -> None:
    stages = {
        "teachers": {"trainings": {"a": "--seed 1", "b": ""}},
        "students": {"trainings": {"student": "--teacher {teacher}", "tuned": "--init {a}"}},
    }
    assert run(stages, "--workers", "2", "--epochs", "3") == 0
    assert set(_order(tmp_path)[:2]) == {"a", "b"} and set(_order(tmp_path)[2:]) == {"student", "tuned"}
    given = {
        name: (tmp_path / "runs" / name / "arguments.txt").read_text() for name in ("a", "student", "tuned")
    }
    assert given["a"].startswith("--epochs 3 --seed 1 --output")
    assert f"--teacher checkpoint:{tmp_path}/runs/a,{tmp_path}/runs/b --output" in given["student"]
    assert f"--init {tmp_path}/runs/a/model.safetensors" in given["tuned"]


def test_a_failure_stops_only_what_builds_on_it(
    run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stages = {
        "teachers": {"trainings": {"a": "--fail", "b": ""}},
        "students": {"trainings": {"student": "--teacher {teacher}", "plain": ""}},
    }
    assert run(stages) == 3
    assert _order(tmp_path) == ["a", "b", "plain"]
    assert "student is left out" in caplog.text


def test_stages_and_names_can_be_chosen(run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stages = {"one": {"trainings": {"a": "", "b": ""}}, "two": {"trainings": {"c": ""}}}
    assert run(stages, "--stage", "one", "--only", "b", "--only", "c") == 0
    assert _order(tmp_path) == ["b"]
    assert run(stages, "--stage", "nope") == 2
    assert "one, two" in caplog.text


def test_backbones_come_from_a_folder_where_one_is_named(run, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    stages = {"one": {"trainings": {"a": "--recipe plain", "b": "--recipe plain --init none"}}}
    programme_file = programme_module.PROGRAMME_FILE
    assert run(stages) == 0
    programme_file.write_text(programme_file.read_text() + "weights: {deit: file.safetensors}\n")
    arguments = ["--output", str(tmp_path / "runs"), "--weights", str(tmp_path / "weights")]
    assert main(arguments) == 0
    assert f"--init {tmp_path}/weights/file.safetensors" in (tmp_path / "runs/a/arguments.txt").read_text()
    assert "weights/file" not in (tmp_path / "runs/b/arguments.txt").read_text()
