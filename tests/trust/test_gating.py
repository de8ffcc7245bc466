"""Gates: what is strange, thresholds that spare real lesions, and the verdict with its reasons."""

import json

import numpy as np
import pytest
from safetensors.numpy import load, save
from sklearn.neighbors import NearestNeighbors

from dermadeit.errors import CheckpointError, ConfigurationError
from dermadeit.evaluation.predictions import ServedFlags
from dermadeit.imaging.quality import QualityReport, QualityThresholds
from dermadeit.trust.gating import (
    DARKER_SKIN,
    FINE_DETAIL,
    NOT_SKIN,
    NOT_SKIN_FROM,
    OUT_OF_DISTRIBUTION,
    STATE_WORDS,
    Gates,
    OutOfDistribution,
    SkinDetector,
    answer_state,
    answer_status,
    gate,
    gate_status,
    held_out_scores,
    warning_sentences,
)

LENGTH = 24


def _embeddings(count: int, seed: int) -> np.ndarray:
    """Directions near a common one, as embeddings of one kind of picture are."""
    return np.random.default_rng(seed).normal(1, 0.4, (count, LENGTH)).astype(np.float32)


def _fit(embeddings: np.ndarray) -> OutOfDistribution:
    return OutOfDistribution.fit(embeddings)


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


def test_quality_and_distance_together_warn_of_no_more_than_the_share() -> None:
    rng = np.random.default_rng(0)
    reports = [_report(sharpness) for sharpness in rng.uniform(7, 60, 1000)]
    scores = rng.uniform(0, 1, 1000)
    gates = Gates.fit(reports, scores)
    verdicts = [gate(report, score, gates) for report, score in zip(reports, scores, strict=True)]
    assert not any(verdict.abstain for verdict in verdicts)
    assert sum(bool(verdict.warning_codes) for verdict in verdicts) == 20
    assert {code for verdict in verdicts for code in verdict.warning_codes} >= {
        "blurred",
        OUT_OF_DISTRIBUTION,
    }


GATES = Gates(
    QualityThresholds(least_sharpness=10), 0.5, far_threshold=1.5, least_skin_angle=0.0, most_sharpness=80
)


@pytest.mark.parametrize(
    ("photo", "withheld", "warned"),
    [
        ({"sharpness": 30, "ood_score": 0.5}, (), ()),
        ({"sharpness": 30, "ood_score": 0.51}, (), (OUT_OF_DISTRIBUTION,)),
        ({"sharpness": 90, "ood_score": 0.51}, (), (OUT_OF_DISTRIBUTION, FINE_DETAIL)),
        ({"sharpness": 90, "ood_score": 0.1}, (), ()),
        ({"sharpness": 30, "ood_score": 0.1, "skin_angle": -20.0}, (), (OUT_OF_DISTRIBUTION, DARKER_SKIN)),
        ({"sharpness": 30, "ood_score": 0.1, "skin_angle": 20.0}, (), ()),
        ({"sharpness": 8, "ood_score": 0.1}, (), ("blurred",)),
        ({"sharpness": 8, "ood_score": 0.9}, (), ("blurred", OUT_OF_DISTRIBUTION)),
        ({"sharpness": 5, "ood_score": 0.9}, ("blurred",), ()),
        ({"sharpness": 30, "ood_score": 1.6}, (NOT_SKIN,), ()),
        ({"sharpness": 30, "ood_score": 0.1, "not_skin_score": 0.99}, (NOT_SKIN,), ()),
        ({"sharpness": 30, "ood_score": 0.1, "not_skin_score": 0.5}, (), ()),
        ({"sharpness": 5, "ood_score": 1.6}, ("blurred", NOT_SKIN), ()),
        ({"sharpness": 30, "ood_score": float("nan")}, (NOT_SKIN,), ()),
        ({"sharpness": 30, "ood_score": 0.1, "not_skin_score": float("nan")}, (NOT_SKIN,), ()),
    ],
)
def test_what_can_t_be_read_is_withheld_and_what_differs_gets_a_warning(
    photo: dict[str, float], withheld: tuple[str, ...], warned: tuple[str, ...]
) -> None:
    rest = {name: value for name, value in photo.items() if name not in ("sharpness", "ood_score")}
    verdict = gate(_report(photo["sharpness"]), photo["ood_score"], GATES, **rest)
    assert (verdict.codes, verdict.warning_codes) == (withheld, warned)
    assert verdict.abstain == bool(withheld)
    assert len(verdict.reasons) == len(withheld)
    assert list(verdict.warnings) == warning_sentences(warned)
    assert all(sentence.endswith(".") for sentence in (*verdict.reasons, *verdict.warnings))


