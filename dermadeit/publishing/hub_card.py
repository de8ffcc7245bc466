"""The model card of a repository on the Hugging Face Hub, with its figures as `model-index`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dermadeit.about import DISCLAIMER
from dermadeit.files import read_json_if_there
from dermadeit.metrics.classification import HEADLINE_FIGURES
from dermadeit.models.checkpoints import Checkpoint
from dermadeit.models.specs import model_name
from dermadeit.publishing import model_card_text as text
from dermadeit.publishing.benchmark import METRICS_FILE
from dermadeit.publishing.model_card import NOT_MEASURED
from dermadeit.reporting.format import counted
from dermadeit.reporting.markdown import figure_text, markdown_table
from dermadeit.tasks import DIAGNOSES, OWN, Task

_LICENCE = "cc-by-nc-4.0"

_METRIC_TYPES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced_accuracy",
    "f1_macro": "f1",
    "cohen_kappa": "cohen_kappa",
    "roc_auc": "roc_auc",
}
"""Figures to the Hub's names of them."""


def render_hub_card(checkpoint: Checkpoint, repository: str, benchmark: Path) -> str:
    """The card as Markdown with YAML front matter.

    Args:
        checkpoint: What is published.
        repository: `ORG/NAME`.
        benchmark: Holds `<task>/metrics.json`; figures of other weights are left out.
    """
    measured = [
        (task, figures)
        for task in checkpoint.tasks
        if (figures := _read_figures(checkpoint, task, benchmark)) is not None
    ]
    classes = [[key, name] for key, name in checkpoint.network.display_names.items()]
    parts = [
        _front_matter(checkpoint, measured),
        f"# {model_name(checkpoint.model)}: {checkpoint.network.title}",
        f"**{DISCLAIMER}**",
        "A small network that reads dermoscopy photos of skin lesions. Every class has one logit:",
        markdown_table(["class", "meaning"], classes),
        *_uses(checkpoint, repository),
        "## Figures",
        *(_figures(measured) or [NOT_MEASURED]),
        *_limits(checkpoint),
        "## Licences and attribution",
        text.LICENCES,
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(checkpoint: Checkpoint, measured: list[tuple[Task, Mapping[str, Any]]]) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="image-classification",
            task_name=task.title,
            dataset_type="isic2019",
            dataset_name="ISIC 2019, split by lesion",
            dataset_split="test",
            metric_type=kind,
            metric_name=HEADLINE_FIGURES[name],
            metric_value=round(figures[name], 4),
        )
        for task, figures in measured
        for name, kind in _METRIC_TYPES.items()
        if figures.get(name) is not None
    ]
    data = ModelCardData(
        license=_LICENCE,
        library_name="timm",
        pipeline_tag="image-classification",
        tags=["dermatology", "dermoscopy", "skin-lesion", "dermadeit"],
        # The Hub wants a name with the figures.
        model_name=checkpoint.model if results else None,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---"


def _read_figures(checkpoint: Checkpoint, task: Task, benchmark: Path) -> Mapping[str, Any] | None:
    """The figures of the test split with the most views, of these very weights."""
    metrics = {} if task.key == OWN else read_json_if_there(benchmark / task.key / METRICS_FILE)
    if metrics.get("weights_sha256", {}).get(checkpoint.model) != checkpoint.weights_sha256:
        return None
    by_views = metrics["models"][checkpoint.model]["views"]
    views = max(by_views, key=int)
    return {**by_views[views], "views": int(views), "lesions": metrics["lesions"]}


def _figures(measured: list[tuple[Task, Mapping[str, Any]]]) -> list[str]:
    if not measured:
        return []
    rows = [
        [
            task.title,
            counted(figures["n"], "photo"),
            *(figure_text(figures, name) for name in HEADLINE_FIGURES),
        ]
        for task, figures in measured
    ]
    views = counted(measured[0][1]["views"], "turned view")
    method = (
        f"On the test lesions of ISIC 2019, with the mean of {views} of each photo. In brackets: 95 % intervals "
        "over lesions."
    )
    return [
        method,
        markdown_table(["task", "images", *HEADLINE_FIGURES.values()], rows),
    ]


def _uses(checkpoint: Checkpoint, repository: str) -> Iterator[str]:
    size = checkpoint.preprocessing.size
    yield "## Use"
    yield (
        "With `dermadeit`: calibrated probabilities, operating points, and the reasons to withhold an answer "
        "(`calibration.json`, `trust.safetensors`)."
        if checkpoint.trust is not None
        else "With `dermadeit`. This network was never calibrated: its scores are no probabilities of being right."
    )
    yield _code(
        "from dermadeit import load_predictor",
        "",
        f'[record] = load_predictor("hf-hub:{repository}").predict(["lesion.jpg"])',
    )
    if checkpoint.preprocessing.per_image_zscore or checkpoint.preprocessing.colour_constancy != "none":
        yield "Other libraries can't prepare photos as this network wants them."
        return
    yield (
        f"With timm alone: the same logits for one view. Photos are squashed to {size} × {size} pixels, "
        "not cropped."
    )
    yield _code(
        "import timm",
        "from PIL import Image",
        "",
        f'model = timm.create_model("hf-hub:{repository}", pretrained=True).eval()',
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))",
        'logits = model(transform(Image.open("lesion.jpg").convert("RGB"))[None])',
    )
    yield "With transformers, which reads timm's models too:"
    yield _code(
        "from transformers import pipeline",
        "",
        f'pipeline("image-classification", "{repository}")("lesion.jpg")',
    )


def _limits(checkpoint: Checkpoint) -> Iterator[str]:
    known = set(checkpoint.network.class_of_diagnosis) & set(DIAGNOSES)
    if caveat := checkpoint.network.caveat:
        yield f"**{caveat}**"
    if known:
        yield "## Data and splits"
        yield text.DATA
    yield "## Failure modes"
    yield text.FAILURE_MODES


def _code(*lines: str) -> str:
    return "\n".join(["```python", *lines, "```"])
