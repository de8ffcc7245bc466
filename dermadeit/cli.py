"""The command line: `python -m dermadeit predict`, `evaluate`, `models` and `benchmark`.

Exit codes: 0 when everything worked, 3 when some images could not be read, 2 for a mistake in the call. Results
go to standard output, everything else to standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from dermadeit.errors import CheckpointError, ConfigurationError, DermaDeiTError, ImageError
from dermadeit.tasks import TASKS, get_task

EXIT_USAGE = 2
EXIT_SOME_FAILED = 3

TaskName = StrEnum("TaskName", {key: key for key in TASKS})


class OutputFormat(StrEnum):
    """How results are printed."""

    table = "table"
    jsonl = "jsonl"


app = typer.Typer(
    help="Read skin lesion photos. Research and teaching demo, not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
benchmark_app = typer.Typer(
    help="The published comparison of the models: its predictions, and the tables made of them.",
    no_args_is_help=True,
)
app.add_typer(benchmark_app, name="benchmark")

TaskOption = Annotated[TaskName, typer.Option(help="Which question to ask.")]
ViewsOption = Annotated[
    int, typer.Option(min=1, max=8, help="Mirrored and turned views whose logits are averaged.")
]
BenchmarkOption = Annotated[
    Path | None, typer.Option("--root", help="Folder of the benchmark; assets/benchmark by default.")
]
FormatOption = Annotated[OutputFormat, typer.Option("--format", help="What to print.")]


@app.command()
def predict(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Image files.")],
    task: TaskOption,
    model: Annotated[str, typer.Option(help="A model name, or a checkpoint folder.")] = "dermadeit",
    views: ViewsOption = 8,
    saliency: Annotated[
        Path | None, typer.Option(help="Folder for Grad-CAM overlays of the predicted class.")
    ] = None,
    output_format: FormatOption = OutputFormat.table,
) -> None:
    """Read images, one record each; a bad file never stops the others."""
    with _user_errors():
        from dermadeit.predictor import load_predictor
        from dermadeit.records import ItemFailure, Prediction

        if saliency is not None:
            _create_folder(saliency)
        predictor = load_predictor(task.value, model)
        some_failed = False
        for file, record in zip(images, predictor.predict_iter(images, views), strict=True):
            # The argument itself: it tells two files of one name apart.
            line = record.to_dict() | {"file": file}
            some_failed |= isinstance(record, ItemFailure)
            if saliency is not None and isinstance(record, Prediction):
                line["saliency"] = _write_overlay(predictor, file, record, saliency)
                some_failed |= line["saliency"] is None
            typer.echo(json.dumps(line) if output_format is OutputFormat.jsonl else _prediction_line(line))
    raise typer.Exit(EXIT_SOME_FAILED if some_failed else 0)


@app.command()
def evaluate(
    source: Annotated[Path, typer.Argument(help="A folder with class subfolders, or a CSV table.")],
    task: TaskOption,
    output: Annotated[Path, typer.Option(help="Folder for metrics.json, predictions.csv, failures.csv.")],
    images: Annotated[
        Path | None, typer.Option(help="Folder that the table's files are in; its own folder by default.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="A model name or folder; repeat for more.")] = None,
    views: ViewsOption = 8,
    split: Annotated[str | None, typer.Option(help="Only the rows of this split.")] = None,
    allow_leaks: Annotated[
        bool, typer.Option("--allow-leaks", help="Go on although lesions lie in two splits.")
    ] = False,
) -> None:
    """Compare a model's answers with known labels."""
    with _user_errors():
        from tqdm import tqdm

        from dermadeit.evaluation import evaluate as evaluate_manifest
        from dermadeit.evaluation import write_evaluations
        from dermadeit.manifest import check_leaks, read_source
        from dermadeit.predictor import load_predictor

        _create_folder(output)
        manifest = read_source(source, get_task(task.value), images)
        if not allow_leaks:
            check_leaks(manifest)
        if split is not None:
            manifest = manifest.select(split)
        elif any(row.split == "train" for row in manifest.rows):
            typer.echo("The table includes training images; --split test leaves them out.", err=True)
        predictors = [load_predictor(task.value, name) for name in dict.fromkeys(model or ["dermadeit"])]
        _refuse_repeated([predictor.checkpoint.model for predictor in predictors])
        evaluations = []
        for predictor in predictors:
            name = predictor.checkpoint.model
            with tqdm(total=len(manifest.rows), desc=name, unit="image", disable=None) as bar:
                evaluations.append(evaluate_manifest(manifest, predictor, views, partial(bar.update, 1)))
        write_evaluations(evaluations, output)
    for evaluation in evaluations:
        _print_figures(evaluation.model, evaluation.metrics)
    if not evaluations[0].predictions:
        typer.echo(
            f"No image could be read: {evaluations[0].failures[0].failure.message} If the files lie elsewhere, "
            "name their folder with --images.",
            err=True,
        )
    raise typer.Exit(EXIT_SOME_FAILED if any(evaluation.failures for evaluation in evaluations) else 0)


