"""What is made of a stored reading without another look at the photo: decisions, similar cases, exports."""

import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import gradio as gr
import numpy as np
import pytest
from calibrated_checkpoint import calibrated_predictor
from PIL import Image

from dermadeit.imaging.decode import decode_image
from dermadeit.inference.decision import (
    OWN_THRESHOLD,
    DecisionSettings,
    bound_figures,
    decide_with_settings,
    predictive_values,
)
from dermadeit.inference.faithfulness import check_saliency
from dermadeit.inference.predictor import Predictor
from dermadeit.inference.records import ABSTAIN, ANSWER, Prediction
from dermadeit.inference.saliency import attention_rollout
from dermadeit.reporting.names import SIMILAR_CASES, WITHHELD
from dermadeit.tasks import BINARY, TASKS
from dermadeit.trust.calibration import OPERATING_POINTS, OperatingPoint
from dermadeit.trust.gating import warning_sentences
from dermadeit.trust.neighbours import VOTERS, describe_vote
from dermadeit.views.page.case_pictures import PICTURE_SIDE, isic_id, load_pictures
from dermadeit.views.single.answer_card import announcement, result_html
from dermadeit.views.single.decision_controls import DecisionControls
from dermadeit.views.single.exports import export, report
from dermadeit.views.single.image_check import check_html
from dermadeit.views.single.reading import add_heatmap, answer_all_tasks, read_labels
from dermadeit.views.single.similar_cases import cases_html

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def mixed(checkpoint_root, synthetic_data, predictors):
    """A calibrated binary predictor beside a multiclass one that was not calibrated."""
    binary = calibrated_predictor(checkpoint_root, synthetic_data)
    return {"binary": binary, "multiclass": predictors["multiclass"]}


@pytest.fixture(scope="module")
def calibrations(mixed):
    return {key: predictor.checkpoint.calibration for key, predictor in mixed.items()}


@pytest.fixture(scope="module")
def reading(mixed, lesion_files):
    photo = decode_image(lesion_files[0])
    *_, reading = answer_all_tasks(read_labels(mixed, photo, "binary"), mixed, photo)
    return add_heatmap(reading, mixed, "binary", reading.predictions["binary"].label)


@pytest.fixture(scope="module")
def withheld(reading):
    """The same reading, had the gate withheld its binary answer."""
    answer = replace(
        reading.predictions["binary"], verdict=ABSTAIN, abstain_reasons=("The photo is <blurred>.",)
    )
    return replace(reading, predictions=reading.predictions | {"binary": answer})


def answer_with(reading, nevus):
    answer = reading.predictions["binary"]
    return replace(answer, probabilities={"nevus": nevus, "others": 1 - nevus})


@pytest.mark.parametrize("name", OPERATING_POINTS)
def test_a_named_operating_point_decides_as_the_library_does(reading, calibrations, name):
    calibration = calibrations["binary"]
    point = calibration.operating_point(name, 8)
    for nevus in (1 - point.threshold - 1e-6, 1 - point.threshold + 1e-6):
        answer = answer_with(reading, nevus)
        decision = decide_with_settings(answer, calibration, DecisionSettings(name, prevalence=0.1))
        assert decision.decision == ("others" if 1 - nevus >= point.threshold else "nevus")
        assert (decision.sensitivity.low, decision.specificity.high) == (point.sensitivity, point.specificity)
        expected = predictive_values(point.sensitivity, point.specificity, 0.1)
        for found, value in zip(
            (decision.positive_predictive_value, decision.negative_predictive_value), expected, strict=True
        ):
            assert found == value if found is None else found.low == found.high == pytest.approx(value)


def test_figures_carry_the_intervals_of_the_calibration(reading, calibrations):
    decision = decide_with_settings(reading.predictions["binary"], calibrations["binary"], DecisionSettings())
    reported = calibrations["binary"].report["views"]["8"]["operating_points"]["balanced"]["sensitivity"]
    assert list(decision.sensitivity.interval) == reported["interval"]
    assert decision.sensitivity.images == reported["n"]
    assert decision.prevalence == calibrations["binary"].prevalence == 0.5
    bare = replace(calibrations["binary"], report={})
    decision = decide_with_settings(reading.predictions["binary"], bare, DecisionSettings())
    assert (decision.sensitivity.interval, decision.prevalence) == (None, 0.5)


