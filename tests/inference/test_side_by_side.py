"""Models side by side: readings of one photo with their cost and agreement, and predictions on the same images."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import cohen_kappa_score

from dermadeit.errors import ConfigurationError, ResultFileError
from dermadeit.evaluation.comparison import (
    adjust_by_holm,
    compare,
    compare_with,
    compute_kappas,
    find_disagreements,
    gather_models,
)
from dermadeit.evaluation.predictions import PredictionSet, measure
from dermadeit.imaging.decode import decode_image
from dermadeit.inference.predictor import Predictor, load_predictor
from dermadeit.inference.records import ABSTAIN
from dermadeit.inference.side_by_side import ModelReading, agreement, measure_latency, read_with
from dermadeit.models.specs import MODEL_SPECS
from dermadeit.tasks import BINARY, MULTICLASS, get_task


@pytest.fixture(scope="module")
def readings(checkpoint_root: Path, lesion_files: list[Path]) -> list[ModelReading]:
    photo = decode_image(lesion_files[0])
    return [
        read_with(load_predictor("multiclass", name, root=checkpoint_root / "multiclass"), photo)
        for name in ("dermadeit", "mobilenetv2")
    ]


def _reading(template: ModelReading, title: str, share: float, **changes: object) -> ModelReading:
    """A binary reading that gives `others` this score."""
    label = BINARY.classes[int(share > 0.5)]
    probabilities = {"nevus": 1 - share, "others": share}
    prediction = replace(template.prediction, label=label, probabilities=probabilities, **changes)
    return replace(template, title=title, prediction=prediction)


def _prediction_set(model: str, ids: list[int], *, views: int = 8, seed: int = 0) -> PredictionSet:
    labels = np.random.default_rng(0).integers(0, 2, 100)[ids]
    logits = np.random.default_rng(seed).normal(size=(100, 2))[ids] + np.eye(2)[labels]
    return PredictionSet(
        BINARY,
        model,
        views,
        image_ids=tuple(f"image {index}" for index in ids),
        labels=labels,
        logits=logits,
        probabilities=softmax(logits, axis=1),
        lesion_groups=tuple(f"lesion {index // 2}" for index in ids),
        sources=("",) * len(ids),
        splits=("test",) * len(ids),
    )


@pytest.mark.slow
def test_a_reading_is_the_prediction_and_what_it_costs(
    readings: list[ModelReading], checkpoint_root: Path, lesion_files: list[Path]
) -> None:
    for reading, name in zip(readings, ("dermadeit", "mobilenetv2"), strict=True):
        predictor = load_predictor("multiclass", name, root=checkpoint_root / "multiclass")
        [expected] = predictor.predict([lesion_files[0]])
        assert reading.prediction == replace(expected, file=reading.prediction.file)
        assert reading.title == MODEL_SPECS[name].title
        assert set(reading.maps) == set(reading.checks) == set(MULTICLASS.classes)
        assert reading.decisions == {}
        assert set(reading.latency.milliseconds) == {1, 8}
        assert min(reading.latency.milliseconds.values()) > 0
        weights = checkpoint_root / "multiclass" / name / "model.safetensors"
        assert reading.weights_bytes == weights.stat().st_size
        # Stored in two bytes each; what is over is the header and a CNN's counters.
        assert 2 * reading.parameters < reading.weights_bytes < 2.2 * reading.parameters


def test_a_record_is_json_and_holds_what_the_page_shows(readings: list[ModelReading]) -> None:
    record = json.loads(json.dumps(readings[1].to_dict(), allow_nan=False))
    assert record["status"] == "ok"
    assert record["model"] == "mobilenetv2"
    assert record["title"] == "MobileNetV2"
    assert record["latency"]["milliseconds"].keys() == {"1", "8"}
    assert record["latency"]["timed_passes"] == 5
    assert record["saliency_check"]["faithful"] in (True, False)
    assert record["parameters"] == readings[1].parameters
    assert "Not a medical device." in record["disclaimer"]


def test_a_latency_is_the_median_after_one_pass_to_warm_up_under_the_lock(
    predictors: dict[str, Predictor],
) -> None:
    durations = iter([90.0, 3.0, 50.0, 1.0])
    times: list[float] = []

    def clock() -> float:
        assert predictors["binary"].lock.locked()
        times.append(times[-1] + next(durations) if len(times) % 2 else 1000.0 * len(times))
        return times[-1]

    latency = measure_latency(predictors["binary"], (2,), passes=3, clock=clock)
    assert latency.milliseconds == {2: pytest.approx(3000.0)}
    assert latency.passes == 3
    assert not predictors["binary"].lock.locked()


def test_a_latency_of_nine_views_is_refused(predictors: dict[str, Predictor]) -> None:
    with pytest.raises(ConfigurationError, match="choose 1 to 8"):
        measure_latency(predictors["binary"], (9,))


@pytest.mark.parametrize(
    ("shares", "sentence"),
    [
        ([], "No model has read this photo."),
        ([0.2], "A: {nevus}."),
        ([0.2, 0.3], "Both models: {nevus}."),
        ([0.2, 0.3, 0.1, 0.4], "All 4 models: {nevus}."),
        ([0.2, 0.3, 0.9, 0.4], "3 of 4 models: {nevus}; C: {others}."),
        ([0.7, 0.3, 0.9, 0.4], "2 of 4 models: {nevus}; A and C: {others}."),
        ([0.7, 0.3, 0.9, 0.8], "3 of 4 models: {others}; B: {nevus}."),
    ],
)
def test_the_agreement_is_one_sentence(
    readings: list[ModelReading], shares: list[float], sentence: str
) -> None:
    named = [_reading(readings[0], title, share) for title, share in zip("ABCD", shares, strict=False)]
    names = {key: name.lower() for key, name in BINARY.display_names.items()}
    assert agreement(BINARY, named).sentence == sentence.format(**names)


def test_every_pair_is_compared(readings: list[ModelReading]) -> None:
    named = [
        _reading(readings[0], "A", 0.7, calibrated=True),
        _reading(readings[0], "B", 0.1),
        _reading(readings[0], "C", 0.6),
    ]
    found = agreement(BINARY, named)
    assert [(pair.first, pair.second, pair.same_label, pair.comparable) for pair in found.pairs] == [
        ("A", "B", False, False),
        ("A", "C", True, False),
        ("B", "C", False, True),
    ]
    assert [pair.difference for pair in found.pairs] == pytest.approx([0.6, 0.1, -0.5])
    assert found.widest == found.pairs[0]
    assert (found.withheld, found.withheld_sentence) == ((), "")
    assert agreement(BINARY, named[:1]).widest is None


def test_a_withheld_answer_neither_votes_nor_is_given_away(readings: list[ModelReading]) -> None:
    named = [
        _reading(readings[0], "A", 0.7),
        _reading(readings[0], "B", 0.1, verdict=ABSTAIN),
        _reading(readings[0], "C", 0.2, verdict=ABSTAIN),
    ]
    found = agreement(BINARY, named)
    nevus, others = (BINARY.display_names[key].lower() for key in ("nevus", "others"))
    assert (found.sentence, found.votes, found.pairs) == (f"A: {others}.", {"others": ("A",)}, ())
    assert found.withheld_sentence.endswith(": B and C.")
    assert agreement(BINARY, named[:2]).withheld_sentence.endswith(": B.")
    sentence = agreement(BINARY, named[1:]).sentence
    assert nevus not in sentence
    assert others not in sentence
    both = agreement(BINARY, [*named, _reading(readings[0], "D", 0.9)])
    assert both.sentence == f"Both models: {others}."


def test_models_are_compared_on_the_images_that_all_have_read() -> None:
    first = _prediction_set("dermadeit", list(range(50)))
    fewer_views = _prediction_set("dermadeit", list(range(50)), views=1)
    second = _prediction_set("deit", [60, *range(49, 20, -1)], seed=1)
    ours, theirs = gather_models([("a", [fewer_views, first]), ("b", [second])], BINARY)
    assert ours.predictions.image_ids == theirs.predictions.image_ids
    assert ours.predictions.image_ids == tuple(f"image {index}" for index in range(21, 50))
    assert np.array_equal(ours.predictions.logits, first.logits[21:])
    assert ours.predictions.views == 8
    assert (ours.title, theirs.title) == ("DermaDeiT (tiny)", "DeiT (tiny)")


def test_two_tables_of_one_model_are_told_apart_and_titles_can_be_given() -> None:
    tables = [("a", [_prediction_set("deit", [1, 2])]), ("b", [_prediction_set("deit", [1, 2])])]
    assert [model.title for model in gather_models(tables, BINARY)] == ["DeiT (tiny), a", "DeiT (tiny), b"]
    [named] = gather_models(tables[:1], BINARY, {"deit": "Baseline"})
    assert (named.name, named.title, named.predictions.model) == ("deit", "Baseline", "Baseline")
    [unknown] = gather_models([("a", [_prediction_set("my net", [1, 2])])], BINARY)
    assert unknown.title == "my net"


def test_how_many_images_a_comparison_drops_is_known() -> None:
    tables = [("a", [_prediction_set("dermadeit", [1, 2, 3])]), ("b", [_prediction_set("deit", [2])])]
    assert [(len(model.predictions), model.dropped) for model in gather_models(tables, BINARY)] == [
        (1, 2),
        (1, 0),
    ]


def test_models_of_one_title_are_numbered() -> None:
    names = ["dermadeit", "DermaDeiT (tiny)", "DermaDeiT (tiny) (2)"]
    compared = gather_models([("a", [_prediction_set(name, [1, 2]) for name in names])], BINARY)
    assert [model.title for model in compared] == [
        "DermaDeiT (tiny)", "DermaDeiT (tiny) (2)", "DermaDeiT (tiny) (2) (2)",
    ]  # fmt: skip
    assert [model.predictions.model for model in compared] == [model.title for model in compared]


def test_models_with_other_truths_are_refused() -> None:
    first, second = _prediction_set("a", [1, 2]), _prediction_set("b", [1, 2])
    other = replace(second, labels=1 - second.labels)
    with pytest.raises(ResultFileError, match="a and b can't be compared: for 2 images"):
        gather_models([("1", [first, other])], BINARY)


def test_answers_and_target_scores_follow_the_images() -> None:
    predictions = _prediction_set("a", list(range(10)))
    assert predictions.answers.tolist() == predictions.probabilities.argmax(axis=1).tolist()
    assert predictions.hits.tolist() == (predictions.answers == predictions.labels).tolist()
    assert predictions.target_scores.tolist() == predictions.probabilities[:, 1].tolist()
    assert predictions.take([3, 1]).target_scores.tolist() == predictions.target_scores[[3, 1]].tolist()


@pytest.mark.slow
def test_what_has_nothing_in_common_is_refused() -> None:
    tables = [("a", [_prediction_set("deit", [1, 2])]), ("b", [_prediction_set("dinov2", [3, 4])])]
    with pytest.raises(ResultFileError, match="no image in common"):
        gather_models(tables, BINARY)
    with pytest.raises(ResultFileError, match="“multiclass”"):
        gather_models(tables, get_task("multiclass"))


def test_comparisons_are_those_of_the_library_with_holm_over_all() -> None:
    sets = [_prediction_set(name, list(range(100)), seed=seed) for seed, name in enumerate("abc")]
    reference, *others = map(measure, sets)
    results = compare_with(reference, others)
    single = [compare(reference, other) for other in others]
    assert [result.comparison for result in results] == single
    assert [result.mcnemar_holm for result in results] == adjust_by_holm(
        [found.mcnemar.p_value for found in single]
    )
    assert [result.delong_holm for result in results] == adjust_by_holm(
        [found.delong.p_value for found in single]
    )
    assert compare_with(reference, []) == ()
    content = json.loads(json.dumps(results[0].to_dict(), allow_nan=False))
    assert content["mcnemar"]["p_value_holm"] == results[0].mcnemar_holm
    assert content["delong"]["p_value_holm"] == results[0].delong_holm
    assert content["mcnemar"]["p_value"] == single[0].mcnemar.p_value
    assert replace(results[0], comparison=replace(single[0], delong=None)).to_dict()["delong"] is None


def test_kappa_between_models_equals_scikit_learn() -> None:
    compared = gather_models(
        [(name, [_prediction_set(name, list(range(100)), seed=seed)]) for seed, name in enumerate("ab")],
        BINARY,
    )
    answers = [model.predictions.logits.argmax(axis=1) for model in compared]
    assert compute_kappas(compared) == {("a", "b"): pytest.approx(cohen_kappa_score(*answers))}


def test_kappa_of_two_that_know_one_class_only_is_undefined() -> None:
    constant = replace(_prediction_set("a", [1, 2]), probabilities=np.array([[0.9, 0.1]] * 2))
    compared = gather_models([("1", [constant]), ("2", [replace(constant, model="b")])], BINARY)
    assert compute_kappas(compared) == {("a", "b"): None}


def test_disagreements_come_by_distance_and_say_who_is_wrong() -> None:
    first, second = (replace(_prediction_set(name, [0, 1, 2, 3]), model=name) for name in "ab")
    labels = np.array([0, 1, 1, 0])
    ours = np.array([[0.9, 0.1], [0.4, 0.6], [0.45, 0.55], [0.8, 0.2]])
    theirs = np.array([[0.7, 0.3], [0.55, 0.45], [0.9, 0.1], [0.6, 0.4]])
    compared = gather_models(
        [
            ("1", [replace(first, labels=labels, probabilities=ours)]),
            ("2", [replace(second, labels=labels, probabilities=theirs)]),
        ],
        BINARY,
    )
    found = find_disagreements(compared)
    assert [image.image_id for image in found] == ["image 2", "image 1"]
    assert found[0].answers == {"a": "others", "b": "nevus"}
    assert found[0].label == "others"
    assert found[0].wrong == 1
    assert found[0].spread == pytest.approx(0.45)
