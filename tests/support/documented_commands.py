"""Runs command lines of the documents, in this process: to start Python takes longer than what most do."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

import app
from dermadeit import cli
from dermadeit.data import synthetic
from dermadeit.inference.zoo import load_answering
from train import distill
from train.prepare_isic2019 import main as prepare

TINY = {
    "train/distill.py": "--init none --image-size 32 --epochs 1 --batch-size 16 --workers 0 --device cpu",
    "calibrate": "--views 1",
    "evaluate": "--views 1",
    "predict": "--views 1",
}
"""What makes a command fast enough for a test, by a word in it."""


def blocks(document: Path, language: str) -> list[str]:
    """The blocks of code in a language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)


def run_line(line: str, tiny: dict[str, str] = TINY) -> None:
    """Runs one command line, made fast by `tiny`; fails where its exit code is not 0. It may end with `> FILE`."""
    command, _, file = line.partition(" > ")
    words = shlex.split(command, comments=True)
    words += next((options.split() for word, options in tiny.items() if word in words), [])
    match words:
        case ["python", "train/distill.py", *arguments]:
            code = distill.main(arguments)
        case ["python", "-m", "train.prepare_isic2019", *arguments]:
            code = prepare(arguments)
        case ["python", "-m", "dermadeit.data.synthetic", *arguments]:
            code = synthetic.main(arguments)
        case ["python", "app.py", *arguments]:
            # What it would serve is there.
            code = 0 if load_answering(app.read_arguments(arguments)[0]) else 1
        case ["python", "-m", "dermadeit", *arguments]:
            result = CliRunner().invoke(cli.app, arguments)
            code, line = result.exit_code, f"{line}\n{result.output}"
            if file:
                Path(file.strip()).write_text(result.stdout, encoding="utf-8")
        case _:
            pytest.fail(f"no such program: {words}")
    assert not code, line