def test_an_own_threshold_is_bounded_by_its_neighbours(calibrations):
    points = {
        "sensitivity_95": OperatingPoint(0.2, 0.95, 0.5),
        "balanced": OperatingPoint(0.5, 0.8, 0.8),
        "specificity_95": OperatingPoint(0.7, 0.4, 0.95),
    }
    fitted = replace(calibrations["binary"].by_views[8], operating_points=points)
    known = {
        0.1: (0.95, 1.0, 0.0, 0.5),
        0.3: (0.8, 0.95, 0.5, 0.8),
        0.5: (0.8, 0.8, 0.8, 0.8),
        0.9: (0.0, 0.4, 0.95, 1.0),
    }
    for threshold, bounds in known.items():
        sensitivity, specificity = bound_figures(fitted, threshold)
        assert (sensitivity.low, sensitivity.high, specificity.low, specificity.high) == bounds


def test_an_own_threshold_at_either_end_is_known_exactly(reading, calibrations):
    for threshold, sensitivity in ((0.0, 1.0), (1.0, 0.0)):
        decision = decide_with_settings(
            answer_with(reading, 0.5), calibrations["binary"], DecisionSettings(OWN_THRESHOLD, threshold, 0.2)
        )
        assert (decision.sensitivity.low, decision.sensitivity.high) == (sensitivity, sensitivity)
        assert (decision.specificity.low, decision.specificity.high) == (1 - sensitivity, 1 - sensitivity)
        undefined = decision.positive_predictive_value if threshold else decision.negative_predictive_value
        assert undefined is None


def test_an_own_threshold_that_reads_like_an_operating_point_has_its_figures(reading, calibrations):
    calibration, answer = calibrations["binary"], reading.predictions["binary"]
    fitted = calibration.by_views[8]
    points = fitted.operating_points | {"balanced": OperatingPoint(0.61237, 0.8, 0.7)}
    calibration = replace(
        calibration, by_views=calibration.by_views | {8: replace(fitted, operating_points=points)}
    )
    named = decide_with_settings(answer, calibration, DecisionSettings("balanced"))
    own = decide_with_settings(answer, calibration, DecisionSettings(OWN_THRESHOLD, 0.612))
    assert own.operating_point == OWN_THRESHOLD
    assert (own.sensitivity, own.specificity) == (named.sensitivity, named.specificity)
    page = result_html(reading, "binary", {"binary": calibration}, DecisionSettings(OWN_THRESHOLD, 0.612))
    assert "only known to lie between" not in page


def test_predictive_values_that_do_not_exist_are_not_made_up(reading, calibrations):
    decision = decide_with_settings(
        answer_with(reading, 0.5), calibrations["binary"], DecisionSettings(OWN_THRESHOLD, 1.0, 0.0)
    )
    assert decision.positive_predictive_value is None
    assert decision.negative_predictive_value.low == 1.0
    assert decision.decision == "nevus"


def test_uncalibrated_answers_are_not_decided(reading, calibrations):
    assert (
        decide_with_settings(
            reading.predictions["multiclass"], calibrations["multiclass"], DecisionSettings()
        )
        is None
    )
    page = result_html(reading, "multiclass", calibrations)
    assert "not calibrated" in page
    conditional = page[page.index("dd-conditional") :]
    assert "Sensitivity" not in conditional
    assert "Probability" not in conditional


@pytest.mark.parametrize("raw", [None, "50", float("nan"), float("inf"), True, [], {}])
def test_what_a_control_never_sends_becomes_a_default(calibrations, raw):
    settings = DecisionControls(TASKS, calibrations).read_settings(raw, raw, raw, raw)
    assert (settings.operating_point, settings.threshold, settings.prevalence) == ("balanced", 0.5, None)
    assert settings.override is (raw is True)


def test_percentages_beyond_their_range_are_held_in_it(calibrations):
    settings = DecisionControls(TASKS, calibrations).read_settings(OWN_THRESHOLD, 250, -3, False)
    assert (settings.threshold, settings.prevalence) == (1.0, 0.0)


def test_the_prevalence_box_shows_what_is_reckoned_with(calibrations):
    settled = DecisionControls(TASKS, calibrations).settle_prevalence
    assert settled("binary", 200) == 100
    assert settled("binary", -3) == 0
    assert settled("binary", None) == 50
    assert settled("binary", 12.34) == gr.skip()


