"""Cross-validation of recipes: who learns from what, what is kept, and that an interrupted search goes on."""

import csv
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from dermadeit.data.manifest import read_source
from dermadeit.errors import ConfigurationError
from dermadeit.tasks import TASKS
from train.answers import EXTERNAL, Answers, Images
from train.command_line import parse_arguments
from train.cross_validation import SEARCH_FILE, main, plan_runs, read_pool
from train.data.splitting import fold_of
from train.teachers.file import read_teacher_file

SHIPPED = [SEARCH_FILE, SEARCH_FILE.with_name("regimes.yaml")]
SEARCH = {
    "folds": 2,
    "base": "--recipe plain --task diagnosis --init none --image-size 32 --batch-size 8 --epochs 1 --ema-decay 0",
    "arms": {"plain": "", "strong": "--colour 0.5"},
    "leave_one_source_out": ["plain"],
}


@pytest.fixture(scope="module")
def data(synthetic_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic lesions in two sources, and some of the pictures a second time as photos of other cameras."""
    folder = tmp_path_factory.mktemp("pool")
    shutil.copytree(synthetic_data, folder, dirs_exist_ok=True)
    with (folder / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    lesions: dict[str, list[str]] = {}
    for row in rows:
        of_diagnosis = lesions.setdefault(row["diagnosis"], [])
        if row["lesion_group"] not in of_diagnosis:
            of_diagnosis.append(row["lesion_group"])
        row["dataset"] = ("east", "west")[of_diagnosis.index(row["lesion_group"]) % 2]
    with (folder / "manifest.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0].keys())
        table.writeheader()
        table.writerows(rows)
    (folder / "other").mkdir()
    with (folder / "isic2020_external.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image_id", "file", "label"])
        for index, picture in enumerate(sorted((folder / "images").iterdir())[:6]):
            shutil.copy(picture, folder / "other" / f"other_{index}{picture.suffix}")
            table.writerow(
                [f"other_{index}", f"other/other_{index}{picture.suffix}", ("MEL", "benign")[index % 2]]
            )
    return folder


@pytest.fixture(scope="module")
def search_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("search") / "search.yaml"
    path.write_text(yaml.safe_dump(SEARCH, sort_keys=False))
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_arm_has_arguments_that_train_accepts(path: Path) -> None:
    search = yaml.safe_load(path.read_text(encoding="utf-8"))
    for run in plan_runs(search, ["a", "b"]):
        assert parse_arguments(run.arguments).configuration.data.task == "diagnosis"
    for arm, other in search.get("compared_with", {}).items():
        # Compared are trainings of as many steps that differ by the teacher alone.
        words = [search["arms"][name].split(" --teacher")[0] for name in (arm, other)]
        assert words[0] == words[1] or arm.endswith("-short")
    assert search.get("titles", {}).keys() <= search.get("compared_with", {}).keys()


def test_all_arms_of_the_first_fold_come_first_then_those_without_a_source() -> None:
    names = [run.name for run in plan_runs(SEARCH, ["a", "b"], seeds=2)]
    assert names[:4] == [
        "plain/fold0-seed0", "strong/fold0-seed0", "plain/fold0-seed0-without-a", "plain/fold0-seed0-without-b",
    ]  # fmt: skip
    assert names[4:6] == ["plain/fold1-seed0", "strong/fold1-seed0"]
    assert len(set(names)) == len(names) == 12


def test_an_option_overrules_the_base_but_not_an_arm() -> None:
    runs = plan_runs(SEARCH, [], extra=["--colour", "0.3", "--epochs", "5"])
    settings = {run.arm: parse_arguments(run.arguments).configuration.settings for run in runs}
    assert [settings[arm]["colour"] for arm in SEARCH["arms"]] == [0.3, 0.5]
    assert {settings[arm]["epochs"] for arm in SEARCH["arms"]} == {5}


def test_folds_keep_lesions_whole_and_diagnoses_even_and_leave_test_alone(data: Path) -> None:
    pool = read_pool(data, {"folds": 3})
    manifest = read_source(data / "manifest.csv", TASKS["diagnosis"])
    untouched = {row.image_id for row in manifest.rows if row.split == "test"}
    assert untouched
    assert {row.image_id for row in pool.manifest.rows} == {row.image_id for row in manifest.rows} - untouched
    lesions = {(row.lesion_group, row.split) for row in pool.manifest.rows}
    assert len(lesions) == len({lesion for lesion, _ in lesions})
    for diagnosis in pool.manifest.task.classes:
        counts = Counter(row.split for row in pool.manifest.rows if row.label == diagnosis)
        assert len(counts) == 3


def test_a_training_sees_neither_its_fold_nor_the_source_that_is_left_out(data: Path) -> None:
    pool = read_pool(data, {"folds": 2})
    source = pool.sources[0]
    run = next(run for run in plan_runs(SEARCH, pool.sources) if run.without == source)
    manifest, beside = pool.part(run)
    learnt, held_out = manifest.select("train"), manifest.select("validation")
    assert source not in {row.source for row in learnt.rows}
    assert source in {row.source for row in held_out.rows}
    assert {row.source for row in beside.rows} == {source}
    lesions = [{row.lesion_group for row in part.rows} for part in (learnt, held_out, beside)]
    assert sum(map(len, lesions)) == len(set.union(*lesions))
    assert sum(len(part.rows) for part in (learnt, held_out, beside)) == len(pool.manifest.rows)


def test_an_interrupted_search_goes_on_and_keeps_answers_only(
    data: Path, search_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def search(output: Path) -> int:
        return main(
            [
                "--data",
                str(data),
                "--search",
                str(search_file),
                "--output",
                str(output),
                "--epochs",
                "2",
                "--only",
                "plain/fold0-*",
            ]
        )

    assert search(tmp_path / "whole") == 0
    files = {path.relative_to(tmp_path / "whole").as_posix() for path in (tmp_path / "whole").rglob("*.*")}
    sources = read_pool(data, {"folds": 2}).sources
    assert files == {
        "images.npz", "plain/fold0-seed0.npz", *(f"plain/fold0-seed0-without-{name}.npz" for name in sources),
    }  # fmt: skip

    with monkeypatch.context() as patched:
        # Cut off when the first training has learnt and not yet answered.
        patched.setattr("train.cross_validation.answer", _cut_off)
        with pytest.raises(KeyboardInterrupt):
            search(tmp_path / "cut")
    assert search(tmp_path / "cut") == 0
    for name in sorted(files - {"images.npz"}):
        whole, cut = (Answers.read(tmp_path / folder / name) for folder in ("whole", "cut"))
        assert whole.image_ids.tolist() == cut.image_ids.tolist()
        assert np.array_equal(whole.log_probabilities, cut.log_probabilities)

    images, answers = Images.read(tmp_path / "whole"), Answers.read(tmp_path / "whole/plain/fold0-seed0.npz")
    asked = images.image_ids[(images.folds == 0) | (images.folds == EXTERNAL)]
    assert sorted(answers.image_ids.tolist()) == sorted(asked.tolist())
    assert np.exp(answers.log_probabilities.astype(float)).sum(axis=1) == pytest.approx(1, abs=0.01)
    named = dict(zip(answers.image_ids.tolist(), answers.named_sources.tolist(), strict=True))
    assert {named[image_id] for image_id in images.image_ids[images.folds == 0].tolist()} <= set(sources)
    assert {named[image_id] for image_id in images.image_ids[images.folds == EXTERNAL].tolist()} == {""}


def _cut_off(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_arm_whose_settings_have_changed_is_not_taken_for_done(
    data: Path, search_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["--data", str(data), "--search", str(search_file), "--output", str(tmp_path)]
    words += ["--only", "plain/fold0-seed0", "--learning-rate"]
    assert main([*words, "1e-3"]) == 0
    assert main([*words, "1e-3", "--workers", "0"]) == 0
    assert main([*words, "2e-3"]) == 2
    assert "learning_rate" in caplog.text


def test_answers_about_other_folds_are_not_mixed(data: Path, search_file: Path, tmp_path: Path) -> None:
    read_pool(data, {"folds": 3}).images.keep(tmp_path)
    before = (tmp_path / "images.npz").read_bytes()
    assert main(["--data", str(data), "--search", str(search_file), "--output", str(tmp_path)]) == 2
    assert (tmp_path / "images.npz").read_bytes() == before
    assert not list(tmp_path.rglob("*seed*"))


HELD_OUT = {
    "held_out": ["validation", "calibration"],
    "seeds": 2,
    "base": f"{SEARCH['base']} --epoch-steps 2 --logit-adjustment 0",
    "arms": {
        "taught": "--label-share 0.5 --teacher {plain,other}",
        "plain": "--label-share 0.5",
        "other": "--label-share 0.5 --image-size 48",
        "first": "--label-noise 0.5 --folds 2 --held-out-fold 0",
        "second": "--label-noise 0.5 --folds 2 --held-out-fold 1",
        "denoised": "--label-noise 0.5 --teacher {first,second}",
    },
}


@pytest.fixture(scope="module")
def regimes(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a search whose students stand above their teachers, with one seed."""
    folder = tmp_path_factory.mktemp("regimes")
    (folder / "search.yaml").write_text(yaml.safe_dump(HELD_OUT, sort_keys=False))
    words = ["--data", data, "--search", folder / "search.yaml", "--output", folder / "runs", "--seeds", "1"]
    assert main([str(word) for word in words]) == 0
    return folder / "runs"


def test_students_wait_for_their_teachers_and_learn_what_these_say_together(
    regimes: Path, data: Path
) -> None:
    pool = read_pool(data, HELD_OUT)
    train = {row.image_id: row.lesion_group for row in pool.manifest.rows if row.split == "1"}
    said = [
        read_teacher_file(f"file:{regimes}/teaching/{name}/fold0-seed0.npz", ())
        for name in ("plain", "other")
    ]
    together = read_teacher_file(f"file:{regimes}/teaching/taught/fold0-seed0-teacher.npz", ())
    assert set(together.names) == set(train) and all(set(file.names) == set(train) for file in said)
    mean = (
        sum(np.array([file.vectors[file.names.index(name)] for name in together.names]) for file in said) / 2
    )
    expected = np.exp(mean) / np.exp(mean).sum(axis=1, keepdims=True)
    assert np.exp(together.vectors) == pytest.approx(expected, abs=2e-3)
    # Networks in folds speak of lesions that they did not see, and together of all.
    halves = [
        read_teacher_file(f"file:{regimes}/teaching/{name}/fold0-seed0.npz", ())
        for name in ("first", "second")
    ]
    for fold, half in enumerate(halves):
        assert {fold_of(train[name], 2) for name in half.names} == {fold}
    whole = read_teacher_file(f"file:{regimes}/teaching/denoised/fold0-seed0-teacher.npz", ())
    assert set(whole.names) == set(train)


def test_held_out_splits_are_answered_about_and_nothing_else(regimes: Path, data: Path) -> None:
    manifest = read_source(data / "manifest.csv", TASKS["diagnosis"])
    held_out = {row.image_id for row in manifest.rows if row.split in HELD_OUT["held_out"]}
    for arm in HELD_OUT["arms"]:
        assert set(Answers.read(regimes / arm / "fold0-seed0.npz").image_ids.tolist()) == held_out
    images = Images.read(regimes)
    assert set(images.image_ids[images.folds == 0].tolist()) == held_out
    assert "test" not in {row.split for row in manifest.rows if row.image_id in images.image_ids.tolist()}


def test_a_student_whose_teacher_is_not_chosen_is_left_out(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(HELD_OUT, sort_keys=False))
    words = ["--data", data, "--search", tmp_path / "search.yaml", "--output", tmp_path / "runs"]
    assert main([*map(str, words), "--only", "taught/*"]) == 3
    assert caplog.text.count("its teachers are not done") == 2
    assert not list((tmp_path / "runs").rglob("*seed*"))


def test_a_plan_names_its_seeds_and_teachers() -> None:
    runs = list(plan_runs(HELD_OUT, ["a", "b"]))
    assert [run.name for run in runs[:1] + runs[6:7]] == ["taught/fold0-seed0", "taught/fold0-seed1"]
    assert [teacher.name for teacher in runs[6].teachers] == ["plain/fold0-seed1", "other/fold0-seed1"]
    assert {run.arm for run in runs if run.teaches} == {"plain", "other", "first", "second"}
    unknown = HELD_OUT | {"arms": {"taught": "--teacher {nobody}"}}
    with pytest.raises(ConfigurationError, match="nobody"):
        list(plan_runs(unknown, []))
