"""The commands that make what is published: the comparison of the models, its evidence, and the model card."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from dermadeit.command_options import (
    ImagesOption,
    LeaksOption,
    ModelOption,
    TaskOption,
    create_folder,
    open_manifest,
    user_errors,
)

benchmark_app = typer.Typer(
    help="The published comparison of the models: its predictions, and the tables made of them.",
    no_args_is_help=True,
)

BenchmarkOption = Annotated[
    Path | None, typer.Option("--root", help="Folder of the benchmark; assets/benchmark by default.")
]


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
    leakage_test: Annotated[
        Literal["image", "lesion"] | None,
        typer.Option(help="File it for the leakage test, as the model of a split by image or by lesion."),
    ] = None,
    root: BenchmarkOption = None,
) -> None:
    """File a model's predictions on the test split."""
    with user_errors():
        from dermadeit.benchmark_files import BENCHMARK_ROOT, add_predictions

        for path in add_predictions(predictions, root or BENCHMARK_ROOT, name=name, split_by=leakage_test):
            typer.echo(str(path))


@benchmark_app.command("table")
def write_table(
    results: Annotated[Path, typer.Option(help="Markdown file whose tables are replaced.")] = Path(
        "docs/results.md"
    ),
    readme: Annotated[Path, typer.Option(help="Markdown file whose short table is replaced.")] = Path(
        "README.md"
    ),
    root: BenchmarkOption = None,
) -> None:
    """Compute every figure from the filed predictions, and write the tables of docs/results.md and README."""
    with user_errors():
        from dermadeit.benchmark_files import BENCHMARK_ROOT
        from dermadeit.benchmark_table import write_benchmark_tables

        write_benchmark_tables(results, readme, root or BENCHMARK_ROOT)


def robustness(
    source: Annotated[Path, typer.Argument(help="A CSV table, or a folder with class subfolders.")],
    task: TaskOption,
    output: Annotated[Path, typer.Option(help="Folder for robustness.json.")],
    images: ImagesOption = None,
    model: ModelOption = "dermadeit",
    views: Annotated[int, typer.Option(min=1, max=8, help="Views whose logits are averaged.")] = 1,
    split: Annotated[str | None, typer.Option(help="Only the rows of this split.")] = None,
    sample: Annotated[
        int, typer.Option(min=1, help="About so many images, of lesions drawn at random.")
    ] = 500,
    seed: Annotated[int, typer.Option(help="Decides the draw and the corruptions.")] = 0,
    allow_leaks: LeaksOption = False,
) -> None:
    """Read the same photos spoilt in eleven ways, at five severities."""
    with user_errors():
        from tqdm import tqdm

        from dermadeit.files import write_json
        from dermadeit.predictor import load_predictor
        from dermadeit.robustness import ROBUSTNESS_FILE, measure_robustness, sample_lesions

        create_folder(output)
        manifest = open_manifest(source, task, images, split=split, allow_leaks=allow_leaks)
        manifest = sample_lesions(manifest, sample, seed)
        with tqdm(total=len(manifest.rows), unit="image", disable=None) as bar:
            measured = measure_robustness(
                manifest,
                load_predictor(task.value, model),
                views=views,
                seed=seed,
                progress=partial(bar.update, 1),
            )
        write_json(output / ROBUSTNESS_FILE, measured)
        typer.echo(str(output / ROBUSTNESS_FILE))


def model_card(
    output: Annotated[
        Path | None, typer.Option(help="File to write; assets/model_card.md by default.")
    ] = None,
    evidence: Annotated[Path | None, typer.Option(help="Folder with the result files of each task.")] = None,
    root: BenchmarkOption = None,
    checkpoints: Annotated[Path | None, typer.Option(help="Folder of the checkpoints of each task.")] = None,
) -> None:
    """Write the model card from the result files; what no file says is called not measured."""
    with user_errors():
        from dermadeit.benchmark_files import BENCHMARK_ROOT
        from dermadeit.checkpoints import CHECKPOINT_ROOT
        from dermadeit.model_card import EVIDENCE_ROOT, MODEL_CARD, write_model_card

        path = output or MODEL_CARD
        write_model_card(
            path,
            checkpoints=checkpoints or CHECKPOINT_ROOT,
            benchmark=root or BENCHMARK_ROOT,
            evidence=evidence or EVIDENCE_ROOT,
        )
        typer.echo(str(path))