def test_a_calibrated_checkpoint_without_similar_cases_is_read_all_the_same(mixed, lesion_files):
    checkpoint = mixed["binary"].checkpoint
    bare = Predictor(replace(checkpoint, trust=replace(checkpoint.trust, neighbours=None)))
    reading = read_labels({"binary": bare}, decode_image(lesion_files[0]), "binary")
    assert reading.predictions["binary"].calibrated
    assert cases_html(reading, "binary", DecisionSettings()) == ""


def test_deciding_takes_no_pass_through_the_model(reading, mixed, calibrations, monkeypatch):
    monkeypatch.setattr(mixed["binary"].checkpoint.classifier, "forward", None)
    monkeypatch.setattr(mixed["binary"].checkpoint.classifier, "embed", None)
    for threshold in np.linspace(0, 1, 11):
        settings = DecisionSettings(OWN_THRESHOLD, float(threshold), 0.02)
        page = result_html(reading, "binary", calibrations, settings)
        decided = decide_with_settings(
            reading.predictions["binary"], calibrations["binary"], settings
        ).decision
        name = BINARY.display_names[decided]
        assert f'<p class="dd-label">{name}</p>' in page
        assert name in announcement(reading, "binary", calibrations, settings)


def test_a_withheld_answer_is_not_given_away(withheld, calibrations):
    page = result_html(withheld, "binary", calibrations) + cases_html(withheld, "binary", DecisionSettings())
    text = page + announcement(withheld, "binary", calibrations)
    assert WITHHELD in page
    assert WITHHELD in announcement(withheld, "binary", calibrations)
    assert 'href="#check"' in page
    assert "The photo is &lt;blurred&gt;." in page
    assert not re.search(r"\d\u00a0%|dd-bars|ISIC_", text.replace("90\u00a0% does", ""))


def test_an_override_is_marked_wherever_the_answer_goes(withheld, mixed, calibrations):
    settings = DecisionSettings(override=True)
    page = result_html(withheld, "binary", calibrations, settings)
    assert "dd-overridden" in page
    assert "dd-bars" in page
    assert "withheld, shown at your request" in announcement(withheld, "binary", calibrations, settings)
    assert "ISIC_" in cases_html(withheld, "binary", settings)
    exported = export(withheld, mixed, "binary", settings)
    assert exported["override"]
    assert exported["readings"][0]["overridden"]
    assert "withheld" in report(withheld, mixed, "binary", settings, None, 0.5)
    untouched = export(withheld, mixed, "binary", DecisionSettings())
    assert (untouched["override"], untouched["readings"][0]["overridden"]) == (False, False)


def test_a_warned_answer_is_given_with_its_warning_wherever_it_goes(reading, mixed, calibrations):
    codes = ("blurred", "out_of_distribution", "darker_skin")
    sentences = warning_sentences(codes)
    given = reading.predictions["binary"]
    warnings = (*sentences, *given.warnings)
    answer = replace(given, verdict=ANSWER, abstain_codes=(), warning_codes=codes, warnings=warnings)
    warned = replace(reading, predictions=reading.predictions | {"binary": answer})
    page = result_html(warned, "binary", calibrations)
    decided = decide_with_settings(answer, calibrations["binary"], DecisionSettings()).decision
    assert f'<p class="dd-label">{decided.capitalize()}</p>' in page
    assert 'data-kind="warning"' in page
    said = announcement(warned, "binary", calibrations)
    saved = report(warned, mixed, "binary", DecisionSettings(), None, 0.5)
    for sentence in sentences:
        assert unescape(page).count(sentence) == unescape(saved).count(sentence) == 1
        assert sentence.rstrip(".") in said
    [exported] = export(warned, mixed, "binary")["readings"]
    assert (exported["verdict"], exported["warning_codes"]) == ("answer", list(codes))
    assert set(sentences) <= set(exported["warnings"])
    assert "differs from the training photos" in check_html(warned, "binary")


def test_a_withheld_photo_that_is_far_from_the_training_photos_is_not_called_similar(reading):
    answer = replace(
        reading.predictions["binary"], verdict=ABSTAIN, abstain_codes=("blurred",), warning_codes=()
    )
    check = replace(reading.photo_checks["binary"], strangeness=0.2, strangest=0.1)
    for strangeness, is_similar in ((0.2, False), (0.05, True)):
        far = replace(
            reading,
            predictions=reading.predictions | {"binary": answer},
            photo_checks=reading.photo_checks | {"binary": replace(check, strangeness=strangeness)},
        )
        assert ("differs from the training photos" in check_html(far, "binary")) is not is_similar


