"""The zoo: what can be compared, and what is said of a model that can't."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from eight_diagnoses import eight_diagnoses_root

from dermadeit.errors import CheckpointError, ModelError
from dermadeit.inference.predictor import Predictor
from dermadeit.inference.zoo import ModelZoo
from dermadeit.models.specs import COMPARED_MODELS, MODEL_SPECS


def test_every_model_is_listed_and_a_missing_one_names_the_command_that_makes_it(
    checkpoint_root: Path,
) -> None:
    zoo = ModelZoo(checkpoint_root)
    entries = {entry.name: entry for entry in zoo.entries("multiclass")}
    assert tuple(entries) == COMPARED_MODELS
    assert {name for name, entry in entries.items() if entry.available} == {"dermadeit", "mobilenetv2"}
    assert entries["deit"].title == MODEL_SPECS["deit"].title
    assert "python train/distill.py --recipe plain --task multiclass" in entries["deit"].missing
    with pytest.raises(CheckpointError, match="--recipe plain"):
        zoo.predictor("multiclass", "deit")
    with pytest.raises(ModelError):
        zoo.predictor("multiclass", "resnet")


@pytest.mark.parametrize("model", ["{folder}", "./dermadeit", "../binary/dermadeit", ""])
def test_only_a_name_is_taken_never_a_folder(checkpoint_root: Path, model: str) -> None:
    zoo = ModelZoo(checkpoint_root)
    with pytest.raises(ModelError, match="Choose one of dermadeit, deit"):
        zoo.predictor("binary", model.format(folder=checkpoint_root / "binary" / "dermadeit"))


def test_a_model_is_loaded_once_for_all_who_ask(checkpoint_root: Path) -> None:
    zoo = ModelZoo(checkpoint_root)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: zoo.predictor("binary", "mobilenetv2"), range(8)))
    assert len({id(predictor) for predictor in found}) == 1
    assert found[0].checkpoint.model == "mobilenetv2"


def test_a_predictor_that_is_there_already_is_taken(predictors: dict[str, Predictor], tmp_path: Path) -> None:
    zoo = ModelZoo(tmp_path, {("binary", "dermadeit"): predictors["binary"]})
    assert zoo.predictor("binary", "dermadeit") is predictors["binary"]
    assert [entry.name for entry in zoo.entries("binary") if entry.available] == ["dermadeit"]


@pytest.mark.slow
def test_one_network_serves_all_its_tasks(synthetic_data: Path) -> None:
    zoo = ModelZoo(eight_diagnoses_root(synthetic_data))
    binary, malignancy = (zoo.predictor(task, "dermadeit") for task in ("binary", "malignancy"))
    assert binary.checkpoint.classifier is malignancy.checkpoint.classifier
    assert (binary.checkpoint.task.key, malignancy.checkpoint.task.key) == ("binary", "malignancy")
    assert [entry.name for entry in zoo.entries("diagnosis") if entry.available] == ["dermadeit"]
