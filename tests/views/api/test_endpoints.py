"""What the API offers beyond the reading of a photo, and what it says of itself."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from calibrated_checkpoint import calibrated_predictor
from eight_diagnoses import VIEWS, eight_diagnoses_root
from gradio.utils import get_function_description
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from repository import ROOT

from dermadeit.data.patient import Patient
from dermadeit.errors import ConfigurationError
from dermadeit.imaging.decode import decode_image
from dermadeit.inference.decision import OWN_THRESHOLD, DecisionSettings, decide_with_settings
from dermadeit.inference.lesion import join_photos
from dermadeit.inference.predictor import Predictor
from dermadeit.inference.prevalence import answer_at, apply_settings_to_lesion
from dermadeit.inference.saliency import DEFAULT_OPACITY, default_method
from dermadeit.inference.zoo import load_answering
from dermadeit.reporting.names import WITHHELD
from dermadeit.tasks import BINARY
from dermadeit.views.api.decide import check_settings, read_answer
from dermadeit.views.application import build_app
from dermadeit.views.single.exports import export, report
from dermadeit.views.single.reading import add_heatmap, answer_all_tasks, read_labels


@pytest.fixture(scope="module")
def mixed(checkpoint_root, synthetic_data, predictors):
    """A calibrated binary predictor beside a multiclass one that was not calibrated."""
    binary = calibrated_predictor(checkpoint_root, synthetic_data)
    return {"binary": binary, "multiclass": predictors["multiclass"]}


@pytest.fixture(scope="module")
def calibrated(cache, start_app, mixed, tmp_path_factory):
    """A client of an app whose first task is calibrated."""
    app, url = start_app(mixed)
    downloads = tmp_path_factory.mktemp("downloads")
    yield Client(url, verbose=False, analytics_enabled=False, download_files=downloads)
    app.close(verbose=False)


@pytest.fixture(scope="module")
def client(app_url, tmp_path_factory):
    downloads = tmp_path_factory.mktemp("downloads")
    return Client(app_url, verbose=False, analytics_enabled=False, download_files=downloads)


@pytest.mark.slow
def test_every_public_event_says_what_it_does_takes_and_gives(predictors, zoo):
    app = build_app(predictors, zoo)
    events = [event for event in app.fns.values() if event.fn is not None]
    assert {event.api_visibility for event in events} == {"public", "private"}
    for event in (event for event in events if event.api_visibility == "public"):
        # What Gradio makes of a docstring, for the API's page and for MCP clients; it drops what it does not see.
        description, parameters, returns = get_function_description(event.fn)
        assert "not a medical device" in description, event.api_name
        assert len(parameters) == len(event.inputs)
        assert [name for name, said in parameters.items() if not said.endswith(".")] == [], event.api_name
        assert [said[-1] for said in returns] == ["."], event.api_name
        # MCP clients refuse a tool with a schema that is none, as that of Gradio's own JSON input.
        assert [block.label for block in event.inputs if block.api_info().get("type") == {}] == []


@pytest.mark.slow
def test_a_report_is_the_one_that_the_page_makes(calibrated, mixed, encoded_photo, file_of):
    path = file_of(encoded_photo(2))
    file, exported = calibrated.predict(
        handle_file(path), "binary", threshold=0.3, prevalence=0.04, api_name="/report"
    )
    photo, settings = decode_image(path), DecisionSettings(OWN_THRESHOLD, 0.3, 0.04)
    # As the page reads a photo.
    *_, reading = answer_all_tasks(read_labels(mixed, photo, "binary"), mixed, photo)
    label = reading.predictions["binary"].label
    reading = add_heatmap(reading, mixed, "binary", label)
    assert exported == json.loads(json.dumps(export(reading, mixed, "binary", settings)))
    assert Path(file).name == f"dermadeit-{reading.preview.sha256[:8]}.html"
    made = report(
        reading, mixed, "binary", settings, (default_method(*mixed.values()), label), DEFAULT_OPACITY
    )
    assert undated(Path(file).read_text(encoding="utf-8")) == undated(made)
    assert made.count("data:image/png") == 2


def undated(page):
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:+]+", "", page)


def test_a_report_keeps_a_withheld_answer_back_unless_told_otherwise(calibrated, tmp_path):
    Image.new("RGB", (90, 90), (255, 255, 255)).save(tmp_path / "white.png")
    image = handle_file(tmp_path / "white.png")
    file, exported = calibrated.predict(image, "binary", api_name="/report")
    page = Path(file).read_text(encoding="utf-8")
    assert WITHHELD in page
    assert page.count("data:image/png") == 1
    assert (exported["readings"][0]["verdict"], exported["override"]) == ("abstain", False)
    file, exported = calibrated.predict(image, "binary", override=True, api_name="/report")
    page = Path(file).read_text(encoding="utf-8")
    assert "withheld and shown at your request" in page
    assert page.count("data:image/png") == 2
    assert exported["readings"][0]["overridden"]


@pytest.mark.slow
def test_a_report_refuses_what_cannot_be_decided(client, calibrated, encoded_photo, file_of):
    image = handle_file(file_of(encoded_photo()))
    with pytest.raises(AppError, match="not both"):
        calibrated.predict(image, "binary", "balanced", 0.3, api_name="/report")
    for options in ({"operating_point": "balanced"}, {"threshold": 0}, {"prevalence": 0.1}):
        with pytest.raises(AppError, match="is not calibrated"):
            client.predict(image, "binary", **options, api_name="/report")
    _, exported = client.predict(image, "multiclass", api_name="/report")
    assert [reading["decision"] for reading in exported["readings"]] == [None, None]


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({}, DecisionSettings()),
        (
            {"operating_point": "specificity_95", "prevalence": 0.1},
            DecisionSettings("specificity_95", prevalence=0.1),
        ),
        ({"threshold": 0.3, "prevalence": 0.04}, DecisionSettings(OWN_THRESHOLD, 0.3, 0.04)),
    ],
)
def test_a_decision_is_the_one_that_the_page_shows(
    calibrated, mixed, encoded_photo, file_of, options, settings
):
    path = file_of(encoded_photo(3))
    records = calibrated.predict(handle_file(path), "binary", api_name="/predict")
    told = calibrated.predict(records, "binary", **options, api_name="/decide")
    answer = read_labels(mixed, decode_image(path), "binary").predictions["binary"]
    decision = decide_with_settings(answer, mixed["binary"].checkpoint.calibration, settings)
    assert told["decision"] == json.loads(json.dumps(decision.to_dict()))
    assert told["conformal_set"] == list(answer.conformal_set)
    moved = answer_at(answer, BINARY, {"binary": mixed["binary"].checkpoint.calibration}, settings.prevalence)
    assert (told["verdict"], told["label"]) == (answer.verdict, moved.label)
    assert told["probabilities"] == pytest.approx(dict(moved.probabilities))
    bare = calibrated.predict(answer.probabilities["others"], "binary", **options, api_name="/decide")
    assert bare["decision"] == told["decision"]
    assert bare["verdict"] is None


def test_a_record_at_a_prevalence_is_decided_at_it_or_at_another(calibrated, encoded_photo, file_of):
    photo = handle_file(file_of(encoded_photo(3)))
    [plain] = calibrated.predict(photo, "binary", api_name="/predict")
    [moved] = calibrated.predict(photo, "binary", prevalence=0.1, api_name="/predict")
    assert (plain["prevalence"], moved["prevalence"]) == (0.5, 0.1)
    odds = plain["probabilities"]["others"] / plain["probabilities"]["nevus"] / 9
    assert moved["probabilities"]["others"] == pytest.approx(odds / (1 + odds))
    as_given = calibrated.predict(moved, "binary", api_name="/decide")
    assert as_given["probabilities"] == pytest.approx(moved["probabilities"])
    assert as_given["decision"]["prevalence"] == 0.1
    told = calibrated.predict(moved, "binary", prevalence=0.02, api_name="/decide")
    expected = calibrated.predict(plain, "binary", prevalence=0.02, api_name="/decide")
    assert told["probabilities"] == pytest.approx(expected["probabilities"])
    assert told["decision"]["positive_predictive_value"] == expected["decision"]["positive_predictive_value"]
    for wrong in (0, 1.5, "0.1"):
        with pytest.raises(AppError, match="prevalence of the record"):
            calibrated.predict(moved | {"prevalence": wrong}, "binary", api_name="/decide")


def test_a_decision_on_a_withheld_answer_says_so(calibrated, encoded_photo, file_of):
    [record] = calibrated.predict(handle_file(file_of(encoded_photo(3))), "binary", api_name="/predict")
    told = calibrated.predict(record | {"verdict": "abstain"}, "binary", api_name="/decide")
    assert told["verdict"] == "abstain"
    assert told["withheld_note"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"status": "failed"}, "was not read"),
        ({"task": "multiclass", "readings": None}, "not of the task"),
        ({"model": "mobilenetv2"}, "not of the model"),
        ({"calibrated": False}, "not calibrated"),
        ({"views": 9}, "nothing to decide"),
        ({"views": True}, "nothing to decide"),
        ({"verdict": None}, "nothing to decide"),
        ({"probabilities": {"nevus": 0.7, "others": 0.7}}, "nothing to decide"),
        ({"probabilities": {"nevus": 1}}, "nothing to decide"),
        ({"probabilities": {"nevus": "1", "others": 0}}, "nothing to decide"),
        ({"probabilities": [0.5, 0.5]}, "nothing to decide"),
    ],
)
def test_a_record_that_cannot_be_decided_on_is_refused(mixed, lesion_files, changes, words):
    [record] = (answer.to_dict() for answer in mixed["binary"].predict(lesion_files[:1]))
    assert read_answer([record], mixed["binary"]).probabilities == record["probabilities"]
    with pytest.raises(ConfigurationError, match=words):
        read_answer(record | changes, mixed["binary"])


@pytest.mark.slow
@pytest.mark.parametrize("given", [None, "0.5", True, 1.5, -0.1, [], [0.5, 0.5], {}])
def test_what_is_no_record_and_no_probability_is_refused(mixed, given):
    with pytest.raises(ConfigurationError, match=r"nothing to decide|not of the task"):
        read_answer(given, mixed["binary"])


@pytest.mark.slow
def test_one_probability_does_not_decide_among_three_classes(mixed):
    with pytest.raises(ConfigurationError, match="is not calibrated"):
        read_answer(0.5, mixed["multiclass"])
    checkpoint = mixed["binary"].checkpoint
    calibration = replace(checkpoint.calibration, classes=("mel", "bcc", "scc"))
    trust = replace(checkpoint.trust, calibrations={"binary": calibration})
    with pytest.raises(ConfigurationError, match="with two classes"):
        read_answer(0.5, Predictor(replace(checkpoint, trust=trust)))


@pytest.mark.parametrize(
    "asked",
    [
        ("youden", None, None),
        (["balanced"], None, None),
        (None, "0.5", None),
        (None, 1.5, None),
        (None, None, -1),
    ],
)
def test_settings_out_of_their_range_are_refused(asked):
    with pytest.raises(ConfigurationError, match=r"Choose one of|number from 0 to 1"):
        check_settings(*asked)


def python_of(document):
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(encoding="utf-8"), re.S)


@pytest.mark.slow
def test_the_documented_examples_run(calibrated, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    # The other example, of any HTTP client, has a test of its own.
    [library], [api, _] = python_of("README.md"), python_of("docs/api.md")
    exec(library, {})
    names = {"running": calibrated}
    exec(api.replace('Client("http://127.0.0.1:7860")', "running"), names)
    assert len(capsys.readouterr().out.splitlines()) == 5
    assert Path(names["report"]).suffix == ".html"


def test_the_documented_endpoints_are_those_of_the_app(calibrated):
    table = re.findall(
        r"^\| `(/\w+)` \|[^|]*\| ([^|]*) \|", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.M
    )
    documented = {name: re.findall(r"`(\w+)`", parameters) for name, parameters in table}
    endpoints = calibrated.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert documented == {
        name: [parameter["parameter_name"] for parameter in endpoint["parameters"]]
        for name, endpoint in endpoints.items()
    }


@pytest.mark.slow
def test_several_photos_of_a_lesion_get_one_answer(calibrated, mixed, encoded_photo, file_of):
    paths = [file_of(encoded_photo(seed), f"{seed}.jpg") for seed in (1, 2)]
    broken = file_of(b"no image", "broken.jpg")
    record = calibrated.predict(
        [handle_file(path) for path in (*paths, broken)],
        "binary",
        "sensitivity_95",
        api_name="/predict_lesion",
    )
    # One photo at a time, since the last digits depend on the batch.
    photos = [mixed["binary"].predict([path], operating_point="sensitivity_95")[0] for path in paths]
    expected = join_photos(mixed["binary"], photos, operating_point="sensitivity_95").to_dict()
    assert [photo["file"] for photo in record["photos"]] == ["1.jpg", "2.jpg", "broken.jpg"]
    assert record["photos"][2]["error"]["code"] == "not_an_image"
    assert record["photos"][:2] == expected["photos"]
    assert {key: record[key] for key in expected if key != "photos"} == {
        key: value for key, value in expected.items() if key != "photos"
    }
    told = calibrated.predict(
        [handle_file(path) for path in paths],
        "binary",
        age=63,
        sex="female",
        prevalence=0.2,
        api_name="/predict_lesion",
    )
    patient, trust = Patient(63, "female"), mixed["binary"].checkpoint.trust
    photos = [mixed["binary"].predict([path], patients=patient)[0] for path in paths]
    joint = join_photos(mixed["binary"], photos, patient=patient)
    moved, _ = apply_settings_to_lesion(joint, BINARY, trust.calibrations, DecisionSettings(prevalence=0.2))
    assert told | {"photos": []} == moved.to_dict() | {"photos": []}
    assert (told["prevalence"], told["patient_context"]["age"]) == (0.2, 63)
    with pytest.raises(AppError, match="1 to 12 photos"):
        calibrated.predict([], "binary", api_name="/predict_lesion")


def test_a_record_is_decided_on_for_every_task_that_it_has_a_reading_of(synthetic_data, lesion_files):
    answering = load_answering(eight_diagnoses_root(synthetic_data) / "dermadeit")
    [record] = answering["diagnosis"].predict(lesion_files[:1], VIEWS)
    told = record.to_dict()
    for key, predictor in answering.items():
        answer = read_answer(told, predictor)
        assert (answer.task, answer.probabilities) == (key, record.readings[key].probabilities)
    told["readings"]["malignancy"] = {"probabilities": {"benign": 1}}
    with pytest.raises(ConfigurationError, match="nothing to decide"):
        read_answer(told, answering["malignancy"])
