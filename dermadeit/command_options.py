"""What the commands of the command line share: options, exit codes, and how mistakes are told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dermadeit.errors import ConfigurationError, DermaDeiTError
from dermadeit.tasks import TASKS, get_task

if TYPE_CHECKING:
    from dermadeit.manifest import Manifest

EXIT_USAGE = 2
EXIT_SOME_FAILED = 3

TaskName = StrEnum("TaskName", {key: key for key in TASKS})

TaskOption = Annotated[TaskName, typer.Option(help="Which question to ask.")]
ModelOption = Annotated[str, typer.Option(help="A model name, or a checkpoint folder.")]
ImagesOption = Annotated[
    Path | None, typer.Option(help="Folder that the table's files are in; its own folder by default.")
]
LeaksOption = Annotated[bool, typer.Option("--allow-leaks", help="Go on although lesions lie in two splits.")]
ViewsOption = Annotated[
    int, typer.Option(min=1, max=8, help="Mirrored and turned views whose logits are averaged.")
]


def create_folder(folder: Path) -> None:
    """Makes a folder for results; raises `ConfigurationError` where there can't be one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"“{folder}” can't be used as a folder: {error.strerror}.") from error


def open_manifest(
    source: Path, task: TaskName, images: Path | None, *, split: str | None, allow_leaks: bool
) -> Manifest:
    """Reads labelled images, refuses leaks unless they are allowed, and keeps one split where one is named."""
    from dermadeit.manifest import check_leaks, read_source

    manifest = read_source(source, get_task(task.value), images)
    if not allow_leaks:
        check_leaks(manifest)
    return manifest if split is None else manifest.select(split)


@contextmanager
def user_errors() -> Iterator[None]:
    """Ends the program with a sentence where the user has made a mistake."""
    try:
        yield
    except DermaDeiTError as error:
        typer.echo(error.user_message, err=True)
        sys.exit(EXIT_USAGE)
