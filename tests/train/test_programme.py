"""The programme of trainings: what runs, in which order, and what becomes of those that fail or are cut off."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from dermadeit.errors import ConfigurationError
from train import programme as programme_module
from train.command_line import parse_arguments
from train.programme import PROGRAMME_FILE, Programme, Step, read_steps, run

SHIPPED = yaml.safe_load(PROGRAMME_FILE.read_text(encoding="utf-8"))

# In place of train/distill.py: writes what a finished training leaves behind, or fails.
STAND_IN = """
import pathlib, sys
output = pathlib.Path(sys.argv[sys.argv.index("--output") + 1])
if "--fail" in sys.argv:
    sys.exit(2)
for needed in [a for a in sys.argv if a.startswith("checkpoint:")]:
    for folder in needed.removeprefix("checkpoint:").split(","):
        assert (pathlib.Path(folder) / "validation" / "failures.csv").is_file(), folder
(output / "validation").mkdir(parents=True)
(output / "validation" / "failures.csv").write_text("")
(output / "training.json").write_text('{"environment": {"device": "cpu"}}')
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "train"
    folder.mkdir()
    (folder / "distill.py").write_text(STAND_IN)
    shutil.copy(programme_module.__file__, folder / "programme.py")
    monkeypatch.setattr(programme_module, "__file__", str(folder / "programme.py"))
    monkeypatch.setattr(programme_module, "SECONDS_BETWEEN_LOOKS", 0.01)


def _programme(steps: list[Step], output: Path) -> Programme:
    return Programme(steps, output, None, {})


def test_every_shipped_training_has_arguments_that_train_accepts(tmp_path: Path) -> None:
    steps = read_steps(SHIPPED)
    assert len({step.name for step in steps}) == len(steps)
    extra = ("--data", "isic", "--epochs", "99", "--seed", "7")
    shipped = Programme(steps, tmp_path, tmp_path / "weights", SHIPPED["weights"], tmp_path / "leaky", extra)
    assert shipped.steps == steps
    for step in steps:
        configuration = parse_arguments(shipped.command(step)[2:]).configuration
        assert configuration.output_folder == tmp_path / step.name
        own_start = [name for name in step.needs if "{" + name + "}" in step.arguments]
        folder = tmp_path / own_start[0] if own_start else tmp_path / "weights"
        assert configuration.init.startswith(str(folder))
        assert "{" not in configuration.teacher + configuration.data + configuration.init
        for teacher, networks in SHIPPED["teachers"].items():
            folders = ",".join(str(tmp_path / name) for name in networks)
            assert (configuration.teacher == f"checkpoint:{folders}") == (
                "{" + teacher + "}" in step.arguments
            )
        assert configuration.data == (str(tmp_path / "leaky") if step.stage == "leak-meter" else "isic")
        # What a training says itself wins.
        assert configuration.seed == (int(step.name[-1]) if "--seed" in step.arguments else 7)
        assert (configuration.epochs < 99) == ("--epochs" in step.arguments)


def test_a_stage_is_compared_with_one_of_the_same_trainings() -> None:
    stages = SHIPPED["stages"]
    compared = [stage for stage in stages.values() if "compared_with" in stage]
    assert compared
    for stage in compared:
        other = stages[stage["compared_with"]]
        assert other["trainings"].keys() == stage["trainings"].keys()
        assert other["tasks"].keys() == stage["tasks"].keys()


def test_a_ladder_adds_to_the_rungs_above_and_tasks_multiply() -> None:
    content = {
        "teachers": {"teacher": ["t"]},
        "stages": {
            "climb": {
                "tasks": {"binary": "--epochs 1", "multiclass": "--epochs 2"},
                "ladder": {"first": "--alpha 1 --teacher {teacher}", "second": "--alpha 2"},
            }
        },
    }
    steps = {step.name: step for step in read_steps(content)}
    assert list(steps) == [
        "binary/climb/first", "binary/climb/second", "multiclass/climb/first", "multiclass/climb/second",
    ]  # fmt: skip
    assert steps["multiclass/climb/second"].arguments == (
        "--alpha", "1", "--teacher", "{teacher}", "--alpha", "2", "--task", "multiclass", "--epochs", "2",
    )  # fmt: skip
    assert steps["binary/climb/first"].needs == ("t",)
    content["stages"]["climb"]["ladder"]["second"] += " --init {base/plain}"
    [*_, step] = read_steps(content)
    assert step.needs == ("t", "base/plain")
    assert [step.name for step in read_steps(content, patterns=["*/first"])] == [
        "binary/climb/first", "multiclass/climb/first",
    ]  # fmt: skip
    content["stages"]["climb"]["seeds"] = 2
    repeated = {step.name: step.arguments for step in read_steps(content, patterns=["binary/*/first*"])}
    assert list(repeated) == ["binary/climb/first-seed0", "binary/climb/first-seed1"]
    assert "--seed 1 --task binary" in " ".join(repeated["binary/climb/first-seed1"])
    with pytest.raises(ConfigurationError, match="climb"):
        read_steps(content, ["fall"])