def test_an_answer_that_its_own_set_rules_out_is_called_doubtful(reading, mixed, calibrations):
    answer = answer_with(reading, 0.999)
    settings = DecisionSettings(OWN_THRESHOLD, 0.5)
    for possible, is_doubtful in ((("nevus",), False), (("others",), True), ((), True)):
        given = replace(answer, label="nevus", conformal_set=possible)
        changed = replace(reading, predictions=reading.predictions | {"binary": given})
        for said in (
            result_html(changed, "binary", calibrations, settings),
            report(changed, mixed, "binary", settings, None, 0.5),
        ):
            assert ("Nevus is not in the" in unescape(said)) is is_doubtful
        assert bool(export(changed, mixed, "binary", settings)["readings"][0]["cautions"]) is is_doubtful


def test_what_is_about_the_most_probable_class_says_so_beside_another_decision(reading, calibrations):
    given = replace(answer_with(reading, 0.6), label="nevus", warnings=("Most speak against Nevus.",))
    changed = replace(reading, predictions=reading.predictions | {"binary": given})
    page = result_html(changed, "binary", calibrations, DecisionSettings(OWN_THRESHOLD, 0.1))
    assert f'<p class="dd-label">{BINARY.display_names["others"]}</p>' in page
    assert BINARY.contents["others"] in page
    assert "Views that agree on Nevus, the most probable class" in page
    assert "Most speak against Nevus." in page
    page = result_html(changed, "binary", calibrations, DecisionSettings(OWN_THRESHOLD, 0.5))
    assert "Views that agree on Nevus<" in page
    assert BINARY.contents["others"] not in page


def test_similar_cases_of_a_photo_unlike_all_lesions_are_not_weighed(withheld):
    strange = replace(withheld.predictions["binary"], abstain_codes=("not_skin",))
    changed = replace(withheld, predictions=withheld.predictions | {"binary": strange})
    page = cases_html(changed, "binary", DecisionSettings(override=True))
    assert "ISIC_" in page
    assert "most similar cases" not in page
    assert SIMILAR_CASES not in result_html(changed, "binary", {}, DecisionSettings(override=True))


def test_an_export_keeps_a_withheld_answer_with_a_note(reading, withheld, mixed):
    [given] = export(reading, mixed, "binary")["readings"]
    [kept] = export(withheld, mixed, "binary")["readings"]
    assert given["withheld_note"] is None
    assert kept["withheld_note"]
    assert kept["probabilities"] == given["probabilities"]


def test_the_check_of_a_heatmap_names_its_class_and_method(reading, mixed):
    answer = reading.predictions["binary"]
    [given] = export(reading, mixed, "binary")["readings"]
    assert (given["saliency_check"]["method"], given["saliency_check"]["class"]) == ("Grad-SAM", answer.label)
    other = "others" if answer.label == "nevus" else "nevus"
    drawn = add_heatmap(reading, mixed, "binary", other, "attention-rollout")
    page = report(drawn, mixed, "binary", DecisionSettings(), ("attention-rollout", other), 0.5)
    assert f"Test of the Grad-SAM heatmap for {BINARY.display_names[answer.label]}" in page


def test_an_export_says_all_that_the_card_says(reading, mixed, calibrations):
    settings = DecisionSettings(OWN_THRESHOLD, 0.321, 0.04)
    exported = json.loads(json.dumps(export(reading, mixed, "multiclass", settings), allow_nan=False))
    binary, multiclass = exported["readings"]
    assert multiclass["decision"] is None
    # The threshold was set for the other task, where it would mean something else.
    assert binary["decision"]["operating_point"] == binary["operating_point"]["name"] == "balanced"
    exported = json.loads(json.dumps(export(reading, mixed, "binary", settings), allow_nan=False))
    [binary] = exported["readings"]
    assert binary["operating_point"]["threshold"] == binary["decision"]["threshold"] == 0.321
    assert binary["decision"]["prevalence"] == 0.04
    assert binary["decision"]["positive_predictive_value"]["low"] <= 1
    assert binary["weights_sha256"] == mixed["binary"].checkpoint.weights_sha256
    assert binary["conformal_set"] is not None
    assert binary["stability"]["agreeing_share"] <= 1
    assert len(binary["view_scores"]["scores"]) == 8
    assert len(binary["neighbours"]) == 5
    assert exported["image"]["sha256"] == reading.preview.sha256
    assert exported["app"]["version"]


