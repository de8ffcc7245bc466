"""Command lines of the training programs: a training's settings, and how a user's mistake ends a program.

The settings are the defaults, then a recipe, then single options.
"""

from __future__ import annotations

import argparse
import dataclasses
import errno
import logging
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import yaml

from dermadeit.data.own_classes import has_own_classes
from dermadeit.errors import ConfigurationError, DermaDeiTError
from dermadeit.files import escape_what_cannot_be_printed
from dermadeit.tasks import OWN, TASKS
from train.configuration import (
    GROUPS,
    DataSettings,
    Settings,
    TrainingConfiguration,
    choices_of,
    types_of,
)

EXIT_USAGE = 2

DEFAULT_RECIPE = "dermadeit"

RECIPES = Path(__file__).resolve().parent / "recipes"

_LONGEST_NAME = 100
"""Of what is shown of a recipe's name."""

Parameters = ParamSpec("Parameters")


def explaining_mistakes(main: Callable[Parameters, int]) -> Callable[Parameters, int]:
    """Makes a program end with a sentence and exit code 2 where its user has made a mistake.

    Args:
        main: Returns the exit code.
    """

    @wraps(main)
    def program(*arguments: Parameters.args, **named: Parameters.kwargs) -> int:
        escape_what_cannot_be_printed()
        try:
            return main(*arguments, **named)
        except DermaDeiTError as error:
            message = error.user_message
        except OSError as error:
            # What can't be read or written; a defect of ours has no file.
            if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            message = (
                f"“{error.filename or 'The disk'}” can't be used: {error.strerror}. Choose another folder."
            )
        logging.getLogger(main.__module__).error("%s", message)
        return EXIT_USAGE

    return program


@dataclass(frozen=True)
class Request:
    """What a command line asks for.

    Attributes:
        configuration: The settings.
        download: Whether to fetch ISIC 2019 where there is no data.
        smoke: Whether to run everything end to end on synthetic lesions instead.
    """

    configuration: TrainingConfiguration
    download: bool
    smoke: bool


def parse_arguments(arguments: Sequence[str] | None = None) -> Request:
    """Reads the command line: defaults, then the recipe, then single settings.

    Raises:
        ConfigurationError: An unknown recipe or setting, or a value that can't work.
    """
    parser = argparse.ArgumentParser(
        description="Train a lesion classifier, distilled from a teacher or plain.",
        usage="distill.py [-h] [--recipe NAME] [--download] [--smoke] [--SETTING VALUE ...]",
        epilog="Every option of a group is also a line of a recipe (train/recipes), with _ in place of -.",
    )
    parser.add_argument(
        "--recipe", default=DEFAULT_RECIPE, help="a name in train/recipes, or the path of a YAML file"
    )
    parser.add_argument(
        "--download", action="store_true", help="fetch ISIC 2019 where there is no data folder"
    )
    parser.add_argument("--smoke", action="store_true", help="a run on synthetic lesions, in two minutes")
    for name, group in GROUPS.items():
        section = parser.add_argument_group(name, group.__doc__)
        for declared in dataclasses.fields(group):
            _add_setting(section, group, declared)
    settings = vars(parser.parse_args(arguments))
    recipe, download, smoke = (settings.pop(name) for name in ("recipe", "download", "smoke"))
    if not smoke and _data_decide_for_own_classes(recipe, settings):
        settings["task"] = OWN
    settings = _read_recipe(recipe, settings) | settings
    return Request(TrainingConfiguration.create(**settings), download, smoke)


def _data_decide_for_own_classes(recipe: str, settings: Mapping[str, Any]) -> bool:
    """Whether no task is named and the data folder is one of classes of one's own."""
    named = "task" in settings or "task" in _read_recipe(recipe, settings)
    manifest = DataSettings(data=settings.get("data", "")).folder / "manifest.csv"
    return not named and manifest.is_file() and has_own_classes(manifest)


def _add_setting(section: Any, group: type[Settings], declared: dataclasses.Field) -> None:
    flag, kind = "--" + declared.name.replace("_", "-"), types_of(group)[declared.name]
    meaning = declared.metadata["help"]
    if declared.default != "":
        meaning += f" (default: {declared.default})"
    if kind is bool:
        section.add_argument(
            flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=meaning
        )
        return
    choices = choices_of(group, declared.name)
    section.add_argument(
        flag,
        type=str if choices else kind,
        choices=choices or None,
        metavar=None if choices else declared.name.upper(),
        default=argparse.SUPPRESS,
        help=meaning,
    )


def _read_recipe(name: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a recipe: over those of its `base`, and under its own ones for the wanted task."""
    chain = [(name, _read_yaml(name))]
    while base := chain[-1][1].pop("base", None):
        if not isinstance(base, str):
            raise ConfigurationError(f"The recipe “{chain[-1][0]}” must name one other recipe as its base.")
        if base in (known for known, _ in chain):
            raise ConfigurationError(f"The recipe “{name}” is based on itself.")
        chain.append((base, _read_yaml(base)))
    tasks = [
        settings["task"] for settings in (wanted, *(content for _, content in chain)) if "task" in settings
    ]
    task = tasks[0] if tasks else DataSettings.task
    merged: dict[str, Any] = {}
    for of, settings in reversed(chain):
        of_tasks = {key: settings.pop(key) for key in TASKS if key in settings}
        if not all(isinstance(own, dict) for own in of_tasks.values()):
            raise ConfigurationError(
                f"What the recipe “{of}” says of a task must be settings, such as epochs: 9."
            )
        merged |= _check_types(of, settings | (of_tasks.get(task, {}) if isinstance(task, str) else {}))
    return merged


def _check_types(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    known = {key: group for group in GROUPS.values() for key in types_of(group)}
    for key, value in settings.items():
        if key not in known:
            raise ConfigurationError(f"The recipe “{name}” has an unknown setting “{key}”.")
        kind = str if choices_of(known[key], key) else types_of(known[key])[key]
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            settings[key] = float(value)
        elif not isinstance(value, kind):
            raise ConfigurationError(
                f"The recipe “{name}” sets {key} to {reprlib.repr(value)}; it must be of type {kind.__name__}."
            )
    return settings


def _read_yaml(name: str) -> dict[str, Any]:
    known = sorted(recipe.stem for recipe in RECIPES.glob("*.yaml"))
    path = RECIPES / f"{name}.yaml" if name in known else Path(name)
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    # No such file, or a name that no file can have.
    except OSError as error:
        raise ConfigurationError(
            f"There is no recipe “{name[:_LONGEST_NAME]}”. Name one of {', '.join(known)}, or a YAML file."
        ) from error
    # PyYAML lets through whatever its constructors raise, of dates that don't exist and numbers without a digit.
    except Exception as error:
        raise ConfigurationError(f"The recipe “{path.name}” is not valid YAML: {error}.") from error
    if not isinstance(settings, dict):
        raise ConfigurationError(f"The recipe “{path.name}” must be a list of settings, such as epochs: 9.")
    return settings
