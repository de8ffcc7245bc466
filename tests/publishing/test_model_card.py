"""The model card: every figure of the result files, nothing else, and the same again."""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermadeit.errors import ResultFileError
from dermadeit.evaluation.robustness import ROBUSTNESS_FIGURES
from dermadeit.evaluation.slices import SLICED_BY
from dermadeit.imaging.corruptions import CORRUPTIONS, SEVERITIES
from dermadeit.metrics.classification import FIGURES
from dermadeit.publishing.model_card import write_model_card
from dermadeit.tasks import TASKS

WEIGHTS = "ab" * 32


class _Numbers:
    """Shares that no two figures have in common, so that finding one proves that its figure is shown."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def share(self) -> float:
        return float(self._rng.uniform(0.1, 0.9))

    def point(self) -> dict[str, Any]:
        low, value, high = sorted(self.share() for _ in range(3))
        return {"value": value, "n": int(self._rng.integers(100, 900)), "interval": [low, high]}

    def figures(self, names: tuple[str, ...] = FIGURES) -> dict[str, Any]:
        points = {name: self.point() for name in names}
        return {
            "n": int(self._rng.integers(20, 900)),
            **{name: point["value"] for name, point in points.items()},
            "intervals": {
                "method": "bootstrap",
                **{name: point["interval"] for name, point in points.items()},
            },
        }

    def difference(self) -> dict[str, Any]:
        point = self.point()
        return {"difference": point["value"], "interval": point["interval"]}


def _results(task: str, weights: str = WEIGHTS) -> dict[str, dict[str, Any]]:
    """Every result file of one task, by its path below the project's assets."""
    numbers, classes = _Numbers(len(task)), TASKS[task].classes
    matrix = {
        "classes": list(classes),
        "counts": np.arange(5, 5 + len(classes) ** 2).reshape(len(classes), -1).tolist(),
    }
    figures = numbers.figures() | {"confusion_matrix": matrix, "sources": {"ham10000": numbers.figures()}}
    return {
        f"checkpoints/{task}/dermadeit/config.json": {
            "architecture": "deit_tiny",
            "pretrained_cfg": {"input_size": [3, 160, 160]},
            "dermadeit": {"weights_sha256": WEIGHTS},
        },
        f"checkpoints/{task}/dermadeit/training.json": {
            "configuration": {"epochs": 7, "learning_rate": 0.0005, "teacher": "checkpoint:net"},
            "data": {"train": {"images": 1610, "lesions": 885, classes[0]: 820}},
            "environment": {"torch": "2.11"},
            "selection_metric": "accuracy",
            "best_epoch": 5,
            "curves": [{}] * 7,
        },
        f"checkpoints/{task}/dermadeit/calibration.json": {
            "weights_sha256": weights,
            "report": {"gates": {"calibration": {"images": 1611, "refused": 41}}},
        },
        f"benchmark/{task}/metrics.json": {
            "images": 3865,
            "lesions": 2124,
            "weights_sha256": {"dermadeit": weights},
            "models": {"dermadeit": {"views": {"1": numbers.figures(), "8": figures}}},
        },
        f"evidence/{task}/metrics.json": {
            "dermadeit": {
                "n": 3865,
                "views": 8,
                "splits": ["test"],
                "weights_sha256": weights,
                "slices": {
                    name: {"slices": {"one": numbers.figures()}, "too_few": {"other": 19}, "caveat": None}
                    for name in SLICED_BY
                },
                "calibration": {"scaling": "temperature", "before": {"ece": numbers.point()}},
                "operating_points": {"balanced": {"threshold": 0.437, "sensitivity": numbers.point()}},
                "conformal": {
                    "nominal_coverage": 0.9,
                    "classes": {key: _sets(numbers) for key in ("all", *classes)},
                    # Of a part of the images, the card shows the coverage alone.
                    "source": {
                        "ham10000": {key: {"coverage": numbers.point()} for key in ("all", classes[0])}
                    },
                },
                "patient_context": {
                    "photo": numbers.figures(),
                    "with_context": numbers.figures(),
                    "comparison": {"differences": {name: numbers.difference() for name in FIGURES}},
                },
                "stability": {"flip_rate": numbers.point()},
                "abstention": {"abstained": numbers.point()},
                "risk_coverage": {
                    "aurc": {"value": numbers.share(), "interval": None},
                    "curve": [{"coverage": 0.5, "risk": numbers.share(), "confidence": numbers.share()}],
                },
            }
        },
        f"evidence/{task}/other_cameras/metrics.json": {
            "dermadeit": {
                **numbers.figures(),
                "n": 567,
                "views": 8,
                "weights_sha256": weights,
                "abstention": {"abstained": numbers.point()},
            }
        },
        f"evidence/{task}/robustness.json": {
            "n": 500,
            "lesions": 300,
            "splits": ["test"],
            "views": 1,
            "weights_sha256": weights,
            "clean": _condition(numbers),
            "corruptions": {
                name: {
                    "severities": {str(severity): _condition(numbers) for severity in SEVERITIES},
                    "drop": {figure: numbers.difference() for figure in ROBUSTNESS_FIGURES},
                }
                for name in CORRUPTIONS
            },
            "mean_corruption_drop": {figure: numbers.difference() for figure in ROBUSTNESS_FIGURES},
        },
        f"evidence/{task}/out_of_distribution.json": {
            "checkpoints": [
                {
                    "task": task,
                    "weights_sha256": weights,
                    "n": {"not_skin": 120},
                    "confident_answers": {
                        "calibrated": True,
                        "of_the_task": numbers.share(),
                        "near": numbers.share(),
                    },
                    "scores": [
                        {
                            "score": "energy",
                            "embedding": "class",
                            "auroc_not_skin": numbers.share(),
                            "auroc_near": numbers.share(),
                            "refused": {"not_skin": {"2%": numbers.share()}},
                            "refused_of_unseen_collections": {"msk": numbers.share()},
                        }
                    ],
                }
            ]
        },
        f"evidence/{task}/gate_curve.json": {
            "checkpoints": [
                {
                    "task": task,
                    "weights_sha256": weights,
                    "wanted": {"lesions_at_most": 0.03, "not_skin_at_least": 0.95},
                    "chosen": {"limit": 0.9},
                    **{
                        name: [
                            {
                                "limit": numbers.share(),
                                "left_out": {"msk": numbers.share()},
                                "not_skin_reported": numbers.share(),
                                "meets_both": True,
                            }
                        ]
                        for name in ("curve", "distance")
                    },
                    "gates": {"left_out msk": _gated(numbers), "external": _gated(numbers)},
                    "without_photos": {
                        kind: {"withheld": numbers.point()} for kind in ("left_out msk", "external")
                    },
                }
            ]
        },
        f"evidence/{task}/faithfulness.json": {
            "task": task,
            "weights_sha256": weights,
            "means": {"grad-cam": {"drop": {"mean": numbers.share(), "interval": [0.111, 0.222]}}},
            "winner": "grad-cam",
        },
        f"evidence/{task}/error_detection.json": {
            "task": task,
            "signals": {"probability": {"auroc": numbers.share()}},
        },
    }


