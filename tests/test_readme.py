"""README says what the files say."""

import json
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FIGURES = ("accuracy", "balanced_accuracy", "f1_macro", "cohen_kappa", "roc_auc")


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_the_table_of_results_equals_the_files_it_names(task: str) -> None:
    metrics = json.loads((ROOT / "assets" / "benchmark" / task / "metrics.json").read_text())["dermadeit"]
    [row] = re.findall(rf"^\| `{task}` \| all \|(.*)\|$", README, re.MULTILINE)
    cells = [cell.strip() for cell in row.split("|")]
    assert cells[0] == f"{metrics['n']:,}"
    for name, cell in zip(FIGURES, cells[1:], strict=True):
        bounds = metrics["intervals"].get(name)
        interval = f" [{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else ""
        assert cell == f"{metrics[name]:.3f}{interval}"
    config = json.loads((ROOT / "assets" / "checkpoints" / task / "dermadeit" / "config.json").read_text())
    assert metrics["weights_sha256"] == config["dermadeit"]["weights_sha256"]


def test_every_file_that_is_linked_exists() -> None:
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", README) if "://" not in target]
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_space_is_configured_for_this_app() -> None:
    front = yaml.safe_load(README.split("---")[1])
    assert front["sdk"] == "gradio"
    assert (ROOT / front["app_file"]).is_file()
    assert front["python_version"] in ("3.11", "3.12", "3.13")
    [bounds] = re.findall(r"^gradio(.*)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    low, high = re.fullmatch(r">=([\d.]+),<(\d+)", bounds).groups()
    version = tuple(map(int, front["sdk_version"].split(".")))
    assert tuple(map(int, low.split("."))) <= version < (int(high),)
    assert len(front["short_description"]) <= 60
