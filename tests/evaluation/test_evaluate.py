"""An evaluation from labelled images to files."""

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from dermadeit.about import VERSION
from dermadeit.data.manifest import ManifestRow, read_source
from dermadeit.data.tabular import read_csv, write_csv
from dermadeit.errors import ResultFileError
from dermadeit.evaluation.evaluate import evaluate, write_evaluations
from dermadeit.evaluation.predictions import measure, read_predictions
from dermadeit.inference.predictor import Predictor, load_predictor
from dermadeit.inference.records import Evaluation
from dermadeit.tasks import get_task


@pytest.fixture(scope="module")
def evaluations(
    synthetic_data: Path, checkpoint_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Evaluation]:
    manifest = read_source(synthetic_data / "manifest.csv", get_task("multiclass")).select("test")
    path = tmp_path_factory.mktemp("evaluations") / "broken.jpg"
    path.write_bytes(b"\xff\xd8 not really")
    broken = ManifestRow("=broken", "broken.jpg", path, "mel", "test", "B", "")
    manifest = replace(manifest, rows=(manifest.rows[0], broken, *manifest.rows[1:]))
    return [
        evaluate(manifest, load_predictor("multiclass", name, root=checkpoint_root / "multiclass"), views=2)
        for name in ("dermadeit", "mobilenetv2")
    ]


