"""What the documents name is there: links, files, commands and their options, versions."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from dermadeit.about import VERSION
from dermadeit.cli import app
from train.configuration import TrainingConfiguration

ROOT = Path(__file__).parent.parent
WRITTEN = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob(".github/*.md"),
        ROOT / "assets/checkpoints/LICENSE.md",
    ]
)
GENERATED = [ROOT / "assets/model_card.md"]
FOLDERS = "assets|benchmarks|dermadeit|docs|tests|train"


def _names(paths: list[Path]) -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in paths]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _anchors(text: str) -> set[str]:
    """The anchors that a site makes of headings: small letters, spaces to dashes, no other marks."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", [*WRITTEN, *GENERATED], ids=_names([*WRITTEN, *GENERATED]))
def test_every_link_leads_somewhere(document: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", _text(document)):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        path = document.parent / name if name else document
        if not path.exists() or (anchor and anchor not in _anchors(_text(path))):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("document", WRITTEN, ids=_names(WRITTEN))
def test_every_file_that_is_named_exists(document: Path) -> None:
    code = re.findall(r"```.*?```|`[^`]+`", _text(document), re.DOTALL)
    named = {
        name.rstrip("./")
        for part in code
        for name in re.findall(rf"(?<![\w./-])(?:{FOLDERS})/[\w.*/-]*", part)
        if "<" not in part or document.name != "data.md"
    }
    assert [name for name in sorted(named) if not any(ROOT.glob(name))] == []


def _commands() -> Iterator[tuple[str, list[str]]]:
    """Document and words of every command in a block of shell lines."""
    for document in WRITTEN:
        for block in re.findall(r"```sh\n(.*?)```", _text(document), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                for part in re.split(r"&&|;|\|| do ", line):
                    if words := shlex.split(part, comments=True):
                        yield document.name, words


def _command_line(names: list[str]) -> Any:
    """The command of `python -m dermadeit` that the names lead to."""
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[names.pop(0)]
    return command


def _options(command: Any) -> set[str]:
    return {
        name
        for parameter in command.params
        if parameter.param_type_name == "option"
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--")
    } - {"--help"}


def _training_options() -> set[str]:
    """What the training programs and benchmarks take, as far as their sources say it in plain words."""
    settings = {name.replace("_", "-") for name in TrainingConfiguration().settings}
    sources = "".join(map(_text, [*ROOT.glob("train/**/*.py"), *ROOT.glob("benchmarks/**/*.py")]))
    return (
        {f"--{name}" for name in settings}
        | {f"--no-{name}" for name in settings}
        | set(re.findall(r'"(--[a-z0-9-]+)"', sources))
    )


def test_every_command_of_the_documents_exists() -> None:
    targets = set(
        re.findall(r"^([\w./-]+):", _text(ROOT / "Makefile").replace("$(VENV)", ".venv"), re.MULTILINE)
    )
    options_of_training = _training_options()
    wrong, seen = [], 0
    for document, words in _commands():
        program, *rest = words
        options = {word.partition("=")[0] for word in rest if word.startswith("--")}
        if program == "make":
            wrong += [(document, words) for word in rest if "=" not in word and word not in targets]
        elif words[:3] in (["python", "-m", "dermadeit"], [".venv/bin/python", "-m", "dermadeit"]):
            try:
                known = _options(_command_line(words[3:]))
            except KeyError:
                known = None
            wrong += [(document, words)] if known is None or not options <= known else []
        elif any(word.endswith(".py") and (ROOT / word).parent.is_dir() for word in rest):
            [script] = [word for word in rest if word.endswith(".py")][:1]
            after = {word for word in rest[rest.index(script) :] if word.startswith("--")}
            wrong += [(document, words)] if not (ROOT / script).is_file() else []
            wrong += [(document, words)] if not after <= options_of_training else []
        else:
            continue
        seen += 1
    assert wrong == []
    assert seen > 30


def test_every_program_that_is_named_exists() -> None:
    for document in WRITTEN:
        for name in re.findall(r"python -m ((?:benchmarks|train)[\w.]*)", _text(document)):
            assert (ROOT / (name.replace(".", "/") + ".py")).is_file(), (document.name, name)


def test_the_reference_of_the_command_line_is_whole() -> None:
    sections = re.split(r"^## ", _text(ROOT / "docs" / "cli.md"), flags=re.MULTILINE)[1:]
    documented = {
        section.split("`")[1]: set(
            re.findall(r"`(--[a-z-]+)`", "".join(re.findall(r"^\|([^|]*)\|", section, re.M)))
        )
        for section in sections
    }
    root = typer.main.get_command(app)
    actual = {}
    for name, command in root.commands.items():
        inner = getattr(command, "commands", {})
        actual |= {f"{name} {key}": _options(each) for key, each in inner.items()} or {
            name: _options(command)
        }
    assert documented == actual


def test_readme_can_be_read_in_one_go() -> None:
    assert len(_text(ROOT / "README.md").splitlines()) <= 150


def test_one_version_everywhere() -> None:
    citation = yaml.safe_load(_text(ROOT / "CITATION.cff"))
    newest, date = re.search(r"^## ([\d.]+), ([\d-]+)$", _text(ROOT / "CHANGELOG.md"), re.MULTILINE).groups()
    assert (str(citation["version"]), newest) == (VERSION, VERSION)
    assert str(citation["date-released"]) == date
