"""What is decided at the threshold, for taking away; and a measuring that is cancelled. Without a browser."""

import json
import zipfile

import numpy as np
import pytest

from dermadeit.about import DISCLAIMER, VERSION
from dermadeit.data.tabular import read_csv
from dermadeit.evaluation.batch import read_prediction_table
from dermadeit.tasks import BINARY
from dermadeit.views.batch import tables as batch_tables
from dermadeit.views.batch.exports import write_decisions, write_files
from dermadeit.views.batch.run import UNFINISHED, evaluate_batch
from dermadeit.views.batch.session import Session
from dermadeit.views.page.job import FilesJob

SCORES = np.linspace(0.02, 0.98, 60)


@pytest.fixture
def session(tmp_path):
    """Two models on 60 labelled images with sources and diagnoses."""
    header = (
        "image_id,task,model,views,label_true,logit_nevus,logit_others,p_nevus,p_others,source,diagnosis,verdict,"
        "calibrated,abstain_codes,conformal_set"
    )
    rows = [
        f"i{index},binary,{model},8,{label},0,0,{1 - score},{score},clinic,{'NV' if label == 'nevus' else 'BKL'},"
        f"{'abstain,True,blurred' if index == 3 else 'answer,True,'},nevus"
        for model in ("ours", "theirs")
        for index, score in enumerate(SCORES)
        for label in ["others" if index % 3 else "nevus"]
    ]
    table = tmp_path / "predictions.csv"
    table.write_text("\n".join([header, *rows]))
    made = Session(FilesJob(tmp_path))
    made.finish_reading(read_prediction_table(table, BINARY))
    return made


def unpacked(session, folder):
    folder.mkdir()
    path = write_decisions(session, folder)
    assert [found.name for found in folder.iterdir()] == ["dermadeit-batch-binary-decisions.zip"]
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    rows = read_csv(folder / "decisions.csv").rows
    return rows, json.loads((folder / "decisions.json").read_text(encoding="utf-8"))


def test_the_threshold_that_is_set_goes_with_its_decisions_and_figures(session, tmp_path):
    session.decide_from(0.7)
    rows, summary = unpacked(session, tmp_path / "out")
    truths = np.array(["others" if index % 3 else "nevus" for index in range(60)])
    answered = SCORES >= 0.7
    assert [float(row["score"]) for row in rows] == pytest.approx(SCORES)
    assert [row["decision"] for row in rows] == np.where(answered, "others", "nevus").tolist()
    assert [row["label_true"] for row in rows] == truths.tolist()
    assert {row["threshold"] for row in rows} == {"0.7"}
    assert {row["rule"] for row in rows} == {"own_threshold"} == {summary["rule"]}
    assert [row["image_id"] for row in rows if row["verdict"] == "abstain"] == ["i3"]
    assert {row["disclaimer"] for row in rows} == {DISCLAIMER} == {summary["disclaimer"]}
    assert summary["app"]["version"] == VERSION
    assert (summary["threshold"], summary["target"], summary["views"]) == (0.7, "others", 8)
    assert summary["figures"]["sensitivity"] == pytest.approx(answered[truths == "others"].mean())
    counts = [
        [int((truths == truth)[answered == others].sum()) for others in (False, True)]
        for truth in BINARY.classes
    ]
    assert summary["confusion_matrix"]["counts"] == counts


def test_without_a_threshold_the_most_probable_class_is_decided(session, tmp_path):
    session.decide_from(0.7)
    session.look_at("theirs")
    session.decide_by("likeliest")
    rows, summary = unpacked(session, tmp_path / "out")
    assert {(row["model"], row["threshold"]) for row in rows} == {("theirs", "")}
    assert [row["decision"] for row in rows] == np.where(SCORES > 0.5, "others", "nevus").tolist()
    assert (summary["threshold"], summary["decided"]) == (None, "the most probable class")


def test_forged_rules_and_thresholds_are_ones_own_threshold_between_0_and_1(session):
    session.decide_by("<b>forged</b>")
    assert (session.rule, session.threshold) == ("own_threshold", 0.5)
    for sent, taken in ((float("nan"), 0.0), (7, 1.0), ("0.25", 0.25)):
        session.decide_from(sent)
        assert session.threshold == taken


def test_a_measuring_that_is_cancelled_keeps_what_is_measured_and_says_so(session, tmp_path):
    steps = evaluate_batch(session)
    # The first model has its figures and their intervals by then.
    for _ in range(3):
        assert "ours" in next(steps)
    session.job.stop()
    list(steps)
    first, second = (evaluation.metrics for evaluation in session.evaluations)
    assert first["accuracy"] == second["accuracy"]
    assert first["intervals"]["accuracy"]
    assert "intervals" not in second
    assert first["slices"] is second["slices"] is None
    assert first["unfinished"] == second["unfinished"] == UNFINISHED
    assert UNFINISHED in batch_tables.overview_html(session.result)
    assert "you cancelled" in batch_tables.figures_html(session.evaluations)
    for shown in (batch_tables.slices_html, batch_tables.trust_html):
        assert "you cancelled" in shown(session.evaluation())
    (tmp_path / "out").mkdir()
    files = write_files(session.result, session.evaluations, [], tmp_path / "out")
    assert UNFINISHED in files.report.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_measuring_that_is_not_cancelled_is_whole(session):
    list(evaluate_batch(session))
    assert session.evaluations == tuple(session.result.evaluation(model) for model in session.result.models)
    assert not session.is_unfinished
    assert "you cancelled" not in batch_tables.trust_html(session.evaluation())