def test_files_hold_every_model_every_image_and_every_failure(
    evaluations: list[Evaluation], tmp_path: Path
) -> None:
    write_evaluations(evaluations, tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert list(metrics) == ["dermadeit", "mobilenetv2"]
    table = read_csv(tmp_path / "predictions.csv")
    assert table.columns[:13] == (
        "image_id", "file", "task", "model", "views", "label_true", "label_predicted",
        "p_mel", "p_bcc", "p_scc", "logit_mel", "logit_bcc", "logit_scc",
    )  # fmt: skip
    count = metrics["dermadeit"]["n"]
    assert len(table.rows) == 2 * count
    failures = read_csv(tmp_path / "failures.csv").rows
    assert [(row["image_id"], row["model"]) for row in failures] == [
        ("=broken", "dermadeit"),
        ("=broken", "mobilenetv2"),
    ]
    assert metrics["dermadeit"]["failed"] == 1
    assert metrics["dermadeit"]["excluded"]["NV"] > 0
    assert metrics["dermadeit"]["sources"] == {}
    # A spreadsheet must not run the identifier as a formula.
    assert "\n'=broken," in (tmp_path / "failures.csv").read_text()


def test_the_figures_can_be_computed_again_from_the_predictions_alone(
    evaluations: list[Evaluation], tmp_path: Path
) -> None:
    write_evaluations(evaluations, tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())["dermadeit"]
    ours, baseline = read_predictions(tmp_path / "predictions.csv")
    assert (ours.model, ours.views, baseline.model) == ("dermadeit", 2, "mobilenetv2")
    again = measure(ours).to_dict()
    assert {name: metrics[name] for name in again} == again
    assert len(again["intervals"]) > 10
    np.testing.assert_allclose(softmax(ours.logits, axis=1), ours.probabilities, atol=1e-6)
    low, high = metrics["intervals"]["brier"]
    assert low <= metrics["brier"] <= high


def test_probabilities_are_the_served_ones_where_the_table_has_them(
    evaluations: list[Evaluation], tmp_path: Path
) -> None:
    write_evaluations(evaluations[:1], tmp_path)
    table = read_csv(tmp_path / "predictions.csv")
    served = [{**row, "p_mel": 0.5, "p_bcc": 0.3, "p_scc": 0.2} for row in table.rows]
    write_csv(tmp_path / "served.csv", table.columns, served)
    [predictions] = read_predictions(tmp_path / "served.csv")
    assert predictions.probabilities.tolist() == [[0.5, 0.3, 0.2]] * len(served)
    kept = [column for column in table.columns if not column.startswith("p_")]
    write_csv(tmp_path / "logits.csv", kept, [{key: row[key] for key in kept} for row in table.rows])
    [predictions] = read_predictions(tmp_path / "logits.csv")
    np.testing.assert_allclose(predictions.probabilities, softmax(predictions.logits, axis=1))


def test_a_table_without_predictions_is_refused(evaluations: list[Evaluation], tmp_path: Path) -> None:
    write_evaluations([replace(evaluations[0], predictions=())], tmp_path)
    with pytest.raises(ResultFileError, match="no predictions"):
        read_predictions(tmp_path / "predictions.csv")
    (tmp_path / "labels.csv").write_text("image_id,label\n1,mel\n")
    with pytest.raises(ResultFileError, match="no column p_mel, p_nv, p_bcc"):
        read_predictions(tmp_path / "labels.csv")


def test_every_source_gets_its_own_figures(synthetic_data: Path, predictors: dict[str, Predictor]) -> None:
    manifest = read_source(synthetic_data / "manifest.csv", get_task("binary"))
    rows = tuple(
        replace(row, source="clinic" if index % 3 else "archive") for index, row in enumerate(manifest.rows)
    )
    metrics = evaluate(replace(manifest, rows=rows), predictors["binary"], views=1).metrics
    parts = metrics["sources"]
    assert list(parts) == ["archive", "clinic"]
    assert sum(part["n"] for part in parts.values()) == metrics["n"]
    hits = sum(part["accuracy"] * part["n"] for part in parts.values())
    assert hits == pytest.approx(metrics["accuracy"] * metrics["n"])


def test_an_evaluation_where_nothing_can_be_read_says_so(
    predictors: dict[str, Predictor], tmp_path: Path
) -> None:
    (tmp_path / "nevus").mkdir()
    (tmp_path / "nevus" / "a.jpg").write_bytes(b"")
    evaluation = evaluate(read_source(tmp_path, get_task("binary")), predictors["binary"])
    assert (evaluation.metrics["n"], evaluation.metrics["failed"], evaluation.metrics["accuracy"]) == (
        0,
        1,
        None,
    )
    write_evaluations([evaluation], tmp_path / "out")
    assert len(read_csv(tmp_path / "out" / "failures.csv").rows) == 1


@pytest.mark.parametrize(
    "served", [(50.0, 30.0, 20.0), (0.5, 0.3, 0.3), (1.2, -0.1, -0.1), (0.5, 0.498, 0.0)]
)
def test_what_is_no_probability_is_refused_with_its_line(
    evaluations: list[Evaluation], tmp_path: Path, served: tuple[float, ...]
) -> None:
    write_evaluations(evaluations[:1], tmp_path)
    table = read_csv(tmp_path / "predictions.csv")
    names = ("p_mel", "p_bcc", "p_scc")
    rows = [dict(row) for row in table.rows]
    rows[1] |= dict(zip(names, served, strict=True))
    write_csv(tmp_path / "wrong.csv", table.columns, rows)
    with pytest.raises(ResultFileError, match=r"line 3 of “wrong.csv”.*Write shares of 1, not percent"):
        read_predictions(tmp_path / "wrong.csv")


def test_numbers_of_views_are_numbers(evaluations: list[Evaluation], tmp_path: Path) -> None:
    write_evaluations(evaluations[:1], tmp_path)
    table = read_csv(tmp_path / "predictions.csv")
    rows = [{**row, "views": "8" if index % 2 else "08"} for index, row in enumerate(table.rows)]
    write_csv(tmp_path / "views.csv", table.columns, rows)
    [predictions] = read_predictions(tmp_path / "views.csv")
    assert (predictions.views, len(predictions)) == (8, len(rows))
    for wrong in ("", "x", "-1", "9" * 5000):
        rows[1]["views"] = wrong
        write_csv(tmp_path / "views.csv", table.columns, rows)
        with pytest.raises(ResultFileError, match=r"line 3 of “views.csv” is not a number of views"):
            read_predictions(tmp_path / "views.csv")


@pytest.mark.parametrize(
    ("column", "text"),
    [("calibrated", "maybe"), ("verdict", "no"), ("conformal_set", "nevus"), ("flips", "9"), ("spread", "nan"),
     ("ood_score", "high")],
)  # fmt: skip
def test_what_an_answer_cannot_have_been_served_with_is_refused(
    evaluations: list[Evaluation], tmp_path: Path, column: str, text: str
) -> None:
    write_evaluations(evaluations[:1], tmp_path)
    table = read_csv(tmp_path / "predictions.csv")
    rows = [{**row, "calibrated": True, "conformal_set": "mel"} for row in table.rows]
    rows[2][column] = text
    write_csv(tmp_path / "wrong.csv", table.columns, rows)
    with pytest.raises(ResultFileError, match=r"Line 4 of “wrong.csv” has an unknown value"):
        read_predictions(tmp_path / "wrong.csv")


def test_a_failure_says_which_bytes_and_with_its_origin_which_weights(
    evaluations: list[Evaluation], tmp_path: Path
) -> None:
    write_evaluations(evaluations, tmp_path, with_origin=True)
    first = read_csv(tmp_path / "failures.csv").rows[0]
    assert first["sha256"] == sha256(b"\xff\xd8 not really").hexdigest()
    assert first["weights_sha256"] == evaluations[0].metrics["weights_sha256"]
    assert first["dermadeit_version"] == VERSION
    assert "Not a medical device" in first["disclaimer"]
    write_evaluations(evaluations, tmp_path)
    assert "sha256" in read_csv(tmp_path / "failures.csv").columns
