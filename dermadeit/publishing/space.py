"""The app as a Hugging Face Space: staged in a folder with what it needs, checked, and uploaded from there."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dermadeit.errors import ConfigurationError, ErrorCode
from dermadeit.files import ASSETS
from dermadeit.publishing.hub import check_repository, require_empty_folder, upload_folder

STAGED = ("app.py", "README.md", "LICENSE", "CITATION.cff", "requirements.txt", "dermadeit", "assets", "docs")
"""What the app needs of a checkout, and what its README leads to."""

DOCKER_FILES = ("Dockerfile",)

REQUIREMENTS = "requirements.txt"
TRAINING_HEADING = "\n# Training\n"
"""What stands below it in requirements.txt is not installed by a Space."""

PORT = 7860

LARGEST_SPACE = 1_000_000_000
"""Bytes that a Space without paid storage may hold."""

LONGEST_DESCRIPTION = 60
"""Letters that the Hub takes as `short_description`."""

ZERO_GPU_LACKS = "2.12"
"""First version of torch that ZeroGPU does not support."""

_COLOURS = frozenset({"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"})

_GRADIO_ONLY = ("sdk:", "sdk_version:", "python_version:", "app_file:")


def find_checkout() -> Path:
    """The folder with app.py that this package was started from.

    Raises:
        ConfigurationError: The package was installed: it holds neither app.py nor README.md.
    """
    checkout = ASSETS.parent
    if not (checkout / "app.py").is_file() or not (checkout / "README.md").is_file():
        raise ConfigurationError(
            "A Space is made of a checkout of the repository. Run the command inside of one."
        )
    return checkout


def stage_space(folder: Path, *, checkout: Path | None = None, docker: bool = False) -> tuple[Path, ...]:
    """Copies what a Space needs, and checks that it will start there.

    Files that git does not know stay behind: they may be photos.

    Args:
        folder: Where to write; a folder that is new or empty.
        checkout: Where app.py lies; as `find_checkout` finds it by default.
        docker: Whether the Space is built from the Dockerfile instead of by the Hub's own Gradio image.

    Returns:
        The files, in alphabetical order.

    Raises:
        ConfigurationError: `check_space` found something, the folder holds something, or git is not there.
    """
    checkout = checkout or find_checkout()
    require_empty_folder(folder)
    for name in _tracked_files(checkout, (*STAGED, *(DOCKER_FILES if docker else ()))):
        # A file may be deleted and not yet committed.
        if (checkout / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(checkout / name, folder / name)
    _cut_training(folder / REQUIREMENTS)
    if docker:
        _use_docker(folder / "README.md")
    with (checkout / "pyproject.toml").open("rb") as file:
        needed = tomllib.load(file)["project"]["requires-python"]
    if faults := list(check_space(folder, needed)):
        raise ConfigurationError("This would not run as a Space. " + " ".join(faults))
    return tuple(sorted(path for path in folder.rglob("*") if path.is_file()))


def push_space(folder: Path, repository: str, *, private: bool = False, docker: bool = False) -> str:
    """Uploads a staged folder in one commit; see `hub.push_model`. Returns the address of the commit."""
    check_repository(repository)
    return upload_folder(
        folder, repository, "space", private=private, space_sdk="docker" if docker else "gradio"
    )


def check_space(folder: Path, python: str) -> Iterator[str]:
    """Compares a staged folder with what the Hub takes.

    Args:
        folder: As `stage_space` writes it.
        python: Versions of Python that the app runs on, such as `>=3.11`.

    Yields:
        What is wrong, as sentences.
    """
    from huggingface_hub import metadata_load

    front = metadata_load(folder / "README.md") or {}
    pins = _read_pins(folder / REQUIREMENTS)
    if front.get("sdk") == "docker":
        yield from _check_docker(front, folder)
    else:
        yield from _check_gradio(front, folder, pins, python)
    for key in ("colorFrom", "colorTo"):
        if front.get(key) not in _COLOURS:
            yield f"README.md: {key} must be one of {', '.join(sorted(_COLOURS))}."
    if len(front.get("short_description", "")) > LONGEST_DESCRIPTION:
        yield f"README.md: short_description is longer than {LONGEST_DESCRIPTION} letters."
    if not front.get("title"):
        yield "README.md: title is missing."
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > LARGEST_SPACE:
        yield f"The files have {size / 1e6:.0f} MB; a Space holds {LARGEST_SPACE / 1e6:.0f} MB."


def _check_gradio(
    front: Mapping[str, Any], folder: Path, pins: Mapping[str, Any], python: str
) -> Iterator[str]:
    from packaging.specifiers import SpecifierSet

    if front.get("sdk") != "gradio":
        yield "README.md: sdk must be gradio or docker."
    if not (folder / str(front.get("app_file"))).is_file():
        yield "README.md: app_file names no file."
    if str(front.get("sdk_version")) not in pins.get("gradio", SpecifierSet("<0")):
        yield f"README.md: sdk_version {front.get('sdk_version')} is not one that {REQUIREMENTS} takes as gradio."
    # Without one, the Hub takes a Python that is too old.
    version = front.get("python_version")
    if not isinstance(version, str) or version not in SpecifierSet(python):
        yield f"README.md: python_version must be {python}, in quotation marks."
    if ZERO_GPU_LACKS in pins.get("torch", SpecifierSet()):
        yield f"{REQUIREMENTS}: torch must stay below {ZERO_GPU_LACKS}, which ZeroGPU does not support."


def _check_docker(front: Mapping[str, Any], folder: Path) -> Iterator[str]:
    if front.get("app_port") != PORT:
        yield f"README.md: app_port must be {PORT}."
    if not (folder / "Dockerfile").is_file():
        yield "There is no Dockerfile."


def _read_pins(path: Path) -> dict[str, Any]:
    """Name of each package to the versions of it that are taken."""
    from packaging.requirements import Requirement

    lines = path.read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {requirement.name: requirement.specifier for requirement in requirements}


def _tracked_files(checkout: Path, names: tuple[str, ...]) -> list[str]:
    """The files of a checkout that git knows."""
    git = shutil.which("git")
    command = [git or "git", "-C", str(checkout), "ls-files", "-z", "--", *names]
    try:
        done = subprocess.run(command, capture_output=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigurationError(
            "git does not list the files of this checkout, and others may be private photos. Install git, or "
            "clone the repository again.",
            code=ErrorCode.SOURCE_MISSING,
        ) from error
    return [name for name in done.stdout.decode("utf-8").split("\0") if name]


def _cut_training(path: Path) -> None:
    """Leaves out what only training needs."""
    app, _, _ = path.read_text(encoding="utf-8").partition(TRAINING_HEADING)
    path.write_text(app.rstrip() + "\n", encoding="utf-8")


def _use_docker(readme: Path) -> None:
    """Makes the front matter that of a Docker Space."""
    _, front, text = readme.read_text(encoding="utf-8").split("---\n", 2)
    kept = [line for line in front.splitlines() if not line.startswith(_GRADIO_ONLY)]
    front = "\n".join([*kept, "sdk: docker", f"app_port: {PORT}"])
    readme.write_text(f"---\n{front}\n---\n{text}", encoding="utf-8")
