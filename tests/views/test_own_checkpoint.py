"""The app with a checkpoint of one's own, whose classes no other model knows: through the API and the page."""

import json
import shutil
import zipfile
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import torch
from gradio_client import Client, handle_file
from PIL import Image

import app
from dermadeit.data.manifest import read_source
from dermadeit.evaluation.calibrate import fit_trust
from dermadeit.imaging.preprocessing import Preprocessing
from dermadeit.inference.predictor import Predictor
from dermadeit.inference.zoo import ModelZoo, load_answering
from dermadeit.models.checkpoints import answered_tasks, load_checkpoint, save_checkpoint
from dermadeit.models.classifier import create_classifier
from dermadeit.tasks import DIAGNOSIS, OWN, create_own_task
from dermadeit.trust.files import write_trust
from dermadeit.views.batch.tab import BatchEvaluationTab
from dermadeit.views.comparison.tab import ModelComparisonTab
from dermadeit.views.single.tab import SingleImageTab
from dermadeit.views.single.turn import Visit

WARTS = create_own_task(("wart", "mole"), {"mole": "Mole", "wart": "HPV wart"}, target="wart", title="Warts")
SIDE = 64


@pytest.fixture(scope="module")
def bare_folder(tmp_path_factory):
    """A checkpoint that was never calibrated, with random weights."""
    folder = tmp_path_factory.mktemp("own") / "deit"
    torch.manual_seed(0)
    classifier = create_classifier("deit", len(WARTS.classes), image_size=SIDE)
    save_checkpoint(folder, classifier, WARTS, Preprocessing(SIDE))
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory, encoded_photo):
    """Synthetic photos in a folder for each class."""
    root = tmp_path_factory.mktemp("photos")
    for seed in range(48):
        path = root / ("HPV wart", "mole")[seed % 2] / f"{seed}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded_photo(seed))
    return root


@pytest.fixture(scope="module")
def folder(bare_folder, photos):
    """The same with a calibration on these photos, and half of them as known cases."""
    folder = bare_folder.with_name("calibrated")
    shutil.copytree(bare_folder, folder)
    lines = ["image_id,file,label,lesion_group,split"]
    for number, path in enumerate(sorted(photos.rglob("*.jpg"))):
        split = ("train", "calibration")[number % 2]
        label = "mole" if path.parent.name == "mole" else "wart"
        lines.append(f"{path.stem},{path.relative_to(photos)},{label},{number},{split}")
    table = folder.with_name("table.csv")
    table.write_text("\n".join(lines) + "\n")
    manifest = read_source(table, WARTS, photos)
    trust = fit_trust(
        manifest.select("calibration"), manifest.select("train"), Predictor(load_checkpoint(folder))
    )
    write_trust(folder, trust)
    return folder


@pytest.fixture(scope="module")
def answering(folder):
    return load_answering(folder)


@pytest.fixture(scope="module")
def own_zoo(answering):
    return ModelZoo(loaded={(key, one.checkpoint.model): one for key, one in answering.items()})


@pytest.fixture(scope="module")
def client(cache, start_app, answering, own_zoo, tmp_path_factory):
    running, url = start_app(answering, own_zoo)
    yield Client(
        url, verbose=False, analytics_enabled=False, download_files=tmp_path_factory.mktemp("downloads")
    )
    running.close(verbose=False)


@pytest.fixture
def photo(file_of, encoded_photo):
    return file_of(encoded_photo(100))


def test_every_endpoint_of_a_photo_answers_for_ones_own_classes(client, photo):
    [record] = client.predict(handle_file(photo), OWN, "sensitivity_95", 3, api_name="/predict")
    assert (record["status"], record["task"], record["model"]) == ("ok", OWN, "deit")
    assert sum(record["probabilities"].values()) == pytest.approx(1)
    assert record["operating_point"]["name"] == "sensitivity_95"
    assert {near["diagnosis"] for near in record["neighbours"]} <= set(WARTS.classes)
    decided = client.predict(record, OWN, None, 0.0, api_name="/decide")
    assert (decided["decision"]["target"], decided["decision"]["decision"]) == ("wart", "wart")
    assert decided["class_names"] == dict(WARTS.display_names)
    _, check = client.predict(handle_file(photo), OWN, "wart", api_name="/explain")
    assert check["class_key"] == "wart"
    report, exported = client.predict(handle_file(photo), override=True, api_name="/report")
    assert [reading["title"] for reading in exported["readings"]] == ["Warts"]
    written = Path(report).read_text(encoding="utf-8")
    assert "HPV wart" in written
    assert "hpv wart" not in written
    [compared] = client.submit(handle_file(photo), OWN, api_name="/compare").result()
    assert (compared["status"], compared["model"]) == ("ok", "deit")
    [refused] = client.predict(handle_file(photo), "binary", api_name="/predict")
    assert OWN in refused["error"]["message"]