def test_an_embedding_that_is_no_number_is_never_let_through() -> None:
    known = _embeddings(10, 0)
    broken = np.full(LENGTH, np.nan)
    score = _fit(known).score(broken)
    assert gate(_report(), score, Gates(QualityThresholds(), 2.0)).abstain
    not_skin = SkinDetector.fit(known, -known).score(broken)
    assert gate(_report(), 0.1, Gates(QualityThresholds(), 2.0), not_skin_score=not_skin).abstain


def test_gates_survive_json() -> None:
    for gates in (Gates(QualityThresholds(least_sharpness=11.5), 0.42), GATES):
        assert Gates.from_dict(json.loads(json.dumps(gates.to_dict(), allow_nan=False))) == gates
    with pytest.raises(KeyError):
        Gates.from_dict({"quality": {}})


def test_gates_of_version_0_1_withhold_only_what_is_very_far() -> None:
    old = {"quality": QualityThresholds(least_sharpness=10).to_dict(), "ood_threshold": 0.1}
    gates = Gates.from_dict(old)
    assert gate(_report(8), 0.15, gates).warning_codes == ("blurred", OUT_OF_DISTRIBUTION)
    assert gate(_report(), 0.9, gates).codes == (NOT_SKIN,)


def test_a_photo_softer_than_all_known_ones_is_unreadable_only_if_they_are_sharp() -> None:
    soft = [_report(sharpness) for sharpness in np.linspace(3, 5, 400)]
    gates = Gates.fit(soft, np.linspace(0, 1, 400))
    assert not gate(_report(4), 0.1, gates).abstain


def test_skin_is_told_from_anything_else_whatever_the_length_of_the_embedding() -> None:
    rng = np.random.default_rng(0)
    others = _embeddings(60, 1) + rng.choice((-2.0, 2.0), LENGTH)
    detector = SkinDetector.fit(_embeddings(300, 0), others[:40])
    assert detector.score(_embeddings(100, 2)).max() < NOT_SKIN_FROM
    assert detector.score(others[40:]).min() > NOT_SKIN_FROM
    one = detector.score(others[0])
    assert isinstance(one, float)
    assert one == pytest.approx(detector.score(5 * others[:1])[0], abs=1e-6)
    stored = SkinDetector.from_arrays(load(save(detector.to_arrays())))
    np.testing.assert_array_equal(stored.score(others), detector.score(others))
    with pytest.raises(CheckpointError, match="calibrate"):
        SkinDetector.from_arrays({"weights": np.zeros(4)})
    with pytest.raises(ConfigurationError, match="anything else"):
        SkinDetector.fit(_embeddings(3, 0), others[:0])


@pytest.mark.parametrize(
    ("verdict", "withheld", "warned", "words"),
    [
        ("answer", (), (), ""),
        ("answer", (), None, ""),
        (None, (), None, ""),
        ("answer", (), ("blurred",), "answer with a warning: blurred"),
        ("abstain", ("too_dark", NOT_SKIN), (), "answer withheld: too dark, no skin lesion"),
        ("abstain", (), None, "answer withheld"),
    ],
)
def test_one_function_says_what_was_decided(
    verdict: str | None, withheld: tuple[str, ...], warned: tuple[str, ...] | None, words: str
) -> None:
    flags = ServedFlags(True, verdict, withheld, warned)
    assert gate_status(flags) == words
    assert answer_status(flags) == (words or "answered")
    assert STATE_WORDS[answer_state(flags)] == answer_status(flags).partition(":")[0]