@pytest.mark.usefixtures("stand_in")
def test_trainings_wait_for_what_they_need_and_are_not_run_twice(tmp_path: Path) -> None:
    steps = [
        Step("students", "student", ("--teacher", "{teacher}"), ("a", "b")),
        Step("teachers", "a", (), ()),
        Step("teachers", "b", (), ()),
    ]
    assert run(_programme(steps, tmp_path / "runs"), lanes=2, hours=1)
    account = json.loads((tmp_path / "runs" / "programme.json").read_text())
    assert {name: entry["state"] for name, entry in account["trainings"].items()} == dict.fromkeys(
        ("a", "b", "student"), "done"
    )
    assert account["trainings"]["student"]["device"] == "cpu"
    assert account["to_come"] == []
    ended = account["trainings"]["student"]["ended"]
    assert run(_programme(steps, tmp_path / "runs"), lanes=2, hours=1)
    account = json.loads((tmp_path / "runs" / "programme.json").read_text())
    assert account["trainings"]["student"]["ended"] == ended
    # With other arguments it is another training.
    other = [*steps[:2], Step("teachers", "b", ("--seed", "1"), ())]
    assert not _programme(other, tmp_path / "runs").is_done("b")
    assert _programme(other, tmp_path / "runs").is_done("a")
    # As it is with another teacher.
    fewer = [Step("students", "student", ("--teacher", "{teacher}"), ("a",)), *steps[1:]]
    assert not _programme(fewer, tmp_path / "runs").is_done("student")
    # An account that does not say what it built on is believed.
    del account["trainings"]["student"]["needs"]
    (tmp_path / "runs" / "programme.json").write_text(json.dumps(account))
    assert _programme(fewer, tmp_path / "runs").is_done("student")


@pytest.mark.usefixtures("stand_in")
def test_a_training_with_other_arguments_that_fails_is_not_taken_for_the_one_before(tmp_path: Path) -> None:
    assert run(_programme([Step("teachers", "a", (), ())], tmp_path), lanes=1, hours=1)
    account = json.loads((tmp_path / "programme.json").read_text())
    account["trainings"]["a"]["seconds"] = 1000.0
    (tmp_path / "programme.json").write_text(json.dumps(account))
    steps = [
        Step("teachers", "a", ("--fail",), ()),
        Step("students", "student", ("--teacher", "{teacher}"), ("a",)),
    ]
    assert not run(_programme(steps, tmp_path), lanes=1, hours=1)
    account = json.loads((tmp_path / "programme.json").read_text())
    assert account["trainings"]["a"]["state"] == "failed"
    assert account["trainings"]["a"]["seconds"] < 1000
    assert account["to_come"] == ["a", "student"]


@pytest.mark.usefixtures("stand_in")
def test_a_failure_stops_only_what_needs_it(tmp_path: Path) -> None:
    steps = [
        Step("teachers", "a", ("--fail",), ()),
        Step("students", "student", ("--teacher", "{teacher}"), ("a",)),
        Step("students", "plain", (), ()),
    ]
    assert not run(_programme(steps, tmp_path), lanes=1, hours=1)
    account = json.loads((tmp_path / "programme.json").read_text())
    assert account["trainings"]["a"]["state"] == "failed"
    assert account["trainings"]["plain"]["state"] == "done"
    assert account["to_come"] == ["a", "student"]


@pytest.mark.usefixtures("stand_in")
def test_a_training_that_runs_out_of_time_is_stopped_and_counted(tmp_path: Path) -> None:
    (Path(programme_module.__file__).parent / "distill.py").write_text("import time; time.sleep(600)")
    assert not run(_programme([Step("s", "long", (), ())], tmp_path), lanes=1, hours=1e-6)
    account = json.loads((tmp_path / "programme.json").read_text())
    assert account["trainings"]["long"]["state"] == "cut off"


def test_the_command_line_names_its_stages(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    assert programme_module.main(["--stage", "nope"]) == 2
    assert "teachers" in caplog.text
    with caplog.at_level("INFO"):
        assert programme_module.main(["--list", "--output", str(tmp_path)]) == 0
    assert "binary/final/dermadeit (to come)" in caplog.text
    assert sys.executable not in caplog.text
