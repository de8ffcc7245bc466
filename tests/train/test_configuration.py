"""Settings from defaults, recipe and command line; impossible ones are refused by name."""

import re
from pathlib import Path

import pytest
import torch

from dermadeit.errors import ConfigurationError, DermaDeiTError
from dermadeit.models.checkpoints import training_command
from dermadeit.models.specs import COMPARED_MODELS, get_spec
from dermadeit.tasks import TASKS
from train.command_line import RECIPES, parse_arguments
from train.configuration import AugmentationSettings, RunSettings, TrainingConfiguration


@pytest.mark.parametrize("recipe", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_every_shipped_recipe_is_valid(recipe: str) -> None:
    for task in TASKS:
        configuration = parse_arguments(["--recipe", recipe, "--task", task]).configuration
        assert configuration.data.task == task
        assert get_spec(configuration.model.model).distilled == (configuration.teacher.teacher != "none")


def test_baselines_get_the_budget_and_the_augmentation_of_the_distilled_model() -> None:
    ours = parse_arguments(["--recipe", "dermadeit"]).configuration.settings
    for recipe in ("plain", "mobilenetv2", "efficientnetv2-b0"):
        baseline = parse_arguments(["--recipe", recipe]).configuration.settings
        for field in ("epochs", "batch_size", "image_size", "flip", "rotation_degrees", "elastic", "mixup"):
            assert baseline[field] == ours[field]
        assert baseline["teacher"] == "none"


@pytest.mark.parametrize("model", [*COMPARED_MODELS, "vit-augreg"])
def test_the_command_that_is_shown_for_a_missing_model_trains_it(model: str) -> None:
    words = training_command("multiclass", model).split()
    assert words[:2] == ["python", "train/distill.py"]
    arguments = words[2:] if model != "vit-augreg" else [*words[2:], "--teacher", "none"]
    configuration = parse_arguments(arguments).configuration
    assert (configuration.model.model, configuration.data.task) == (model, "multiclass")


def test_a_recipe_adds_to_its_base_and_a_task_to_its_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("base: plain\nepochs: 3\nmulticlass:\n  epochs: 7\n")
    binary = parse_arguments(["--recipe", str(recipe)]).configuration.settings
    multiclass = parse_arguments(["--recipe", str(recipe), "--task", "multiclass"]).configuration.settings
    assert (binary["model"], binary["epochs"], multiclass["epochs"]) == ("deit", 3, 7)
    assert parse_arguments(["--recipe", "original"]).configuration.optimisation.step_factor == 0.2
    original = parse_arguments(["--recipe", "original", "--task", "multiclass"]).configuration.settings
    assert (original["step_factor"], original["classification_weight"]) == (0.5, 3.0)


def test_the_command_line_wins_over_the_recipe_and_the_recipe_over_defaults(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("epochs: 3\nalpha: 2\n")
    words = ["--recipe", str(recipe), "--epochs", "5", "--allow-leaks"]
    settings = parse_arguments(words).configuration.settings
    assert (settings["epochs"], settings["alpha"], settings["gamma"]) == (5, 2.0, 2.0)
    assert settings["allow_leaks"]


def test_the_defaults_are_the_default_recipe() -> None:
    assert parse_arguments([]).configuration == TrainingConfiguration()
    assert parse_arguments([]).configuration == parse_arguments(["--recipe", "dermadeit"]).configuration


def test_every_setting_is_an_option_that_help_describes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for name in TrainingConfiguration().settings:
        assert re.search(rf"--{name.replace('_', '-')}[ ,]", shown)
    assert "{cosine,step}" in shown and "passes over the train split (default: 10)" in shown
    with pytest.raises(SystemExit) as caught:
        parse_arguments(["--schedule", "linear"])
    assert caught.value.code == 2


def test_settings_come_back_from_their_groups() -> None:
    configuration = TrainingConfiguration.create(epochs=3, task="multiclass", teacher="monet")
    assert (configuration.optimisation.epochs, configuration.data.task) == (3, "multiclass")
    assert TrainingConfiguration.create(**configuration.settings) == configuration
    assert configuration.replace(epochs=4).settings == configuration.settings | {"epochs": 4}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "moles"}, "binary, multiclass"),
        ({"model": "resnet"}, "dermadeit"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"batch_size": 10, "accumulation": 4}, "4 equal passes"),
        ({"folds": 1}, "at least 2"),
        ({"folds": 3, "held_out_fold": 3}, "held_out_fold"),
        ({"classification_loss": "balanced_softmax", "class_balancing": "sampler"}, "class_balancing none"),
        ({"teacher": "monet", "alpha": 0.0, "logit_weight": 0.0}, "never asked"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": -1}, "batch_size"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"alpha": -1.0}, "alpha"),
        ({"layer_decay": 1.5}, "layer_decay"),
        ({"model": "dermadeit", "teacher": "none"}, "--teacher"),
        ({"scale": 0.5}, "scale"),
        ({"schedule": "linear"}, "cosine, step"),
    ],
)
def test_impossible_settings_are_refused_by_name(settings: dict, message: str) -> None:
    with pytest.raises(DermaDeiTError, match=message):
        TrainingConfiguration.create(**settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3\n", "unknown setting “epoch”"),
        ("epochs: many\n", "epochs to 'many'.*int"),
        ("allow_leaks: 1\n", "bool"),
        ("epochs: [\n", "not valid YAML"),
        ("- epochs\n", "settings"),
        ("base: nope\n", "no recipe “nope”"),
    ],
)
def test_bad_recipes_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        parse_arguments(["--recipe", str(tmp_path / "bad.yaml")])


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"dermadeit, .*plain"):
        parse_arguments(["--recipe", "nope"])


@pytest.mark.parametrize(
    ("flip", "quarter_turns", "views"),
    [
        (True, True, (0, 1, 2, 3, 4, 5, 6, 7)),
        (False, True, (0, 1, 2, 3)),
        (True, False, (0, 4)),
        (False, False, (0,)),
    ],
)
def test_flips_and_quarter_turns_decide_the_views(flip: bool, quarter_turns: bool, views: tuple) -> None:
    assert AugmentationSettings(flip=flip, quarter_turns=quarter_turns).views == views


def test_convolutional_networks_have_no_layer_decay_unless_asked() -> None:
    assert TrainingConfiguration().layer_decay == 0.75
    assert TrainingConfiguration.create(model="mobilenetv2").layer_decay == 1
    assert TrainingConfiguration.create(model="mobilenetv2", layer_decay=0.9).layer_decay == 0.9


def test_fp16_needs_cuda() -> None:
    with pytest.raises(ConfigurationError, match="CUDA"):
        RunSettings(precision="fp16").resolve_precision(torch.device("cpu"))