def test_single_views_average_to_about_the_answer(reading):
    views, answer = reading.views["binary"], reading.predictions["binary"]
    assert views.calibrated
    assert min(views.scores) - 0.05 <= answer.probabilities[answer.label] <= max(views.scores) + 0.05
    assert sum(views.agrees) == answer.stability.agreeing_share * 8 == 8 - answer.stability.flips
    assert answer.stability.spread == max(views.scores) - min(views.scores)


def test_a_report_needs_no_network(reading, mixed):
    class Addresses(HTMLParser):
        found: list

        def handle_starttag(self, tag, attributes):
            values = dict(attributes)
            self.found += [values.get(name) for name in ("src", "srcset", "data") if values.get(name)]
            self.found += [values["href"]] if tag == "link" else []

    parser = Addresses()
    parser.found = []
    settings = DecisionSettings()
    label = reading.predictions["binary"].label
    parser.feed(report(reading, mixed, "binary", settings, ("grad-sam", label), 0.5))
    assert len(parser.found) == 2
    assert all(address.startswith("data:image/png") for address in parser.found)


def test_what_stands_in_for_the_photo_gives_the_same_heatmap(reading, mixed, lesion_files):
    photo = decode_image(lesion_files[0])
    drawn = add_heatmap(reading, mixed, "binary", "nevus", "attention-rollout")
    key = ("attention-rollout", "nevus")
    expected = attention_rollout(mixed["binary"], photo, "nevus")
    assert np.array_equal(drawn.maps["binary"][key].values, expected.values)
    assert drawn.checks["binary"][key] == check_saliency(mixed["binary"], photo, expected)


def test_similar_cases_link_to_the_archive_and_fetch_nothing(reading):
    page = cases_html(reading, "binary", DecisionSettings())
    answer = reading.predictions["binary"]
    assert f"{describe_vote(answer.neighbour_votes, answer.label, BINARY)}." in page
    assert sum(answer.neighbour_votes.values()) == VOTERS
    assert page.count("<li>") == 5
    assert page.count('href="https://api.isic-archive.com/images/ISIC_') == 5
    assert page.count('rel="noopener noreferrer"') == 5
    assert "<img" not in page
    assert cases_html(reading, "multiclass", DecisionSettings()) == ""


def test_pictures_of_cases_come_from_the_local_folder_only(reading, tmp_path, encoded_photo):
    (tmp_path / "ISIC_0000001.jpg").write_bytes(encoded_photo(1, width=600, height=450))
    (tmp_path / "ISIC_0000003.jpg").write_bytes(b"no image")
    (tmp_path.parent / "ISIC_0000009.jpg").write_bytes(encoded_photo(2))
    wanted = ["ISIC_0000001", "ISIC_0000002", "ISIC_0000003", "../ISIC_0000009", "ISIC_0000001"]
    pictures = load_pictures(tmp_path, wanted)
    assert list(pictures) == ["ISIC_0000001"]
    assert max(decode_image(pictures["ISIC_0000001"]).pixels.shape) == PICTURE_SIDE
    assert load_pictures(None, wanted) == {}
    near = reading.predictions["binary"].neighbours[0].image_id
    page = cases_html(
        replace(reading, pictures={near: pictures["ISIC_0000001"]}), "binary", DecisionSettings()
    )
    assert page.count('<img src="data:image/png;base64,') == 1
    assert (isic_id("ISIC_0000001_downsampled"), isic_id("<b>")) == ("ISIC_0000001", None)


def test_the_image_check_names_what_is_wrong(mixed, tmp_path):
    Image.new("RGB", (90, 90), (255, 255, 255)).save(tmp_path / "white.png")
    reading = read_labels(mixed, decode_image(tmp_path / "white.png"), "multiclass")
    assert isinstance(reading.predictions["binary"], Prediction)
    for task_key in ("binary", "multiclass"):
        page = check_html(reading, task_key)
        assert "overexposed<" in page
        assert "low resolution" in page
        assert ("not measured" in page) is (task_key == "multiclass")
    assert reading.predictions["binary"].verdict == ABSTAIN
