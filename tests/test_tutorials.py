"""Every block of the tutorials works, on small inputs; and the documents make a site."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import pytest
from documented_commands import TINY, run_line
from repository import ROOT

from dermadeit.data.manifest import SPLITS
from dermadeit.data.synthetic import write_dataset
from dermadeit.data.tabular import read_csv, write_csv
from dermadeit.models import specs
from dermadeit.tasks import DIAGNOSES

TUTORIALS = ROOT / "docs" / "tutorials"


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with the shipped photos at their place."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "assets").symlink_to(ROOT / "assets", target_is_directory=True)
    return tmp_path


def blocks(name: str) -> Iterator[tuple[str, str]]:
    """Language and content of every block that is to be run, in order. One without a language can't be, here."""
    text = (TUTORIALS / f"{name}.md").read_text(encoding="utf-8")
    for language, content in re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        if language:
            yield language, content


def run(name: str, tiny: dict[str, str] = TINY) -> None:
    """Runs a tutorial from its first block to its last."""
    for language, content in blocks(name):
        if language == "sh":
            for line in content.splitlines():
                run_line(line, tiny)
        elif language == "python":
            exec(compile(content, name, "exec"), {"__name__": name})
        else:
            pytest.fail(f"nobody runs blocks of {language}")


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("read-a-folder", "answers.csv"),
        ("evaluate-your-model", "comparison/comparison.json"),
        ("train-your-classes", "own_test/metrics.json"),
        ("deploy", "build/space/app.py"),
        ("read-the-figures", "evaluation/metrics.json"),
    ],
)
def test_every_block_of_a_tutorial_works(name: str, left: str) -> None:
    run(name)
    assert Path(left).is_file()


def write_data(folder: Path) -> None:
    """A data folder with ten synthetic lesions of every diagnosis in every split."""
    path = write_dataset(
        folder, lesions=10 * len(DIAGNOSES) * len(SPLITS), seed=0, images_per_lesion=(1, 1), size=(96, 80)
    )
    rows = [dict(row) for row in read_csv(path).rows]
    for row in rows:
        turn = int(row["lesion_id"].split("_")[1]) // len(DIAGNOSES)
        row["split"] = SPLITS[turn % len(SPLITS)]
    write_csv(path, list(rows[0]), rows)


@pytest.mark.nightly
def test_the_retraining_works(checkpoint_root: Path, workplace: Path) -> None:
    write_data(workplace / "data")
    # What the filed teacher said is of photos that are not here.
    teacher = f" --teacher checkpoint:{checkpoint_root / 'mobilenetv2'} --no-consistent-views"
    run(
        "retrain-isic2019",
        {"plain": TINY["train/distill.py"]} | TINY | {"train/distill.py": TINY["train/distill.py"] + teacher},
    )
    assert (workplace / "runs" / "comparison" / "comparison.json").is_file()


@pytest.mark.nightly
def test_a_baseline_can_be_added(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_data(workplace / "data")
    commands = []
    for language, content in blocks("add-a-baseline"):
        if language == "python":
            spec = eval(content, {"ModelSpec": specs.ModelSpec})
            monkeypatch.setattr(
                specs, "MODEL_SPECS", MappingProxyType({**specs.MODEL_SPECS, spec.name: spec})
            )
        elif language == "yaml":
            (workplace / f"{spec.name}.yaml").write_text(content, encoding="utf-8")
        else:
            commands += content.splitlines()
    for line in commands:
        run_line(line)
    assert list((workplace / "benchmark").rglob("mobilenetv3-small.csv"))


def test_every_tutorial_is_run_and_its_programs_are_python() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    for path in TUTORIALS.glob("*.md"):
        assert f'"{path.stem}"' in source
        for language, content in blocks(path.stem):
            if language == "python":
                ast.parse(content)


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_documents_make_a_site(workplace: Path) -> None:
    """Strictly: no link or heading that is named is missing, no page is left out."""
    pytest.importorskip("material", reason="the extra “docs” is not installed")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    configuration = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(workplace / "site"), strict=True)
    build(configuration)
    page = (workplace / "site" / "reference" / "index.html").read_text(encoding="utf-8")
    assert "load_predictor" in page
    assert "fonts.googleapis.com" not in page
