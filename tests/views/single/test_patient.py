"""Age and sex on the page: both answers, and inputs only where a model was fitted so. Without a browser."""

import json
import re
from pathlib import Path

import gradio as gr
import pytest
from eight_diagnoses import VIEWS, eight_diagnoses_root
from fitted_with_age import fitted_with_age_root

from dermadeit.data.patient import Patient
from dermadeit.imaging.decode import decode_image
from dermadeit.inference.decision import DecisionSettings
from dermadeit.inference.predictor import Predictor, load_predictor
from dermadeit.inference.prevalence import answer_at
from dermadeit.reporting.format import percent
from dermadeit.tasks import BINARY, MULTICLASS
from dermadeit.views.single import exports, reading
from dermadeit.views.single.reading import read_labels, with_patient
from dermadeit.views.single.tab import SingleImageTab
from dermadeit.views.single.turn import Turn, Visit

pytestmark = pytest.mark.slow

CONTROLS = ("balanced", 50, 50, False)


def _predictors(root: Path) -> dict[str, Predictor]:
    network = load_predictor(root=root)
    return {task.key: network.for_task(task.key) for task in (BINARY, MULTICLASS)}


def _tab(predictors: dict[str, Predictor]) -> SingleImageTab:
    tab = SingleImageTab(predictors)
    with gr.Blocks(analytics_enabled=False):
        tab.render()
    return tab


@pytest.fixture(scope="module")
def predictors(synthetic_data: Path) -> dict[str, Predictor]:
    return _predictors(fitted_with_age_root(synthetic_data))


@pytest.fixture
def visit(
    predictors: dict[str, Predictor], lesion_files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> Visit:
    """A visitor whose photo was read, with the number of views that the network was calibrated for."""
    monkeypatch.setattr(reading, "_predict_tasks", lambda one, photo: next(one.predict_tasks([photo], VIEWS)))
    turn = Turn(None, "binary")
    turn.reading = read_labels(predictors, decode_image(lesion_files[0]), "binary")
    return Visit(turn)


def _shown(card: str) -> str | None:
    found = re.search(r"<dt>(With [^<]*)</dt><dd>([^<]*)</dd>", card)
    return found and f"{found[1]}: {found[2]}"


def test_the_card_shows_both_answers_and_drops_the_second_when_the_age_goes(
    predictors: dict[str, Predictor], visit: Visit
) -> None:
    tab = _tab(predictors)
    updates = tab.take_patient(visit, "binary", "63", "female", *CONTROLS)
    card = updates[tab.result]
    said = _shown(card)
    assert said is not None and said.startswith("With age 63, female: ")
    assert visit.turn is not None and visit.turn.reading is not None
    aged = with_patient(visit.turn.reading, predictors, Patient(63, "female")).predictions["binary"]
    calibrations = {key: predictor.checkpoint.calibration for key, predictor in predictors.items()}
    context = answer_at(aged, BINARY, calibrations, 0.5)
    assert context.patient_context is not None and context.patient_context.asked is not None
    for key, share in context.patient_context.asked.probabilities.items():
        assert f"{BINARY.display_names[key]} {percent(share)}" in said
    wrong = tab.take_patient(visit, "binary", "abc", "female", *CONTROLS)
    assert "“abc” is not an age" in wrong[tab.status]
    assert _shown(wrong[tab.result]) is None


def test_report_and_export_hold_the_answer_with_age(predictors: dict[str, Predictor], visit: Visit) -> None:
    assert visit.turn is not None and visit.turn.reading is not None
    aged = with_patient(visit.turn.reading, predictors, Patient(63))
    exported = exports.export(aged, predictors, "binary")
    assert json.loads(json.dumps(exported))["readings"][0]["patient_context"]["age"] == 63
    html = exports.report(aged, predictors, "binary", DecisionSettings(override=True), None, 0.5)
    assert "With age 63" in html


def test_nothing_asks_for_an_age_where_no_model_was_fitted_so(
    predictors: dict[str, Predictor], synthetic_data: Path
) -> None:
    def ids(one: dict[str, Predictor]) -> set[str | None]:
        with gr.Blocks(analytics_enabled=False) as page:
            SingleImageTab(one).render()
        return {getattr(block, "elem_id", None) for block in page.blocks.values()}

    assert {"age", "sex"} <= ids(predictors)
    plain = _predictors(eight_diagnoses_root(synthetic_data, calibrated=False))
    assert not {"age", "sex"} & ids(plain)
