"""The benchmark of what catches errors, against scikit-learn and hand-made tables."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks.evidence.error_detection import (
    Answers,
    error_signals,
    flag_figures,
    measure_error_detection,
    read_images,
    read_once,
    score_signals,
)
from dermadeit.data.manifest import read_source
from dermadeit.errors import TableError
from dermadeit.inference.predictor import Predictor
from dermadeit.tasks import BINARY
from dermadeit.trust.neighbours import Neighbour, NeighbourIndex


def _noisy(wrong: np.ndarray, strength: float, seed: int) -> np.ndarray:
    return strength * wrong + np.random.default_rng(seed).normal(size=len(wrong))


def test_a_signal_that_knows_more_gains_over_the_probability() -> None:
    wrong = np.arange(200) % 4 == 0
    signals = {
        "probability": _noisy(wrong, 1, 0),
        "neighbours": _noisy(wrong, 2, 1),
        "views": _noisy(wrong, 0, 2),
    }
    groups = [f"lesion_{row // 2}" for row in range(200)]
    scores = score_signals(signals, wrong, groups, resamples=200)
    for name, values in signals.items():
        assert scores[name]["auroc"] == pytest.approx(roc_auc_score(wrong, values))
    low, high = scores["probability"]["interval"]
    assert low < scores["probability"]["auroc"] < high
    both = scores["probability + neighbours"]
    assert both["gain"] == pytest.approx(both["auroc"] - scores["probability"]["auroc"])
    assert both["gain_interval"][0] > 0
    assert scores["views"]["gain_interval"][1] < 0
    assert scores == score_signals(signals, wrong, groups, resamples=200)


def test_the_combination_has_not_seen_the_lesion_that_it_scores() -> None:
    # A value for each lesion, told by nothing else: who had seen the lesion would know its answers.
    rng = np.random.default_rng(0)
    lesion = np.repeat(np.arange(60), 4)
    wrong = rng.permutation(np.arange(60) < 30)[lesion]
    noise = {name: rng.normal(size=60)[lesion] for name in ("probability", "neighbours", "views")}
    scores = score_signals(noise, wrong, [f"lesion_{row}" for row in lesion], resamples=50)
    assert scores["probability + neighbours + views"]["auroc"] < 0.65


def test_too_few_errors_are_refused() -> None:
    wrong = np.arange(100) < 9
    with pytest.raises(TableError, match="9 of 100 answers are wrong"):
        score_signals({}, wrong, ["a"] * 100)


def test_signals_of_two_images() -> None:
    view_logits = np.log(np.array([[[0.9, 0.1], [0.9, 0.1]], [[0.2, 0.8], [0.4, 0.6]]]))
    near = (Neighbour("a", "NV", 0.1), Neighbour("b", "MEL", 0.1), Neighbour("c", "BCC", 0.1))
    found = Answers(view_logits, view_logits.mean(axis=1), np.zeros((2, 4)), np.array([0, 0]), ("a", "b"))
    signals = error_signals(found, [near, near], BINARY)
    # Logits are averaged, so odds are multiplied: 9 for nevus, and the root of 4 · 1.5 for others.
    assert signals["probability"] == pytest.approx([-np.log(9), -np.log(6) / 2])
    assert signals["neighbours"] == pytest.approx([2 / 3, 1 / 3])
    assert signals["views"] == pytest.approx([0, 0.2])


def test_what_a_flag_is_worth() -> None:
    flagged = np.array([True, True, False, False, False])
    wrong = np.array([True, False, True, False, False])
    figures = flag_figures(flagged, wrong, list("abcde"))
    assert {name: figure["value"] for name, figure in figures.items()} == pytest.approx(
        {"flagged": 0.4, "wrong_where_flagged": 0.5, "wrong_elsewhere": 1 / 3, "errors_flagged": 0.5}
    )
    nothing_flagged = flag_figures(np.zeros(5, dtype=bool), wrong, list("abcde"))
    assert nothing_flagged["wrong_where_flagged"]["value"] is None


def test_the_images_are_read_in_the_order_of_their_rows(
    synthetic_data: Path, predictors: dict[str, Predictor]
) -> None:
    rows = read_source(synthetic_data / "manifest.csv", BINARY).rows[:20]
    logits, tokens = read_images(predictors["binary"], rows, views=2)
    assert logits.shape == (20, 2, 2)
    last = predictors["binary"].predict([rows[-1].path], views=2)[0]
    assert logits[-1].mean(axis=0).tolist() == pytest.approx(list(last.logits.values()), abs=1e-4)
    assert len(tokens) == 20


def test_an_image_is_read_once_for_all_tasks(
    synthetic_data: Path, predictors: dict[str, Predictor], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = read_source(synthetic_data / "manifest.csv", BINARY).rows[:6]
    read: dict = {}
    first, _ = read_once(predictors["binary"], rows[:4], 1, read)
    monkeypatch.setattr(Predictor, "outputs", lambda *_: pytest.fail("read again"))
    again, tokens = read_once(predictors["binary"], rows[3:1:-1], 1, read)
    assert (again == first[3:1:-1]).all()
    assert len(tokens) == 2


@pytest.mark.slow
def test_similar_cases_come_from_the_checkpoints_own_index_unless_another_is_asked_for(
    synthetic_data: Path, predictors: dict[str, Predictor]
) -> None:
    predictor, table = predictors["binary"], synthetic_data / "manifest.csv"
    rows = read_source(table, BINARY).select("train").rows[:7]
    _, tokens = read_images(predictor, rows, views=1)
    own = NeighbourIndex.build(tokens, [row.image_id for row in rows], ["NV"] * 7)
    with_index = Predictor(replace(predictor.checkpoint, trust=SimpleNamespace(neighbours=own)))

    def images_asked(of: Predictor, index_images: int | None) -> int:
        return measure_error_detection(
            of, table, split="train", views=1, neighbours=3, images=None, index_images=index_images, seed=0
        )["index_images"]

    assert images_asked(with_index, None) == 7
    assert 7 < images_asked(with_index, 10) < images_asked(predictor, None)
