"""A photo read for the page by one network that answers several tasks."""

import pytest
from eight_diagnoses import eight_diagnoses_root

from dermadeit.imaging.decode import READING_SIDE, decode_image
from dermadeit.inference.predictor import DEFAULT_VIEWS
from dermadeit.inference.zoo import load_answering
from dermadeit.views.single.answer_card import result_html
from dermadeit.views.single.reading import answer_all_tasks, read_labels


@pytest.fixture(scope="module")
def answering(synthetic_data):
    return load_answering(eight_diagnoses_root(synthetic_data, calibrated=False) / "dermadeit")


def test_one_pass_answers_all_tasks_of_a_network(answering, lesion_files, monkeypatch):
    backbone = answering["diagnosis"].checkpoint.classifier.backbone
    passes, forward_features = [], backbone.forward_features
    monkeypatch.setattr(
        backbone, "forward_features", lambda images: passes.append(len(images)) or forward_features(images)
    )
    photo = decode_image(lesion_files[0])
    reading = read_labels(answering, photo, "malignancy")
    assert list(reading.predictions) == list(answering) == ["diagnosis", "malignancy", "binary", "multiclass"]
    assert reading.photo_checks.keys() == reading.inputs.keys() == answering.keys()
    assert all(reading.has_answers(key) for key in answering)
    *_, whole = answer_all_tasks(reading, answering, photo)
    assert passes == [1] * DEFAULT_VIEWS
    for key, predictor in answering.items():
        [alone] = predictor.predict([photo])
        assert whole.predictions[key] == alone


def test_a_large_photo_is_named_with_the_size_it_has(answering, encoded_photo):
    data = encoded_photo(width=1500, height=1300)
    photo = decode_image(data, enough_side=READING_SIDE)
    assert photo.width < 1500
    assert read_labels(answering, photo, "diagnosis").size == (1500, 1300)


def test_several_diagnoses_are_listed_by_their_probability(answering, lesion_files):
    reading = read_labels(answering, decode_image(lesion_files[0]), "diagnosis")
    answer, task = reading.predictions["diagnosis"], reading.tasks["diagnosis"]
    html = result_html(reading, "diagnosis", {})
    bars = html[html.index("dd-bars") :]
    listed = sorted(task.classes, key=lambda key: bars.index(f">{task.display_names[key]}<"))
    assert listed == sorted(task.classes, key=lambda key: -answer.probabilities[key])


def test_what_holds_if_malignant_is_shown_below_how_malignant_it_is(answering, lesion_files):
    reading = read_labels(answering, decode_image(lesion_files[0]), "multiclass")
    assert reading.tasks_shown("multiclass") == ("malignancy", "multiclass")
    assert [reading.tasks_shown(key) for key in ("diagnosis", "binary")] == [("diagnosis",), ("binary",)]