@app.command()
def models(output_format: FormatOption = OutputFormat.table) -> None:
    """List the models: task, parameters, size, and where the weights come from."""
    with _user_errors():
        for row in _model_rows():
            if output_format is OutputFormat.jsonl:
                typer.echo(json.dumps(row))
            else:
                size = f"{row['megabytes']:.1f} MB" if row["megabytes"] else "–"
                millions = f"{row['parameters'] / 1e6:.1f} M"
                typer.echo(f"{row['model']:<18}{row['task']:<12}{millions:>8}{size:>10}  {row['from']}")


@benchmark_app.command("add")
def add_to_benchmark(
    predictions: Annotated[
        list[Path],
        typer.Argument(
            metavar="PREDICTIONS...",
            help="Folders that evaluate wrote, or their predictions.csv; all numbers of views of a model at once.",
        ),
    ],
    name: Annotated[str | None, typer.Option(help="File the model under this name.")] = None,
    image_level_split: Annotated[
        bool, typer.Option("--image-level-split", help="File it for the leak meter.")
    ] = False,
    root: BenchmarkOption = None,
) -> None:
    """File a model's predictions on the test split."""
    with _user_errors():
        from dermadeit.benchmark_files import BENCHMARK_ROOT, add_predictions

        for path in add_predictions(
            predictions, root or BENCHMARK_ROOT, name=name, image_level_split=image_level_split
        ):
            typer.echo(str(path))


@benchmark_app.command("table")
def write_table(
    readme: Annotated[Path, typer.Option(help="Markdown file whose tables are replaced.")] = Path(
        "README.md"
    ),
    root: BenchmarkOption = None,
) -> None:
    """Compute every figure from the filed predictions, and write the tables into README."""
    with _user_errors():
        from dermadeit.benchmark_files import BENCHMARK_ROOT
        from dermadeit.benchmark_table import write_benchmark_table

        write_benchmark_table(readme, root or BENCHMARK_ROOT)


def _model_rows() -> Iterator[dict[str, Any]]:
    from dermadeit.checkpoints import find_checkpoint, load_checkpoint, training_command
    from dermadeit.models import MODEL_SPECS, count_parameters

    for task in TASKS.values():
        for name in MODEL_SPECS:
            row = {"model": name, "task": task.key, "parameters": None, "megabytes": None}
            try:
                checkpoint = load_checkpoint(find_checkpoint(task.key, name), task.key)
                row["parameters"] = checkpoint.parameters
                row["megabytes"] = round(checkpoint.weights_bytes / 1e6, 1)
                row["from"] = "embedded"
            except CheckpointError as error:
                row["parameters"] = count_parameters(name, len(task.classes))
                row["from"] = (
                    f"not here; {training_command(task.key, name)}"
                    if error.code == "no_checkpoint"
                    else error.user_message
                )
            yield row


def _create_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"“{folder}” can't be used as a folder: {error.strerror}.") from error


def _refuse_repeated(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(
                f"Two of the checkpoints are both of the model “{name}”, and results are filed by model name. "
                "Evaluate them one after the other, with two --output folders."
            )


def _write_overlay(predictor: Any, file: str, prediction: Any, folder: Path) -> str | None:
    from dermadeit.files import write_atomically
    from dermadeit.imaging import decode_image, encode_png
    from dermadeit.saliency import DEFAULT_OPACITY, grad_cam

    try:
        image = decode_image(file)
    except ImageError as error:
        typer.echo(f"{file}: the file changed after it was read. {error.user_message}", err=True)
        return None
    overlay = grad_cam(predictor, image, prediction.label).overlay(image, DEFAULT_OPACITY)
    # Named by content: a display name is never a path.
    name = f"{image.sha256[:16]}_{prediction.task}_{prediction.model}_{prediction.label}.png"
    write_atomically(folder / name, lambda partial: partial.write_bytes(encode_png(overlay)))
    return str(folder / name)


def _prediction_line(line: dict[str, Any]) -> str:
    # A file name may hold terminal control sequences.
    file = "".join(mark if mark.isprintable() else "\ufffd" for mark in line["file"])
    if line["error"]:
        return f"{file}\tfailed\t{line['error']['message']}"
    scores = "  ".join(f"{key} {value:.1%}" for key, value in line["probabilities"].items())
    overlay = [line["saliency"]] if line.get("saliency") else []
    return "\t".join([file, line["label"], scores, *overlay, *line["warnings"]])


def _print_figures(model: str, metrics: dict[str, Any]) -> None:
    from dermadeit.metrics import HEADLINE_FIGURES

    excluded = sum(metrics["excluded"].values())
    typer.echo(
        f"{model}, {metrics['task']}: {metrics['n']} images, {metrics['views']} views, "
        f"{metrics['failed']} failed, {excluded} left out"
    )
    for name in HEADLINE_FIGURES:
        if metrics[name] is not None:
            bounds = metrics["intervals"].get(name)
            interval = f"  [{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else ""
            typer.echo(f"  {name:<20}{metrics[name]:.3f}{interval}")


@contextmanager
def _user_errors() -> Iterator[None]:
    try:
        yield
    except DermaDeiTError as error:
        typer.echo(error.user_message, err=True)
        sys.exit(EXIT_USAGE)
