"""Predictions of one's own model: an identifier and probabilities are enough."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from dermadeit.cli import app
from dermadeit.errors import ResultFileError
from dermadeit.evaluation.batch import read_prediction_table
from dermadeit.evaluation.plain_tables import NO_LESION_GROUPS
from dermadeit.evaluation.predictions import measure, read_predictions
from dermadeit.publishing.benchmark import (
    find_shipped_beside,
    read_shipped_predictions,
    read_test_images,
)
from dermadeit.tasks import BINARY, MULTICLASS


@pytest.fixture(scope="module")
def shipped():
    return read_shipped_predictions(MULTICLASS, ["deit"])[0].take(range(120))


@pytest.fixture
def table(shipped, tmp_path: Path) -> Path:
    """The shipped predictions as another program might write them."""
    path = tmp_path / "mine.csv"
    lines = ["image_id,P_mel,P_bcc,P_scc"]
    for image_id, shares in zip(shipped.image_ids, shipped.probabilities.tolist(), strict=True):
        lines.append(",".join([image_id, *map(repr, shares)]))
    path.write_text("\n".join(lines) + "\n")
    return path


def test_labels_and_lesions_of_shipped_images_are_known(table: Path, shipped) -> None:
    [found] = read_predictions(table, known=read_test_images)
    assert (found.task, found.model, found.views) == (MULTICLASS, "mine", 1)
    assert found.image_ids == shipped.image_ids
    assert np.array_equal(found.labels, shipped.labels)
    assert found.lesion_groups == shipped.lesion_groups
    np.testing.assert_allclose(found.probabilities, shipped.probabilities)
    assert found.has_lesion_groups
    assert "warning" not in measure(found).to_dict()["intervals"]


def test_images_that_nobody_labels_are_left_out_and_named(table: Path, shipped) -> None:
    with pytest.raises(ResultFileError, match="Add a column “label”"):
        read_predictions(table)
    table.write_text(table.read_text() + "stranger,0.2,0.3,0.5\n")
    [found] = read_predictions(table, known=read_test_images)
    assert len(found) == len(shipped)
    assert any("stranger" in note for note in found.notes)


def test_without_lesion_groups_the_intervals_carry_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    rows = [
        f"a{index},{'nevus' if index % 2 else 'OTHERS'},0.{index % 9 + 1},0.{9 - index % 9}"
        for index in range(40)
    ]
    path.write_text("image_id,label,p_nevus,p_others\n" + "\n".join(rows) + "\n")
    [found] = read_predictions(path, known=read_test_images)
    assert not found.has_lesion_groups
    assert measure(found).to_dict()["intervals"]["warning"] == NO_LESION_GROUPS
    assert NO_LESION_GROUPS in found.notes
    path.write_text(
        path.read_text()
        .replace("label,", "label,lesion_group,")
        .replace(",nevus,", ",nevus,one,")
        .replace(",OTHERS,", ",OTHERS,two,")
    )
    [found] = read_predictions(path)
    assert found.has_lesion_groups and set(found.lesion_groups) == {"one", "two"}


def test_a_task_that_lacks_a_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("image_id,label,p_mel,p_bcc\n1,mel,0.5,0.5\n")
    with pytest.raises(ResultFileError, match="no column p_scc"):
        read_predictions(path, MULTICLASS)
    path.write_text("image_id,label,p_nevus,p_others\n1,nevus,50,50\n")
    with pytest.raises(ResultFileError, match="not percent"):
        read_predictions(path, BINARY)


def test_a_batch_stands_beside_shipped_models(table: Path, shipped) -> None:
    def beside(sets):
        return find_shipped_beside(sets, ["dermadeit", "dinov2", "deit"])

    result = read_prediction_table(table, MULTICLASS, "mine.csv", known=read_test_images, beside=beside)
    assert result.models == ("mine", "dermadeit", "deit")
    assert len(result.items) == len(shipped)
    # Of images that are not shipped there is nothing to compare.
    text = table.read_text().replace("image_id,", "image_id,label,").replace("ISIC_", "other_")
    table.write_text(
        "\n".join(
            line if number == 0 else line.replace(",", ",mel,", 1)
            for number, line in enumerate(text.splitlines())
        )
        + "\n"
    )
    result = read_prediction_table(table, MULTICLASS, "mine.csv", known=read_test_images, beside=beside)
    assert result.models == ("mine",)
    assert NO_LESION_GROUPS in result.notes


def test_the_command_compares_a_table_with_a_shipped_model(table: Path, shipped, tmp_path: Path) -> None:
    arguments = [str(table), "deit", "dermadeit", "--task", "multiclass", "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["compare", *arguments])
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert content["images"] == len(shipped)
    mine, deit, _ = content["models"].values()
    assert mine["accuracy"] == deit["accuracy"] == pytest.approx(shipped.hits.mean())
    low, high = mine["intervals"]["accuracy"]
    assert low < mine["accuracy"] < high
    same, other = content["comparisons"]
    assert same["differences"]["roc_auc"]["difference"] == pytest.approx(0, abs=1e-9)
    assert other["differences"]["accuracy"]["interval"] is not None
    assert f"{mine['accuracy']:.3f}" in result.stdout
    missing = CliRunner().invoke(app, ["compare", "nowhere.csv", *arguments[1:]])
    assert missing.exit_code == 2
    assert "nowhere.csv" in missing.output and "dermadeit" in missing.output


def test_the_target_of_classes_of_ones_own_goes_into_a_comparison(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, target in (("first", "wart"), ("second", "")):
        lines = ["image_id,label,lesion_group,p_wart,p_cold_sore,target"]
        for number, score in enumerate(rng.uniform(size=60)):
            label = ("wart", "cold_sore")[number % 2]
            lines.append(f"i{number},{label},i{number},{score:.4f},{1 - score:.4f},{target}")
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
    [predictions] = read_predictions(tmp_path / "first.csv")
    assert predictions.task.target == "wart"
    assert read_predictions(tmp_path / "second.csv")[0].task.target == "cold_sore"
    tables = [str(tmp_path / f"{name}.csv") for name in ("first", "second")]
    result = CliRunner().invoke(app, ["compare", *tables, "--task", "own", "--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "wart 30, cold_sore 30" in result.stdout
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert content["target"] == "wart"
    figures = measure(predictions).figures
    at = np.sort(predictions.probabilities[predictions.labels == 1, 0])
    reached = (predictions.probabilities[predictions.labels == 0, 0] > at[int(np.ceil(0.95 * 30)) - 1]).mean()
    assert figures["sensitivity_at_95_specificity"] == pytest.approx(reached)


def test_a_ragged_row_of_predictions_is_left_out_and_named(table: Path) -> None:
    whole = len(read_predictions(table, MULTICLASS, known=read_test_images)[0])
    table.write_text(table.read_text() + "ISIC_9,0.1\n")
    [predictions] = read_predictions(table, MULTICLASS, known=read_test_images)
    assert len(predictions) == whole
    assert f"line {whole + 2}" in predictions.notes[0]
