"""Cross-validation of recipes: who learns from what, what is kept, and that an interrupted search goes on."""

import csv
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from dermadeit.data.manifest import read_source
from dermadeit.tasks import TRAINABLE_TASKS
from train.answers import EXTERNAL, Answers, Images
from train.command_line import parse_arguments
from train.cross_validation import SEARCH_FILE, main, plan_runs, read_pool

SHIPPED = yaml.safe_load(SEARCH_FILE.read_text(encoding="utf-8"))
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


def test_every_shipped_arm_has_arguments_that_train_accepts() -> None:
    for run in plan_runs(SHIPPED, ["a", "b"]):
        assert parse_arguments(run.arguments).configuration.data.task == "diagnosis"


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
    pool = read_pool(data, 3)
    manifest = read_source(data / "manifest.csv", TRAINABLE_TASKS["diagnosis"])
    untouched = {row.image_id for row in manifest.rows if row.split == "test"}
    assert untouched
    assert {row.image_id for row in pool.manifest.rows} == {row.image_id for row in manifest.rows} - untouched
    lesions = {(row.lesion_group, row.split) for row in pool.manifest.rows}
    assert len(lesions) == len({lesion for lesion, _ in lesions})
    for diagnosis in pool.manifest.task.classes:
        counts = Counter(row.split for row in pool.manifest.rows if row.label == diagnosis)
        assert len(counts) == 3


def test_a_training_sees_neither_its_fold_nor_the_source_that_is_left_out(data: Path) -> None:
    pool = read_pool(data, 2)
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
    sources = read_pool(data, 2).sources
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
    read_pool(data, 3).images.keep(tmp_path)
    before = (tmp_path / "images.npz").read_bytes()
    assert main(["--data", str(data), "--search", str(search_file), "--output", str(tmp_path)]) == 2
    assert (tmp_path / "images.npz").read_bytes() == before
    assert not list(tmp_path.rglob("*seed*"))
