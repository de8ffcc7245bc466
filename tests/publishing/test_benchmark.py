"""The published comparison: predictions filed compactly, and every figure and table made of them alone."""

import csv
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from typer.testing import CliRunner

from dermadeit.cli import app
from dermadeit.publishing.benchmark import read_benchmark
from dermadeit.publishing.benchmark_table import (
    END,
    START,
    SUMMARY_END,
    SUMMARY_START,
    render_summary,
    render_tables,
)
from dermadeit.tasks import BINARY, DIAGNOSIS, MALIGNANCY, MULTICLASS, get_task

IMAGES = 90
FILED = ("binary", "multiclass")
MODELS = {
    "dermadeit": {},
    "deit": {"note": "three seeds"},
    "dinov2": {"command": "python train/distill.py --model dinov2 --task {task}"},
    "mlp": {"title": "An MLP"},
}


def _write_predictions(
    folder: Path,
    model: str,
    skill: float,
    task: str = "binary",
    views: int = 8,
    overwrite: Mapping | None = None,
) -> Path:
    """A table as `evaluate` writes it, of the same images for every model, with some columns overwritten."""
    classes = get_task(task).classes
    labels = np.random.default_rng(0).integers(0, len(classes), IMAGES)
    noise = np.random.default_rng([len(model), views]).normal(size=(IMAGES, len(classes)))
    rows = [
        {
            "image_id": f"ISIC_{index:04}",
            "file": f"{index}.jpg",
            "task": task,
            "model": model,
            "views": views,
            "label_true": classes[label],
            **{
                f"logit_{key}": noise[index, k] + skill * (label == k) for k, key in enumerate(classes)
            },
            "lesion_group": f"ISIC_{index // 2 * 2:04}",
            "source": "ham" if index % 3 else "bcn",
            "split": "test",
        }
        | dict(overwrite or {})
        for index, label in enumerate(labels)
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "predictions.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def _benchmark(*arguments: object, exit_code: int = 0):
    result = CliRunner().invoke(app, ["benchmark", *map(str, arguments)])
    assert result.exit_code == exit_code, result.output
    return result


def _write_tables(root: Path, results: Path, exit_code: int = 0):
    documents = ["--results", results, "--readme", results.with_name("README.md")]
    return _benchmark("table", "--root", root, *documents, exit_code=exit_code)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a benchmark of both tasks and three models, one with one view only, and its two documents."""
    folder = tmp_path_factory.mktemp("published")
    root = folder / "benchmark"
    for task in FILED:
        ours = [
            _write_predictions(folder / f"{task}-{views}", "dermadeit", 2.0, task, views) for views in (1, 8)
        ]
        _benchmark("add", *ours, "--root", root)
        deit = _write_predictions(folder / f"{task}-deit", "deit", 0.3, task)
        _benchmark("add", deit / "predictions.csv", "--root", root)
        mlp = _write_predictions(folder / f"{task}-mlp", "features", 2.1, task, views=1)
        _benchmark("add", mlp, "--name", "mlp", "--root", root)
    (root / "models.json").write_text(json.dumps(MODELS))
    (folder / "results.md").write_text(f"# Ours\n\n{START}\nstale\n{END}\n\nThe end.\n")
    (folder / "README.md").write_text(f"# Short\n\n{SUMMARY_START}{SUMMARY_END}\n\nThe end.\n")
    _write_tables(root, folder / "results.md")
    return folder


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    """A copy of the benchmark to change."""
    return Path(shutil.copytree(published / "benchmark", tmp_path / "benchmark"))


@pytest.fixture
def results(published: Path, tmp_path: Path) -> Path:
    """A copy of the results to change, with README beside it."""
    shutil.copy(published / "README.md", tmp_path)
    return Path(shutil.copy(published / "results.md", tmp_path))


def _metrics(root: Path, task: str = "binary") -> Mapping:
    return json.loads((root / task / "metrics.json").read_text())


def _rows(text: str, first_cell: str) -> list[list[str]]:
    lines = re.findall(rf"^\| {re.escape(first_cell)} \|(.*)\|$", text, re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in lines]


@pytest.mark.slow
def test_filed_predictions_are_those_that_were_added(published: Path) -> None:
    filed = read_benchmark(published / "benchmark" / "binary", get_task("binary"))
    assert {model: list(by_views) for model, by_views in filed.models.items()} == {
        "deit": [8], "dermadeit": [8, 1], "mlp": [1],
    }  # fmt: skip
    with (published / "binary-8" / "predictions.csv").open() as stream:
        added = list(csv.DictReader(stream))
    ours = filed.models["dermadeit"][8]
    logits = np.array([[float(row[f"logit_{key}"]) for key in ("nevus", "others")] for row in added])
    np.testing.assert_allclose(ours.logits, logits, atol=0.5e-4 + 1e-9)
    np.testing.assert_allclose(ours.probabilities.sum(axis=1), 1)
    assert ours.image_ids == tuple(row["image_id"] for row in added)
    assert ours.lesion_groups == tuple(row["lesion_group"] for row in added)
    assert ours.sources == tuple(row["source"] for row in added)
    assert [ours.task.classes[label] for label in ours.labels] == [row["label_true"] for row in added]


def test_of_a_calibrated_network_what_it_served_is_filed(tmp_path: Path) -> None:
    given = {"calibrated": True, "p_nevus": 0.3, "p_others": 0.7}
    folder = _write_predictions(tmp_path / "of_own", "dermadeit", 1, overwrite=given)
    _benchmark("add", folder, "--root", tmp_path / "root")
    filed = read_benchmark(tmp_path / "root" / "binary", get_task("binary")).models["dermadeit"][8]
    np.testing.assert_allclose(filed.probabilities, [[0.3, 0.7]] * len(filed), atol=1e-4)


@pytest.mark.slow
def test_figures_and_tables_come_from_the_predictions_alone(root: Path, results: Path) -> None:
    metrics, text = _metrics(root), results.read_text()
    assert text.startswith("# Ours\n") and text.endswith("The end.\n") and "stale" not in text
    assert text.split(START)[1].split(END)[0].strip() == render_tables(root).strip()

    views = metrics["models"]["dermadeit"]["views"]
    assert list(views) == ["8", "1"]
    ours = views["8"]
    assert {source: part["n"] for source, part in ours["sources"].items()} == {"bcn": 30, "ham": 60}
    predictions = read_benchmark(root / "binary", get_task("binary")).models["dermadeit"][8]
    assert ours["accuracy"] == (predictions.logits.argmax(axis=1) == predictions.labels).mean()
    low, high = ours["intervals"]["accuracy"]
    # Once among the models, once among the sources.
    cell = f"{ours['accuracy']:.3f} [{low:.3f}, {high:.3f}]"
    assert _rows(text, "DermaDeiT (tiny)")[0][0] == cell
    assert _rows(text, "all, 8 views")[0][:2] == ["90", cell]
    assert _rows(text, "all, 1 view")[0][1].startswith(f"{views['1']['accuracy']:.3f} ")
    assert _rows(text, "An MLP (1 view)") and _rows(text, "DeiT (tiny) (three seeds)")

    for task in FILED:
        (root / task / "metrics.json").unlink()
    results.write_text(text.replace(text.split(START)[1].split(END)[0], ""))
    _write_tables(root, results)
    assert results.read_text() == text
    assert _metrics(root) == metrics


def test_the_short_table_has_ours_and_the_baselines_of_both_tasks(root: Path, results: Path) -> None:
    readme = results.with_name("README.md")
    summary = readme.read_text().split(SUMMARY_START)[1].split(SUMMARY_END)[0].strip()
    assert summary == render_summary(root).strip()
    [row] = _rows(summary, "DermaDeiT (tiny)")
    for task, shown in zip(FILED, (row[:2], row[2:]), strict=True):
        ours = _metrics(root, task)["models"]["dermadeit"]["views"]["8"]
        for cell, name in zip(shown, ("accuracy", "roc_auc"), strict=True):
            low, high = ours["intervals"][name]
            assert cell == f"{ours[name]:.3f} [{low:.3f}, {high:.3f}]"
    # What nothing here trains has its row in the results alone.
    assert not _rows(summary, "An MLP") and _rows(results.read_text(), "An MLP (1 view)")


def test_bold_is_only_what_excludes_zero(root: Path, results: Path) -> None:
    comparisons, text = _metrics(root)["comparisons"], results.read_text()
    assert comparisons["deit"]["views"] == [8, 8]
    assert comparisons["mlp"]["views"] == [1, 1]
    for model, title in (("deit", "DeiT (tiny)"), ("mlp", "An MLP (1 view against 1 view)")):
        accuracy = comparisons[model]["differences"]["accuracy"]
        [cells] = [cells for cells in _rows(text, title) if cells[0].lstrip("*")[0] in "+-"][:1]
        low, high = accuracy["interval"]
        plain = f"{accuracy['difference']:+.3f} [{low:+.3f}, {high:+.3f}]"
        assert cells[0] == (f"**{plain}**" if low > 0 or high < 0 else plain)
    assert comparisons["deit"]["differences"]["accuracy"]["interval"][0] > 0
    low, high = comparisons["mlp"]["differences"]["accuracy"]["interval"]
    assert low < 0 < high
    tests = [comparisons[model]["mcnemar"] for model in ("deit", "mlp")]
    assert tests[0]["p_value_holm"] == pytest.approx(2 * tests[0]["p_value"])
    assert tests[1]["p_value_holm"] == pytest.approx(tests[1]["p_value"])


def test_a_model_without_predictions_is_shown_as_not_run(results: Path) -> None:
    cells = [row[0] for row in _rows(results.read_text(), "DINOv2 (ViT-S/14)")]
    assert cells == [f"not run: `python train/distill.py --model dinov2 --task {task}`" for task in FILED]


def test_all_models_together_answer_with_their_mean_probability(root: Path, results: Path) -> None:
    filed = read_benchmark(root / "binary", get_task("binary")).models
    mean = sum(by_views[max(by_views)].probabilities for by_views in filed.values()) / len(filed)
    accuracy = (mean.argmax(axis=1) == filed["deit"][8].labels).mean()
    assert _metrics(root)["ensemble"]["accuracy"] == pytest.approx(accuracy)
    [row, _] = _rows(results.read_text(), "The models above together")
    assert row[0].startswith(f"{accuracy:.3f} [")


@pytest.mark.slow
def test_the_leakage_test_stands_side_by_side_and_takes_no_part_in_the_comparison(
    root: Path, results: Path, tmp_path: Path
) -> None:
    leaking = _write_predictions(tmp_path / "leaking", "deit", 4.0, overwrite={"lesion_group": ""})
    _benchmark("add", leaking, "--leakage-test", "image", "--root", root)
    _write_tables(root, results)
    metrics, text = _metrics(root), results.read_text()
    flattered = metrics["leakage_test"]["image"]["models"]["deit"]["views"]["8"]["accuracy"]
    rows = [row for row in _rows(text, "DeiT (tiny) (three seeds)") if row[0].startswith("by ")]
    assert [row[0] for row in rows] == ["by lesion", "by image"]
    assert rows[0][2].startswith(f"{metrics['models']['deit']['views']['8']['accuracy']:.3f} ")
    assert rows[1][2].startswith(f"{flattered:.3f} ")
    assert metrics["leakage_test"]["image"]["lesions"] == IMAGES
    assert "by image" not in render_tables(root).split("### ")[2]

    # Up to version 0.2 folder and key had another name.
    (root / "binary" / "leakage_test").rename(root / "binary" / "leak_meter")
    (root / "binary" / "metrics.json").write_text(
        json.dumps({"leak_meter" if key == "leakage_test" else key: value for key, value in metrics.items()})
    )
    assert render_tables(root) in text
    _write_tables(root, results)
    assert _metrics(root)["leakage_test"] == metrics["leakage_test"] and results.read_text() == text


@pytest.mark.slow
def test_a_leakage_test_with_a_recipe_of_its_own_has_a_partner_of_its_own(
    root: Path, results: Path, tmp_path: Path
) -> None:
    before = _metrics(root)
    for split_by, skill in (("image", 4.0), ("lesion", 0.0)):
        predictions = _write_predictions(tmp_path / split_by, "deit", skill)
        _benchmark("add", predictions, "--leakage-test", split_by, "--root", root)
    _write_tables(root, results)
    metrics = _metrics(root)
    rows = [
        row for row in _rows(results.read_text(), "DeiT (tiny) (three seeds)") if row[0].startswith("by ")
    ]
    arms = [
        metrics["leakage_test"][split_by]["models"]["deit"]["views"]["8"] for split_by in ("lesion", "image")
    ]
    assert arms[0]["accuracy"] < before["models"]["deit"]["views"]["8"]["accuracy"] < arms[1]["accuracy"]
    assert all(row[2].startswith(f"{arm['accuracy']:.3f} ") for row, arm in zip(rows, arms, strict=True))
    assert all(metrics[part] == before[part] for part in ("models", "comparisons", "ensemble"))


def test_adding_a_model_again_replaces_all_that_was_filed_of_it(root: Path, tmp_path: Path) -> None:
    again = _write_predictions(tmp_path / "again", "dermadeit", 0.0)
    (again / "metrics.json").write_text('{"dermadeit": {"weights_sha256": "abc"}}')
    _benchmark("add", again, "--root", root)
    filed = read_benchmark(root / "binary", get_task("binary"))
    assert list(filed.models["dermadeit"]) == [8]
    assert filed.weights_sha256 == {"dermadeit": "abc"}
    (again / "metrics.json").unlink()
    _benchmark("add", again, "--root", root)
    assert read_benchmark(root / "binary", get_task("binary")).weights_sha256 == {}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"split": "validation"}, "test split"),
        ({"label_true": "nevus"}, "differ in label"),
        ({"source": "elsewhere"}, "differ in label, lesion, source"),
        ({"logit_nevus": "nan"}, "Line 2"),
        ({"logit_nevus": "much"}, "Line 2"),
        ({"image_id": "ISIC_0001"}, "90 rows"),
        ({"views": "some"}, "number of views"),
        ({"label_true": "mel"}, "no class"),
        ({"model": "../outside"}, "not a valid model name"),
        ({"model": "images"}, "not a valid model name"),
    ],
)
def test_predictions_that_do_not_belong_are_refused(
    root: Path, tmp_path: Path, columns: dict[str, str], message: str
) -> None:
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    other = _write_predictions(tmp_path / "other", "other", 1.0, overwrite=columns)
    assert message in _benchmark("add", other, "--root", root, exit_code=2).stderr
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_tables_that_contradict_each_other_are_refused(root: Path, tmp_path: Path) -> None:
    first, second = (
        _write_predictions(tmp_path / f"part-{views}", "other", 1.0, views=views) for views in (1, 8)
    )
    for folder, digest in ((first, "abc"), (second, "def")):
        (folder / "metrics.json").write_text(json.dumps({"other": {"weights_sha256": digest}}))
    assert "different weights" in _benchmark("add", first, second, "--root", root, exit_code=2).stderr
    assert "two sets" in _benchmark("add", first, first, "--root", root, exit_code=2).stderr
    third = _write_predictions(tmp_path / "third", "third", 1.0)
    arguments = ["add", first, third, "--name", "one", "--root", root]
    assert "several models" in _benchmark(*arguments, exit_code=2).stderr


def test_missing_and_damaged_files_are_explained(root: Path, results: Path, tmp_path: Path) -> None:
    assert "can't be read" in _benchmark("add", tmp_path / "nowhere", "--root", root, exit_code=2).stderr
    (tmp_path / "no.md").write_text("no marks")
    assert START in _write_tables(root, tmp_path / "no.md", exit_code=2).stderr
    model, before = root / "binary" / "deit.csv", results.read_text()
    model.write_text("\n".join(model.read_text().splitlines()[:-1]))
    assert "deit.csv" in _write_tables(root, results, exit_code=2).stderr
    assert results.read_text() == before
    for path in (root / "binary").glob("*.csv"):
        path.unlink()
    assert "has no model" in _write_tables(root, results, exit_code=2).stderr


def _rewrite(folder: Path, change: Callable[[dict, int], dict]) -> list[dict]:
    """Changes the rows of a table that `_write_predictions` wrote."""
    with (folder / "predictions.csv").open() as stream:
        rows = [row | change(row, index) for index, row in enumerate(csv.DictReader(stream))]
    with (folder / "predictions.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return rows


def test_a_network_of_eight_is_filed_once_and_read_for_every_task(tmp_path: Path) -> None:
    # A network that weighs classes doesn't always answer the most probable one.
    rows = _rewrite(
        _write_predictions(tmp_path / "eight", "dermadeit", 3, "diagnosis"),
        lambda _row, _index: {"answer_multiclass": "scc"},
    )
    root = tmp_path / "root"
    _benchmark("add", tmp_path / "eight", "--root", root)
    filed = {
        task.key: read_benchmark(root / task.key, task).models["dermadeit"][8]
        for task in (BINARY, MALIGNANCY, MULTICLASS)
    }
    logits = np.array([[float(row[f"logit_{key}"]) for key in DIAGNOSIS.classes] for row in rows])
    shares = softmax(logits, axis=1)
    np.testing.assert_allclose(filed["binary"].probabilities[:, 0], shares[:, 1], atol=1e-4)
    malignant = shares[:, [DIAGNOSIS.index_of(key) for key in MULTICLASS.classes]].sum(axis=1)
    np.testing.assert_allclose(filed["malignancy"].probabilities[:, 1], malignant, atol=1e-4)
    nevi = [row["label_true"] == "nv" for row in rows]
    np.testing.assert_array_equal(filed["binary"].labels == 0, nevi)
    assert len(filed["multiclass"]) == sum(row["label_true"] in MULTICLASS.classes for row in rows)
    assert set(filed["multiclass"].answers.tolist()) == {MULTICLASS.index_of("scc")}
    # A network of two classes stands beside it, on the same images in the same order.
    _rewrite(
        _write_predictions(tmp_path / "two", "deit", 1),
        lambda _row, index: {"label_true": "nevus" if nevi[index] else "others"},
    )
    _benchmark("add", tmp_path / "two", "--root", root)
    models = read_benchmark(root / "binary", BINARY).models
    assert list(models) == ["deit", "dermadeit"]
    assert models["deit"][8].image_ids == models["dermadeit"][8].image_ids
    assert models["deit"][8].labels.tolist() == models["dermadeit"][8].labels.tolist()