def test_a_zip_of_labelled_photos_is_evaluated_with_ones_own_titles(client, photos, tmp_path):
    packed = tmp_path / "photos.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(photos.rglob("*.jpg"))[12:36]:
            archive.write(path, path.relative_to(photos))
    answer, everything = client.submit([handle_file(packed)], OWN, ["deit"], 1, api_name="/evaluate").result()
    figures = answer["models"]["deit"]
    assert (answer["labelled"], figures["n"]) == (True, 24)
    assert figures["confusion_matrix"]["classes"] == list(WARTS.classes)
    with zipfile.ZipFile(everything) as archive:
        report = archive.read("report.html").decode()
        (tmp_path / "predictions.csv").write_bytes(archive.read("predictions.csv"))
    assert "HPV wart" in report
    again, _ = client.submit(
        [handle_file(tmp_path / "predictions.csv")], OWN, [], 1, api_name="/evaluate"
    ).result()
    assert again["models"]["deit"]["accuracy"] == figures["accuracy"]
    alone = client.submit(
        [handle_file(tmp_path / "predictions.csv")], OWN, [], api_name="/compare_predictions"
    )
    assert alone.result()["models"]


@pytest.fixture(params=["calibrated", "bare"])
def tab(request, folder, bare_folder):
    made = SingleImageTab(load_answering(folder if request.param == "calibrated" else bare_folder))
    with gr.Blocks():
        made.render()
    return made


def test_the_page_shows_titles_and_offers_no_other_task(tab, cache, uploaded, photo):
    record, visit = uploaded(photo), Visit()
    tab.clear(record, visit, OWN, "balanced", 50, 50, False)
    seen = {}
    for step in tab.read(record, visit, "grad-cam"):
        seen |= step if step.get("__type__") != "update" else {}
    [result] = [value for part, value in seen.items() if part is tab.result]
    assert "HPV wart" in result
    assert "If malignant" not in result
    assert "Done." in seen[tab.status]
    shown = tab.override(visit, OWN, "balanced", 50, 50, True, "grad-cam")
    assert "HPV wart" in shown[tab.result]
    assert "hpv wart" not in result + shown[tab.result]


def texts(build):
    with gr.Blocks() as page:
        build()
    return json.dumps(page.get_config_file()["components"], default=str)


def test_tabs_do_not_speak_of_models_and_diagnoses_that_are_not_here(cache, own_zoo, answering):
    compared = texts(ModelComparisonTab(own_zoo).render)
    assert "no other models with these classes" in compared
    assert "MobileNetV2" not in compared
    batch = texts(BatchEvaluationTab(own_zoo).render)
    assert "Nevus or not" not in batch
    assert "wart/" in batch
    assert "nevus/" not in batch
    assert "MEL/" not in batch
    assert "p_wart,p_mole" in batch.replace("%2C", ",")
    assert "ISIC 2016" not in texts(SingleImageTab(answering).render)


def test_a_checkpoint_of_an_embedded_task_answers_it_in_place_of_the_embedded_one(checkpoint_root):
    folder = checkpoint_root / "multiclass" / "mobilenetv2"
    answering = load_answering(folder)
    embedded = [task.key for task in answered_tasks()]
    assert {key: one.checkpoint.model for key, one in answering.items()} == {
        **dict.fromkeys(embedded, "dermadeit"),
        "multiclass": "mobilenetv2",
    }
    zoo = ModelZoo(loaded={(key, one.checkpoint.model): one for key, one in answering.items()})
    assert [task.key for task in zoo.tasks] == list(answering)
    assert zoo.predictor("multiclass", "mobilenetv2") is answering["multiclass"]
    assert zoo.predictor("multiclass", "dermadeit").checkpoint.model == "dermadeit"


def test_a_checkpoint_of_all_diagnoses_stands_before_the_embedded_ones(tmp_path):
    classifier = create_classifier("mobilenetv2", len(DIAGNOSIS.classes), image_size=SIDE)
    save_checkpoint(tmp_path / "eight", classifier, DIAGNOSIS, Preprocessing(SIDE))
    answering = load_answering(tmp_path / "eight")
    assert next(iter(answering)) == "diagnosis"
    assert set(answering) == {"diagnosis", "malignancy", "binary", "multiclass"}
    assert {one.checkpoint.model for one in answering.values()} == {"mobilenetv2"}
    pixels = np.full((SIDE, SIDE, 3), 128, np.uint8)
    [record] = answering["diagnosis"].predict([Image.fromarray(pixels)])
    assert set(record.probabilities) == set(DIAGNOSIS.classes)


@pytest.mark.parametrize("named", ["option", "variable"])
@pytest.mark.parametrize("fault", ["no folder", "no checkpoint", "damaged"])
def test_what_is_no_checkpoint_is_said_in_one_sentence(
    named, fault, tmp_path, bare_folder, monkeypatch, capsys
):
    folder = tmp_path / "checkpoint"
    if fault == "no checkpoint":
        folder.mkdir()
    if fault == "damaged":
        shutil.copytree(bare_folder, folder)
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])
    if named == "variable":
        monkeypatch.setenv(app.CHECKPOINT_VARIABLE, str(folder))
    assert app.main(["--checkpoint", str(folder)] if named == "option" else []) == 2
    told = capsys.readouterr()
    assert "checkpoint" in told.err
    assert told.err.count("\n") == 1