def _sets(numbers: _Numbers) -> dict[str, Any]:
    return {name: numbers.point() for name in ("coverage", "mean_size", "multiple", "empty")}


def _gated(numbers: _Numbers) -> dict[str, Any]:
    return {"images": 567, "withheld": numbers.point(), "warned": numbers.point()}


def _condition(numbers: _Numbers) -> dict[str, Any]:
    figures = numbers.figures(ROBUSTNESS_FIGURES)
    return figures | {"flipped": numbers.point(), "abstained": numbers.point()}


def _write(folder: Path, files: Mapping[str, Any]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))


def _card(folder: Path) -> str:
    path = folder / "model_card.md"
    write_model_card(
        path,
        checkpoints=folder / "checkpoints",
        benchmark=folder / "benchmark",
        evidence=folder / "evidence",
    )
    return path.read_text()


def _shares(content: Any) -> Iterator[float]:
    if isinstance(content, Mapping):
        for part in content.values():
            yield from _shares(part)
    elif isinstance(content, list):
        for part in content:
            yield from _shares(part)
    elif isinstance(content, float):
        yield content


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    """A folder with every result file of both tasks."""
    for task in TASKS:
        _write(tmp_path, _results(task))
    return tmp_path


def test_every_figure_of_every_file_is_in_the_card(assets: Path) -> None:
    card = _card(assets)
    assert "ot measured" not in card
    for task in TASKS:
        results = _results(task)
        # One view an image is not what is reported.
        del results[f"benchmark/{task}/metrics.json"]["models"]["dermadeit"]["views"]["1"]
        # Slices show the headline figures only.
        slices = results[f"evidence/{task}/metrics.json"]["dermadeit"].pop("slices")
        shown = [*_shares(results), *(part["slices"]["one"]["roc_auc"] for part in slices.values())]
        missing = [value for value in shown if f"{value:.3f}" not in card and f"{value:.3g}" not in card]
        assert len(shown) > 400
        assert missing == []
        for counts in results[f"benchmark/{task}/metrics.json"]["models"]["dermadeit"]["views"]["8"][
            "confusion_matrix"
        ]["counts"]:
            assert "| " + " | ".join(map(str, counts)) + " |" in card
    for text in (
        "1,611",
        "41",
        "other (19)",
        "Epoch 5 of 7",
        "`learning_rate` | 0.0005",
        "3,865",
        "temperature",
    ):
        assert text in card


def test_the_same_files_give_the_same_card(assets: Path) -> None:
    assert _card(assets) == _card(assets)


def test_what_no_file_says_is_called_not_measured(assets: Path) -> None:
    full = _card(assets)
    shutil.rmtree(assets / "evidence")
    bare = _card(assets)
    for title in (
        "Slices",
        "Calibration",
        "Conformal sets",
        "Robustness",
        "Explanation checks",
        "Error detection",
    ):
        section = bare.split(f"\n## {title}\n")[1].split("\n## ")[0]
        assert section.count("Not measured.") == len(TASKS)
        assert not re.search(r"\b\d\.\d{3}\b", section)
    assert bare.count("\n## ") == full.count("\n## ")
    shutil.rmtree(assets / "checkpoints")
    shutil.rmtree(assets / "benchmark")
    # Without any file at all there is a card without any figure.
    assert not re.search(r"\b\d\.\d{3}\b", _card(assets))


def test_figures_of_other_weights_are_left_out(assets: Path) -> None:
    _write(assets, _results("binary", weights="cd" * 32))
    card = _card(assets)
    of_binary = card.split("\n## Robustness\n")[1].split(f"### {TASKS['binary'].title}\n")[1].split("### ")[0]
    assert "other weights" in of_binary
    assert not re.search(r"\b\d\.\d{3}\b", of_binary)


def test_links_of_the_checklist_lead_to_sections(assets: Path) -> None:
    card = _card(assets)
    anchors = {title.lower().replace(" ", "-") for title in re.findall(r"^## (.+)$", card, re.MULTILINE)}
    assert set(re.findall(r"\]\(#(.+?)\)", card)) <= anchors


def test_a_damaged_result_is_named(assets: Path) -> None:
    (assets / "evidence" / "binary" / "robustness.json").write_text('{"n": 5')
    with pytest.raises(ResultFileError, match=r"robustness\.json"):
        _card(assets)
