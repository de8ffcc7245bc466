"""Gates: what is strange, thresholds that spare real lesions, and the verdict with its reasons."""

import json

import numpy as np
import pytest
from safetensors.numpy import load, save
from sklearn.neighbors import NearestNeighbors

from dermadeit.errors import CheckpointError, ConfigurationError
from dermadeit.imaging.quality import QualityReport, QualityThresholds
from dermadeit.trust.gating import (
    OUT_OF_DISTRIBUTION,
    Gates,
    OutOfDistribution,
    fit_threshold,
    gate,
    held_out_scores,
)

LENGTH = 24


def _embeddings(count: int, seed: int) -> np.ndarray:
    """Directions near a common one, as embeddings of one kind of picture are."""
    return np.random.default_rng(seed).normal(1, 0.4, (count, LENGTH)).astype(np.float32)


def _fit(embeddings: np.ndarray) -> OutOfDistribution:
    return OutOfDistribution.fit(embeddings, np.zeros(len(embeddings), int), np.zeros((len(embeddings), 2)))


def _report(sharpness: float = 30.0) -> QualityReport:
    measures = {"sharpness": sharpness, "contrast": 90.0, "black_share": 0.0, "overexposed_share": 0.0}
    return QualityReport(measures, (), ())


def test_scores_are_the_distance_to_the_second_nearest_neighbour() -> None:
    known, asked = _embeddings(200, 0), _embeddings(50, 1)
    expected = NearestNeighbors(n_neighbors=2, metric="cosine").fit(known).kneighbors(asked)[0][:, 1]
    np.testing.assert_allclose(_fit(known).score(asked), expected, atol=1e-3)


def test_one_image_gets_a_number_and_its_length_does_not_matter() -> None:
    detector, asked = _fit(_embeddings(100, 0)), _embeddings(1, 1)[0]
    score = detector.score(asked)
    assert isinstance(score, float)
    assert score == pytest.approx(detector.score(7 * asked[None])[0], abs=1e-6)


def test_other_directions_are_stranger_than_all_known_ones() -> None:
    detector = _fit(_embeddings(300, 0))
    assert detector.score(-_embeddings(20, 1)).min() > detector.score(_embeddings(200, 2)).max()


def test_one_odd_lesion_among_the_known_does_not_admit_its_like() -> None:
    odd = -_embeddings(1, 5)
    detector = _fit(np.concatenate([_embeddings(100, 0), odd]))
    assert detector.score(odd)[0] > 1


def test_held_out_scores_leave_the_whole_lesion_out() -> None:
    embeddings = _embeddings(60, 0)
    groups = [f"lesion {index // 3}" for index in range(60)]
    expected = [
        NearestNeighbors(n_neighbors=2, metric="cosine")
        .fit(embeddings[[other != group for other in groups]])
        .kneighbors(embeddings[[index]])[0][0, 1]
        for index, group in enumerate(groups)
    ]
    np.testing.assert_allclose(held_out_scores(embeddings, groups), expected, atol=1e-5)
    copies = np.repeat(_embeddings(20, 0), 3, axis=0)
    assert held_out_scores(copies, groups).min() > _fit(copies).score(copies).max()


def test_a_large_collection_stays_under_a_megabyte_and_keeps_its_scores() -> None:
    known = np.random.default_rng(0).normal(1, 0.4, (3000, 768)).astype(np.float32)
    detector = _fit(known)
    assert 0.9e6 < sum(array.nbytes for array in detector.to_arrays().values()) <= 1e6
    held_out = held_out_scores(known, [str(index) for index in range(3000)])
    fresh = detector.score(np.random.default_rng(1).normal(1, 0.4, (500, 768)))
    assert np.median(held_out) == pytest.approx(np.median(fresh), rel=0.02)


def test_a_detector_survives_being_stored() -> None:
    detector, asked = _fit(_embeddings(100, 0)), _embeddings(10, 1)
    stored = load(save({**detector.to_arrays(), "something else": np.zeros(3)}))
    np.testing.assert_array_equal(OutOfDistribution.from_arrays(stored).score(asked), detector.score(asked))


@pytest.mark.parametrize("arrays", [{}, {"ood_reference": np.zeros(4)}, {"ood_reference": np.zeros((1, 4))}])
def test_damaged_statistics_are_refused(arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(CheckpointError, match="calibrate"):
        OutOfDistribution.from_arrays(arrays)


def test_too_few_lesions_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least 2"):
        _fit(_embeddings(1, 0))
    with pytest.raises(ConfigurationError, match="at least 3 lesions"):
        held_out_scores(_embeddings(6, 0), ["a", "a", "a", "b", "b", "b"][:1] * 6)


@pytest.mark.parametrize(("share", "exceeding"), [(0, 0), (0.02, 2), (0.029, 2), (0.5, 50)])
def test_a_threshold_is_exceeded_by_the_share_asked_for(share: float, exceeding: int) -> None:
    scores = np.random.default_rng(0).permutation(100).astype(float)
    threshold = fit_threshold(scores, share)
    assert (scores > threshold).sum() == exceeding
    assert threshold in scores


def test_both_gates_together_refuse_no_more_than_the_share() -> None:
    rng = np.random.default_rng(0)
    reports = [_report(sharpness) for sharpness in rng.uniform(5, 60, 1000)]
    scores = rng.uniform(0, 1, 1000)
    gates = Gates.fit(reports, scores, 0.03)
    verdicts = [gate(report, score, gates) for report, score in zip(reports, scores, strict=True)]
    assert sum(verdict.abstain for verdict in verdicts) == 30
    assert {code for verdict in verdicts for code in verdict.codes} == {"blurred", OUT_OF_DISTRIBUTION}
    assert not any(
        gate(*item, Gates.fit(reports, scores, 0)).abstain for item in zip(reports, scores, strict=True)
    )


@pytest.mark.parametrize(
    ("sharpness", "score", "codes"),
    [
        (30, 0.5, ()),
        (30, 0.51, (OUT_OF_DISTRIBUTION,)),
        (5, 0.1, ("blurred",)),
        (5, 0.9, ("blurred", OUT_OF_DISTRIBUTION)),
        (30, float("nan"), (OUT_OF_DISTRIBUTION,)),
    ],
)
def test_the_verdict_gives_every_reason(sharpness: float, score: float, codes: tuple[str, ...]) -> None:
    verdict = gate(_report(sharpness), score, Gates(QualityThresholds(least_sharpness=10), 0.5))
    assert verdict.codes == codes
    assert verdict.abstain == bool(codes)
    assert len(verdict.reasons) == len(codes)
    assert all(reason.endswith(".") for reason in verdict.reasons)


def test_an_embedding_that_is_no_number_is_never_let_through() -> None:
    detector = _fit(_embeddings(10, 0))
    score = detector.score(np.full(LENGTH, np.nan))
    assert gate(_report(), score, Gates(QualityThresholds(), 2.0)).abstain


def test_gates_survive_json() -> None:
    gates = Gates(QualityThresholds(least_sharpness=11.5), 0.42)
    assert Gates.from_dict(json.loads(json.dumps(gates.to_dict()))) == gates
    with pytest.raises(KeyError):
        Gates.from_dict({"quality": {}})
