"""The command line: `python -m dermadeit predict`, `evaluate`, `calibrate`, `models`, and what is published.

Exit codes: 0 when everything worked, 3 when some images could not be read, 2 for a mistake in the call. Results
go to standard output, everything else to standard error.
"""

from __future__ import annotations

import errno
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import asdict, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dermadeit.about import VERSION
from dermadeit.errors import CheckpointError, ConfigurationError, DermaDeiTError, ErrorCode, ImageError
from dermadeit.files import escape_what_cannot_be_printed, require_folder
from dermadeit.tasks import DIAGNOSIS, OWN, get_task

if TYPE_CHECKING:
    from dermadeit.data.manifest import Manifest
    from dermadeit.data.patient import Patient

EXIT_USAGE = 2
EXIT_SOME_FAILED = 3

COMPARISON_FILE = "comparison.json"


class TaskName(StrEnum):
    """The keys of `TASKS`, and that of classes of one's own, which a checkpoint knows."""

    diagnosis = "diagnosis"
    binary = "binary"
    malignancy = "malignancy"
    multiclass = "multiclass"
    own = OWN


class OperatingPointName(StrEnum):
    """The keys of `calibration.OPERATING_POINTS`."""

    balanced = "balanced"
    sensitivity_95 = "sensitivity_95"
    specificity_95 = "specificity_95"


class SplitName(StrEnum):
    """The splits of a table, `vocabulary.SPLITS`."""

    train = "train"
    validation = "validation"
    calibration = "calibration"
    test = "test"


class ExportFormat(StrEnum):
    """What `export` writes."""

    onnx = "onnx"
    openvino = "openvino"
    transformers = "transformers"
    web = "web"


class RuntimeName(StrEnum):
    """The names of `RUNTIMES`."""

    auto = "auto"
    torch = "torch"
    openvino = "openvino"


class OutputFormat(StrEnum):
    """How results are printed."""

    table = "table"
    jsonl = "jsonl"


TaskOption = Annotated[TaskName, typer.Option(help="The task.")]
AnyTaskOption = Annotated[
    TaskName | None,
    typer.Option(help="The task; without it, the one that the model was trained for."),
]
ModelOption = Annotated[
    str, typer.Option(metavar="MODEL", help="A model name, a checkpoint folder, or hf-hub:ORG/NAME.")
]
ImagesOption = Annotated[
    Path | None, typer.Option(help="Folder or ZIP that the table's files are in; its own folder by default.")
]
LeaksOption = Annotated[
    bool, typer.Option("--allow-leaks", help="Continue although lesions are in two splits.")
]
ViewsOption = Annotated[
    int,
    typer.Option(
        min=1,
        max=8,
        help="Views of each photo (turned and mirrored), averaged. 1 is fast and as accurate on test.",
    ),
]
FormatOption = Annotated[OutputFormat, typer.Option("--format", help="What to print.")]
BenchmarkOption = Annotated[
    Path | None, typer.Option("--root", help="Folder of the benchmark; assets/benchmark by default.")
]

_QUIET = ContextVar("quiet", default=False)
"""Whether the command was called with --quiet."""

_OPTION_HINTS = {
    ErrorCode.LESION_LEAK: "--allow-leaks allows it.",
    ErrorCode.NOTHING_READ: "--images names the folder.",
    ErrorCode.NOT_TEST: "“evaluate --split test” does so.",
}
"""What a message of the library can't say: which option of the command line it is about."""


def _example(command: str) -> str:
    """The last line of a command's help."""
    return f"Example: python -m dermadeit {command}"


app = typer.Typer(
    help="Read skin lesion photos. Research and teaching demo, not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
benchmark_app = typer.Typer(
    help="The published comparison of the models: its predictions, and the tables made of them.",
    no_args_is_help=True,
)
app.add_typer(benchmark_app, name="benchmark")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(VERSION)
        raise typer.Exit


@app.callback()
def _prepare_output(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Print results and errors alone: no notes, no progress bars.")
    ] = False,
) -> None:
    """Read skin lesion photos. Research and teaching demo, not a medical device."""
    escape_what_cannot_be_printed()
    _QUIET.set(quiet)


@app.command(epilog=_example("predict photo.jpg --task binary --saliency overlays"))
def predict(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")],
    task: AnyTaskOption = None,
    model: ModelOption = "dermadeit",
    views: ViewsOption = 8,
    saliency: Annotated[
        Path | None, typer.Option(help="Folder for heatmaps of the predicted class over the photos.")
    ] = None,
    check_saliency: Annotated[
        bool,
        typer.Option(
            "--check-saliency", help="Test whether the heatmap is reliable, and outline the tested area."
        ),
    ] = False,
    even_if_withheld: Annotated[
        bool, typer.Option("--even-if-withheld", help="Draw overlays of withheld answers too.")
    ] = False,
    neighbours: Annotated[
        int, typer.Option(min=0, max=50, help="Number of similar training lesions to list.")
    ] = 0,
    operating_point: Annotated[
        OperatingPointName | None, typer.Option(help="Where to decide; balanced by default.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="A threshold of your own in place of an operating point: the probability of the target class.",
        ),
    ] = None,
    prevalence: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Share of lesions of the target class where you use the answer; by default as in the calibration "
            "images. Probabilities and thresholds are moved to it.",
        ),
    ] = None,
    lesion: Annotated[
        bool, typer.Option("--lesion", help="All photos show one lesion: one more record, of their mean.")
    ] = False,
    frame: Annotated[int, typer.Option(min=1, help="Which picture of DICOM files with several to read.")] = 1,
    age: Annotated[
        str | None, typer.Option(help="Age of the patient of all photos, in years: a second answer with it.")
    ] = None,
    sex: Annotated[str | None, typer.Option(help="Sex of that patient, female or male.")] = None,
    patients: Annotated[
        Path | None,
        typer.Option(help="A table with the columns age and sex, and file or image_id, instead."),
    ] = None,
    runtime: Annotated[
        RuntimeName | None,
        typer.Option(help="What runs the network: auto is OpenVINO where it is installed, else PyTorch."),
    ] = None,
    output_format: FormatOption = OutputFormat.table,
) -> None:
    """Read images, one record each; a bad file never stops the others."""
    with _user_errors():
        from dermadeit.inference.decision import OWN_THRESHOLD, DecisionSettings
        from dermadeit.inference.lesion import join_photos
        from dermadeit.inference.predictor import Frame, load_predictor
        from dermadeit.inference.prevalence import (
            apply_settings,
            apply_settings_to_lesion,
            require_calibration,
        )
        from dermadeit.inference.records import ABSTAIN, ItemFailure, Prediction
        from dermadeit.models.runtimes.choice import wanted_runtime
        from dermadeit.trust.calibration import DEFAULT_OPERATING_POINT

        if operating_point is not None and threshold is not None:
            raise ConfigurationError("Give --operating-point or --threshold, not both.")
        if saliency is not None:
            require_folder(saliency)
        images = _list_images(images)
        of_each = _read_patients(images, age, sex, patients)
        chosen = wanted_runtime(runtime and runtime.value)
        predictor = load_predictor(task and task.value, model, runtime=chosen)
        settings = DecisionSettings(
            operating_point or (DEFAULT_OPERATING_POINT if threshold is None else OWN_THRESHOLD),
            0.5 if threshold is None else threshold,
            prevalence,
        )
        if threshold is not None or prevalence is not None:
            require_calibration(predictor.checkpoint.calibration, views)
        if output_format is OutputFormat.table and (caveat := predictor.checkpoint.task.caveat):
            _note(caveat)
        trust = predictor.checkpoint.trust
        calibrations = trust.calibrations if trust else {}
        some_failed, read = False, []
        records = predictor.predict_iter(
            images if frame == 1 else [Frame(file, frame) for file in images],
            views,
            operating_point=operating_point,
            neighbours=neighbours,
            patients=of_each,
        )
        for file, record in zip(images, records, strict=True):
            some_failed |= isinstance(record, ItemFailure)
            if lesion:
                read.append(record)
            overlay, written, decision = {}, None, None
            if isinstance(record, Prediction):
                record, decision = apply_settings(record, predictor.checkpoint.task, calibrations, settings)
            if isinstance(record, Prediction) and (saliency is not None or check_saliency):
                hidden = record.verdict == ABSTAIN and not even_if_withheld
                folder = None if hidden else saliency
                if folder is not None or check_saliency:
                    record, written = _explain(predictor, file, frame, record, folder, check_saliency)
                    some_failed |= folder is not None and written is None
                overlay = {"saliency": written} if saliency is not None else {}
            # The argument itself: it tells two files of one name apart.
            line = record.to_dict() | {"decision": decision and decision.to_dict(), "file": file} | overlay
            typer.echo(json.dumps(line) if output_format is OutputFormat.jsonl else _prediction_line(line))
        if lesion:
            point = operating_point or DEFAULT_OPERATING_POINT
            joint = join_photos(predictor, read, views, point, _one_patient(of_each))
            joint, decision = apply_settings_to_lesion(
                joint, predictor.checkpoint.task, calibrations, settings
            )
            # The photos' own records are the lines above.
            found = {
                "lesion": images,
                **joint.to_dict(),
                "decision": decision and decision.to_dict(),
                "photos": len(images),
            }
            typer.echo(json.dumps(found) if output_format is OutputFormat.jsonl else _lesion_line(found))
    raise typer.Exit(EXIT_SOME_FAILED if some_failed else 0)


@app.command(
    "predict-archive", epilog=_example("predict-archive s3://bucket/photos --task binary --output answers")
)
def predict_archive(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder or URL of photos, tar files, or Parquet files with encoded photos; or one such file."
        ),
    ],
    output: Annotated[str, typer.Option(help="Folder or URL for the Parquet parts.")],
    task: AnyTaskOption = None,
    model: ModelOption = "dermadeit",
    views: ViewsOption = 8,
    operating_point: Annotated[
        OperatingPointName | None, typer.Option(help="Where to decide; balanced by default.")
    ] = None,
    runtime: Annotated[
        RuntimeName, typer.Option(help="What runs the network; torch gives the same answers everywhere.")
    ] = RuntimeName.torch,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Copies of the network; by default one for each core, or for each GPU."),
    ] = None,
    gpus: Annotated[bool, typer.Option("--gpus", help="Give every worker a GPU.")] = False,
    image_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Of Parquet files: where the encoded photos are.")
    ] = None,
    id_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Of Parquet files: where their names are, each once.")
    ] = None,
) -> None:
    """Read an archive of any size with Ray, on one machine or a cluster; the same command goes on after a stop."""
    with _user_errors():
        from dermadeit.inference.archive import ArchiveRequest
        from dermadeit.inference.archive import predict_archive as read_archive
        from dermadeit.reporting.format import counted

        counts = read_archive(
            source,
            output,
            ArchiveRequest(task and task.value, model, runtime.value, views, operating_point),
            workers=workers,
            gpus=gpus,
            image_column=image_column,
            id_column=id_column,
            shows_progress=sys.stderr.isatty() and not _QUIET.get(),
        )
        if counts.known:
            _note(f"{counted(counts.known, 'photo')} had a row before.")
        typer.echo(f"{counted(counts.answered, 'photo')} read, {counts.failed} not: {output}")
    raise typer.Exit(EXIT_SOME_FAILED if counts.failed else 0)


@app.command(epilog=_example("evaluate labels.csv --images photos --task binary --output evaluation"))
def evaluate(
    source: Annotated[
        Path, typer.Argument(help="A folder or ZIP with class subfolders or a table, or a table.")
    ],
    output: Annotated[Path, typer.Option(help="Folder for metrics.json, predictions.csv, failures.csv.")],
    task: AnyTaskOption = None,
    images: ImagesOption = None,
    model: Annotated[
        list[str] | None, typer.Option(metavar="MODEL", help="A model name or folder; repeat for more.")
    ] = None,
    views: ViewsOption = 8,
    split: Annotated[SplitName | None, typer.Option(help="Only the rows of this split.")] = None,
    slices: Annotated[
        bool, typer.Option(help="Figures by age, sex, site, skin tone and size, and attributes.csv.")
    ] = True,
    runtime: Annotated[
        RuntimeName, typer.Option(help="What runs the network. Published figures are those of torch.")
    ] = RuntimeName.torch,
    allow_leaks: LeaksOption = False,
) -> None:
    """Compare predictions with known labels."""
    with _user_errors(), ExitStack() as opened:
        from tqdm import tqdm

        from dermadeit.evaluation.evaluate import evaluate as evaluate_manifest
        from dermadeit.evaluation.evaluate import write_evaluations
        from dermadeit.evaluation.slices import describe_images, write_attributes
        from dermadeit.inference.predictor import load_predictor

        require_folder(output)
        manifest = _open_manifest(
            source,
            task,
            images,
            (model or ["dermadeit"])[0],
            split=split,
            allow_leaks=allow_leaks,
            opened=opened,
        )
        if split is None and any(row.split == "train" for row in manifest.rows):
            _note("The table includes training images; --split test leaves them out.")
        predictors = [
            load_predictor(manifest.task.key, name, runtime=runtime.value)
            for name in dict.fromkeys(model or ["dermadeit"])
        ]
        _refuse_repeated([predictor.checkpoint.model for predictor in predictors])
        attributes = describe_images(manifest.rows) if slices else None
        evaluations = []
        for predictor in predictors:
            name = predictor.checkpoint.model
            with tqdm(total=len(manifest.rows), desc=name, unit="image", disable=_hides_progress()) as bar:
                evaluations.append(
                    evaluate_manifest(manifest, predictor, views, partial(bar.update, 1), attributes)
                )
        write_evaluations(evaluations, output)
        if attributes is not None:
            write_attributes(output / "attributes.csv", attributes)
    for evaluation in evaluations:
        _print_figures(evaluation)
    if not evaluations[0].predictions:
        typer.echo(
            f"No image could be read: {evaluations[0].failures[0].failure.message} If the files lie elsewhere, "
            "name their folder with --images.",
            err=True,
        )
    raise typer.Exit(EXIT_SOME_FAILED if any(evaluation.failures for evaluation in evaluations) else 0)


@app.command(epilog=_example("calibrate manifest.csv --model runs/diagnosis/dermadeit --views 8"))
def calibrate(
    source: Annotated[
        Path, typer.Argument(help="A table, folder or ZIP with the splits train and calibration.")
    ],
    task: AnyTaskOption = None,
    model: ModelOption = "dermadeit",
    images: ImagesOption = None,
    not_skin: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Folder of photos of anything but skin (a hundred everyday photos will do), from which the gates "
            "learn what to withhold. Without it they find fewer than half of such photos.",
        ),
    ] = None,
    gates_only: Annotated[
        bool,
        typer.Option("--gates-only", help="Fit the gates anew and leave all else as it was calibrated."),
    ] = False,
    views: Annotated[
        int, typer.Option(min=1, max=8, help="Calibrate for answers of one view and of this many views.")
    ] = 8,
    similar_cases: Annotated[
        bool, typer.Option("--similar-cases/--no-similar-cases", help="Index the training images (3 MB).")
    ] = True,
    allow_leaks: LeaksOption = False,
) -> None:
    """Fit probabilities, decisions, gates and similar cases, and store them beside the weights."""
    with _user_errors(), ExitStack() as opened:
        from tqdm import tqdm

        from dermadeit.evaluation.calibrate import fit_trust, read_cases, refit_gates
        from dermadeit.inference.predictor import Predictor
        from dermadeit.models.checkpoints import find_checkpoint, load_checkpoint
        from dermadeit.trust.files import write_trust

        folder = find_checkpoint(task and task.value, model)
        if folder.is_dir():
            require_folder(folder)
        whole = _open_network_manifest(source, folder, images, allow_leaks=allow_leaks, opened=opened)
        manifest = whole.select("calibration")
        has_validation = any(row.split == "validation" for row in whole.rows)
        validation = whole.select("validation") if has_validation and not gates_only else None
        cases = None
        if similar_cases and not gates_only:
            cases = read_cases(source, manifest.task, images, opened=opened)
        # What an earlier calibration left may be damaged; it is about to be replaced, or parts of it are kept.
        checkpoint = load_checkpoint(folder, task and task.value, calibrated=gates_only)
        known = checkpoint.trust
        if gates_only and known is None:
            raise ConfigurationError(
                f"The checkpoint “{checkpoint.folder.name}” was never calibrated. Run this without --gates-only."
            )
        total = sum(len(part.rows) for part in (manifest, validation, cases) if part)
        with tqdm(total=total, unit="image", disable=_hides_progress()) as bar:
            predictor, progress = Predictor(checkpoint), partial(bar.update, 1)
            trust = (
                refit_gates(manifest, predictor, known, not_skin=not_skin, progress=progress)
                if gates_only and known is not None
                else fit_trust(
                    manifest,
                    cases,
                    predictor,
                    validation=validation,
                    not_skin=not_skin,
                    views=views,
                    progress=progress,
                )
            )
        write_trust(checkpoint.folder, trust)
    _print_calibrations(checkpoint.model, trust)
    _print_classes(manifest.class_counts)


@app.command(epilog=_example("compare mine.csv dermadeit --task binary --output comparison"))
def compare(
    tables: Annotated[
        list[str],
        typer.Argument(
            metavar="TABLE...",
            help="Tables of predictions: predictions.csv, or image_id and p_<class> of any model; and names of "
            "models, whose shipped predictions of the test images are taken.",
        ),
    ],
    task: TaskOption,
    output: Annotated[Path, typer.Option(help="Folder for comparison.json.")],
) -> None:
    """Compare models by their predictions alone: figures with intervals, and paired differences."""
    with _user_errors():
        from dermadeit.about import APP, DISCLAIMER
        from dermadeit.evaluation.comparison import compare_all, gather_models
        from dermadeit.evaluation.predictions import read_predictions
        from dermadeit.files import write_json
        from dermadeit.publishing.benchmark import read_shipped_predictions, read_test_images

        require_folder(output)
        asked = None if task.value == OWN else get_task(task.value)
        names = [name for name in tables if not Path(name).is_file()]
        if names and asked is None:
            raise ConfigurationError(f"There is no table “{names[0]}”.")
        sets = []
        for name in tables:
            if name not in names:
                sets.append((name, read_predictions(Path(name), asked, known=read_test_images)))
                # Of classes of one's own, the first table gives the order and the target.
                asked = asked or sets[0][1][0].task
        assert asked is not None, "without a task every argument is a table, which has one"
        if names:
            sets.append(("shipped", read_shipped_predictions(asked, names)))
        compared = gather_models(sets, asked)
        content = compare_all(compared)
        write_json(
            output / COMPARISON_FILE,
            {"disclaimer": DISCLAIMER, "app": APP, **content},
        )
    _print_comparison(content)


@app.command(epilog=_example("doctor"))
def doctor() -> None:
    """Check that this installation can read photos: versions, weights, memory, and an example photo."""
    with _user_errors():
        from dermadeit.inference.doctor import examine

        findings = []
        for finding in examine():
            findings.append(finding)
            typer.echo(f"{'ok' if finding.works else 'FAULT':<6}{finding.name:<32}{finding.text}")
    raise typer.Exit(0 if all(finding.works for finding in findings) else EXIT_USAGE)


@app.command(epilog=_example("models --format jsonl"))
def models(output_format: FormatOption = OutputFormat.table) -> None:
    """List the models: task, parameters, size, and where the weights come from."""
    with _user_errors():
        from dermadeit.reporting.format import NOTHING, megabytes, millions

        for row in _model_rows():
            if output_format is OutputFormat.jsonl:
                typer.echo(json.dumps(row))
            else:
                size = megabytes(round(row["megabytes"] * 1e6)) if row["megabytes"] else NOTHING
                parameters = millions(row["parameters"])
                typer.echo(f"{row['model']:<18}{row['task']:<12}{parameters:>14}{size:>10}  {row['from']}")


@app.command(epilog=_example("robustness manifest.csv --split test --task binary --output evaluation"))
def robustness(
    source: Annotated[
        Path, typer.Argument(help="A folder or ZIP with class subfolders or a table, or a table.")
    ],
    output: Annotated[Path, typer.Option(help="Folder for robustness.json.")],
    task: AnyTaskOption = None,
    images: ImagesOption = None,
    model: ModelOption = "dermadeit",
    views: Annotated[int, typer.Option(min=1, max=8, help="Views whose logits are averaged.")] = 1,
    split: Annotated[SplitName | None, typer.Option(help="Only the rows of this split.")] = None,
    sample: Annotated[
        int, typer.Option(min=1, help="Approximate number of images, of randomly drawn lesions.")
    ] = 500,
    seed: Annotated[int, typer.Option(help="Seed of the draw and of the corruptions.")] = 0,
    allow_leaks: LeaksOption = False,
) -> None:
    """Read the same photos with eleven corruptions, at five severities."""
    with _user_errors(), ExitStack() as opened:
        from tqdm import tqdm

        from dermadeit.evaluation.robustness import ROBUSTNESS_FILE, measure_robustness, sample_lesions
        from dermadeit.files import write_json
        from dermadeit.inference.predictor import load_predictor

        require_folder(output)
        manifest = _open_manifest(
            source, task, images, model, split=split, allow_leaks=allow_leaks, opened=opened
        )
        manifest = sample_lesions(manifest, sample, seed)
        with tqdm(total=len(manifest.rows), unit="image", disable=_hides_progress()) as bar:
            measured = measure_robustness(
                manifest,
                load_predictor(manifest.task.key, model),
                views=views,
                seed=seed,
                progress=partial(bar.update, 1),
            )
        write_json(output / ROBUSTNESS_FILE, measured)
        typer.echo(str(output / ROBUSTNESS_FILE))


@app.command("model-card", epilog=_example("model-card --output card.md"))
def model_card(
    output: Annotated[
        Path | None, typer.Option(help="File to write; assets/model_card.md by default.")
    ] = None,
    evidence: Annotated[Path | None, typer.Option(help="Folder with the result files of each task.")] = None,
    root: BenchmarkOption = None,
    checkpoints: Annotated[Path | None, typer.Option(help="Folder of the checkpoints of each task.")] = None,
) -> None:
    """Write the model card from the result files. What is in no file is marked as not measured."""
    with _user_errors():
        from dermadeit.models.checkpoints import CHECKPOINT_ROOT
        from dermadeit.publishing.benchmark import BENCHMARK_ROOT
        from dermadeit.publishing.model_card import EVIDENCE_ROOT, MODEL_CARD, write_model_card

        path = output or MODEL_CARD
        require_folder(path.parent)
        write_model_card(
            path,
            checkpoints=checkpoints or CHECKPOINT_ROOT,
            benchmark=root or BENCHMARK_ROOT,
            evidence=evidence or EVIDENCE_ROOT,
        )
        typer.echo(str(path))


@app.command("known-names", epilog=_example("known-names"))
def known_names(
    output: Annotated[Path, typer.Option(help="The page whose tables are replaced.")] = Path("docs/data.md"),
) -> None:
    """Write the tables of the column, class and split names that are known."""
    with _user_errors():
        from dermadeit.publishing.known_names import write_known_names

        require_folder(output.parent)
        write_known_names(output)


@app.command("error-codes", epilog=_example("error-codes"))
def error_codes(
    output: Annotated[Path, typer.Option(help="The page to write.")] = Path("docs/errors.md"),
) -> None:
    """Write the page that lists every error code."""
    with _user_errors():
        from dermadeit.publishing.error_codes import write_error_codes

        require_folder(output.parent)
        write_error_codes(output)


@app.command(epilog=_example("push --repo YOUR-NAME/lesions --task binary --dry-run"))
def push(
    repo: Annotated[
        str,
        typer.Option(metavar="ORG/NAME", help="The repository, as ORG/NAME; it is made where there is none."),
    ],
    task: AnyTaskOption = None,
    model: ModelOption = "dermadeit",
    output: Annotated[
        Path | None, typer.Option(help="New folder to stage in, which is kept; a temporary one by default.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Show a new repository to nobody else.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Stage and list the files; upload nothing.")
    ] = False,
) -> None:
    """Publish a model on the Hugging Face Hub, for timm, transformers and load_predictor."""
    with _user_errors(), ExitStack() as opened:
        from dermadeit.models.checkpoints import find_checkpoint, load_checkpoint
        from dermadeit.publishing.hub import push_model, stage_model

        folder = output or Path(opened.enter_context(tempfile.TemporaryDirectory()))
        checkpoint = load_checkpoint(find_checkpoint(task and task.value, model))
        _print_files(stage_model(checkpoint, folder, repo), folder)
        if not dry_run:
            typer.echo(push_model(folder, repo, private=private))


@app.command(epilog=_example("deploy --space YOUR-NAME/dermadeit --output build/space"))
def deploy(
    space: Annotated[
        str, typer.Option(metavar="ORG/NAME", help="The Space, as ORG/NAME; it is made where there is none.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="New folder to stage in, which is kept; a temporary one by default.")
    ] = None,
    docker: Annotated[
        bool, typer.Option("--docker", help="Let the Hub build the Dockerfile, not its own Gradio image.")
    ] = False,
    private: Annotated[bool, typer.Option("--private", help="Show a new Space to nobody else.")] = False,
    upload: Annotated[bool, typer.Option("--upload", help="Upload it; without this nothing leaves.")] = False,
) -> None:
    """Stage the app as a Hugging Face Space and check it; upload it where --upload says so."""
    with _user_errors(), ExitStack() as opened:
        from dermadeit.publishing.hub import check_repository
        from dermadeit.publishing.space import push_space, stage_space
        from dermadeit.reporting.format import counted, megabytes

        check_repository(space)
        folder = output or Path(opened.enter_context(tempfile.TemporaryDirectory()))
        files = stage_space(folder, docker=docker)
        size = megabytes(sum(path.stat().st_size for path in files))
        _note(f"{counted(len(files), 'file')}, {size}. The front matter fits requirements.txt.")
        if upload:
            typer.echo(push_space(folder, space, private=private, docker=docker))
        elif output:
            typer.echo(str(folder))


@app.command(epilog=_example("export --format onnx --task binary --output build/onnx"))
def export(
    output_format: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            help="onnx and openvino: one file with preprocessing and probabilities in it. transformers: a folder "
            "for from_pretrained. web: a page that reads photos in the browser.",
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder to write into.")],
    task: AnyTaskOption = None,
    model: ModelOption = "dermadeit",
    views: ViewsOption = 8,
    runtime: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="For web: the package onnxruntime-web as npm packs it; npm fetches it by default.",
        ),
    ] = None,
) -> None:
    """Write a model for another runtime, and check that it gives the same answers."""
    with _user_errors():
        from dermadeit.models.checkpoints import find_checkpoint, load_checkpoint
        from dermadeit.publishing.exports import export_onnx, export_openvino
        from dermadeit.publishing.transformers_export import export_transformers
        from dermadeit.publishing.web_export import export_web

        require_folder(output)
        checkpoint = load_checkpoint(find_checkpoint(task and task.value, model), task and task.value)
        difference = None
        if output_format is ExportFormat.onnx:
            difference = export_onnx(checkpoint, output, views)
        elif output_format is ExportFormat.openvino:
            difference = export_openvino(checkpoint, output, views)
        elif output_format is ExportFormat.web:
            difference = export_web(checkpoint, output, views, runtime)
        else:
            export_transformers(checkpoint, output)
        _print_files(sorted(path for path in output.iterdir() if path.is_file()), output)
        if difference is not None:
            _note(f"Greatest difference of a logit on example photos: {difference:.1e}")


@benchmark_app.command("add", epilog=_example("benchmark add evaluation"))
def add_to_benchmark(
    predictions: Annotated[
        list[Path],
        typer.Argument(
            metavar="PREDICTIONS...",
            help="Folders that evaluate wrote, or their predictions.csv; all numbers of views of a model at once.",
        ),
    ],
    name: Annotated[str | None, typer.Option(metavar="NAME", help="File the model under this name.")] = None,
    leakage_test: Annotated[
        Literal["image", "lesion"] | None,
        typer.Option(help="File it for the leakage test, as the model of a split by image or by lesion."),
    ] = None,
    root: BenchmarkOption = None,
) -> None:
    """File a model's predictions on the test split."""
    with _user_errors():
        from dermadeit.publishing.benchmark import BENCHMARK_ROOT, add_predictions

        require_folder(root or BENCHMARK_ROOT)
        for path in add_predictions(predictions, root or BENCHMARK_ROOT, name=name, split_by=leakage_test):
            typer.echo(str(path))


@benchmark_app.command("table", epilog=_example("benchmark table"))
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
    with _user_errors():
        from dermadeit.publishing.benchmark import BENCHMARK_ROOT
        from dermadeit.publishing.benchmark_table import write_benchmark_tables

        require_folder(results.parent)
        require_folder(readme.parent)
        write_benchmark_tables(results, readme, root or BENCHMARK_ROOT)


def _open_network_manifest(
    source: Path, folder: Path, images: Path | None, *, allow_leaks: bool, opened: ExitStack
) -> Manifest:
    """Reads labelled images of the task that a checkpoint was trained for; see `_open_manifest`."""
    from dermadeit.data.manifest import read_source
    from dermadeit.models.checkpoints import read_task

    return _checked(read_source(source, read_task(folder), images, opened=opened), allow_leaks=allow_leaks)


def _checked(manifest: Manifest, *, allow_leaks: bool) -> Manifest:
    from dermadeit.data.manifest import check_leaks

    for sentence in manifest.ledger.sentences() if manifest.ledger else ():
        _note(sentence)
    if not allow_leaks:
        check_leaks(manifest)
    return manifest


def _open_manifest(
    source: Path,
    task: TaskName | None,
    images: Path | None,
    model: str,
    *,
    split: SplitName | None,
    allow_leaks: bool,
    opened: ExitStack,
) -> Manifest:
    """Reads labelled images, refuses leaks unless they are allowed, and keeps one split where one is named.

    How columns and labels were read is printed on standard error.
    """
    from dermadeit.data.manifest import read_source
    from dermadeit.models.checkpoints import find_checkpoint, read_task

    if task is None or task.value == OWN:
        asked = read_task(find_checkpoint(task and task.value, model))
    else:
        asked = get_task(task.value)
    manifest = _checked(read_source(source, asked, images, opened=opened), allow_leaks=allow_leaks)
    return manifest if split is None else manifest.select(split.value)


def _note(text: str) -> None:
    """Prints what is neither a result nor an error, unless nobody wants it."""
    if not _QUIET.get():
        typer.echo(text, err=True)


def _hides_progress() -> bool | None:
    """What tqdm takes as `disable`: None shows a bar in a terminal alone."""
    return _QUIET.get() or None


@contextmanager
def _user_errors() -> Iterator[None]:
    """Ends the program with a sentence where the user has made a mistake."""
    try:
        yield
    except DermaDeiTError as error:
        typer.echo(" ".join(filter(None, (error.user_message, _OPTION_HINTS.get(error.code)))), err=True)
        sys.exit(EXIT_USAGE)
    except OSError as error:
        # What can't be read or written; a defect of ours names no file.
        if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        typer.echo(f"“{error.filename or 'The disk'}” can't be used: {error.strerror}.", err=True)
        sys.exit(EXIT_USAGE)


def _print_files(files: Iterable[Path], folder: Path) -> None:
    """Names and sizes of staged files."""
    from dermadeit.reporting.format import megabytes

    for path in files:
        typer.echo(f"{path.relative_to(folder).as_posix():<28}{megabytes(path.stat().st_size):>10}")


def _model_rows() -> Iterator[dict[str, Any]]:
    from dermadeit.models.checkpoints import (
        answered_tasks,
        find_checkpoint,
        load_checkpoint,
        training_command,
    )
    from dermadeit.models.specs import MODEL_SPECS

    for name, spec in MODEL_SPECS.items():
        folders = dict.fromkeys(find_checkpoint(task.key, name) for task in answered_tasks(name))
        for folder in folders:
            row = {"model": name, "task": None, "parameters": None, "megabytes": None, "from": "embedded"}
            try:
                checkpoint = load_checkpoint(folder)
                row["task"] = checkpoint.network.key
                row["parameters"] = checkpoint.parameters
                row["megabytes"] = round(checkpoint.weights_bytes / 1e6, 1)
            except CheckpointError as error:
                row["from"] = error.user_message
            yield row
        if not folders:
            yield {
                "model": name,
                "task": DIAGNOSIS.key,
                "parameters": spec.count_parameters(len(DIAGNOSIS.classes)),
                "megabytes": None,
                "from": f"not here; {training_command(DIAGNOSIS.key, name)}",
            }


def _refuse_repeated(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(
                f"Two of the checkpoints are both of the model “{name}”, and results are filed by model name. "
                "Evaluate them one after the other, with two --output folders."
            )


def _list_images(given: list[str]) -> list[str]:
    """The files, and in place of each folder what lies in and below it, in alphabetical order.

    Raises:
        ConfigurationError: A folder holds no file that could be an image.
    """
    from dermadeit.data.search import list_folder

    found = []
    for name in given:
        folder = Path(name)
        if not folder.is_dir():
            found.append(name)
            continue
        content = list_folder(folder)
        kept = content.images
        if others := len(content.tables) + len(content.passed_over):
            _note(f"{name}: {others} other files left out")
        if not kept:
            raise ConfigurationError(f"The folder “{name}” holds no images.", code=ErrorCode.NO_IMAGES)
        found += map(str, kept)
    return found


def _read_patients(
    images: list[str], age: str | None, sex: str | None, table: Path | None
) -> list[Patient | None]:
    """The patient of each image; None where nothing is known.

    Raises:
        ConfigurationError: An age or sex can't be meant, or both ways to give them are used.
        TableError: The table can't be used, or names none of the images.
    """
    from dermadeit.data.patient import read_patient, read_patients

    if table is None:
        return [read_patient(age, sex)] * len(images)
    if age is not None or sex is not None:
        raise ConfigurationError("Give age and sex, or a table of patients, not both.")
    return read_patients(table, images)


def _one_patient(patients: list[Patient | None]) -> Patient | None:
    """The patient of one lesion: all that is known of any of its photos.

    Raises:
        ConfigurationError: They contradict each other.
    """
    known = set(filter(None, patients))
    if len(known) > 1:
        raise ConfigurationError("The photos of one lesion have different ages or sexes. Correct the table.")
    return known.pop() if known else None


def _explain(
    predictor: Any, file: str, frame: int, prediction: Any, folder: Path | None, check: bool
) -> tuple[Any, str | None]:
    """The prediction, with its heatmap checked where asked; and the overlay's path, or None without a folder."""
    from dermadeit.files import write_atomically
    from dermadeit.imaging.decode import decode_image, encode_png
    from dermadeit.inference.faithfulness import check_saliency, outline_removed_area
    from dermadeit.inference.saliency import DEFAULT_OPACITY, SALIENCY_METHODS, default_method

    try:
        image = decode_image(file, frame=frame)
    except ImageError as error:
        typer.echo(f"{file}: the file changed after it was read. {error.user_message}", err=True)
        return prediction, None
    explain = SALIENCY_METHODS[default_method(predictor)]
    saliency_map = explain(predictor, image, prediction.label)
    if check:
        checked = check_saliency(predictor, image, saliency_map)
        tested = {"method": saliency_map.method, "class": prediction.label, **asdict(checked)}
        prediction = replace(prediction, saliency_check=tested)
    if folder is None:
        return prediction, None
    overlay = saliency_map.overlay(image, DEFAULT_OPACITY)
    if check:
        overlay = outline_removed_area(overlay, saliency_map, predictor.checkpoint.preprocessing.size)
    # Named by content: a display name is never a path.
    name = f"{image.sha256[:16]}_{prediction.task}_{prediction.model}_{prediction.label}.png"
    write_atomically(folder / name, lambda partial: partial.write_bytes(encode_png(overlay)))
    return prediction, str(folder / name)


def _lesion_line(lesion: dict[str, Any]) -> str:
    from dermadeit.reporting.format import percent
    from dermadeit.reporting.names import ranked
    from dermadeit.trust.gating import STATE_WORDS, WITHHELD

    photos = lesion["photos"]
    if lesion["verdict"] != "answer":
        return f"lesion, 0 of {photos} photos\t{STATE_WORDS[WITHHELD]}\tNo photo of the lesion has an answer."
    scores = "  ".join(f"{key} {percent(value)}" for key, value in ranked(lesion["probabilities"]))
    notes = [
        f"{lesion['photos_agreeing']} of {lesion['photos_used']} photos agree, spread {percent(lesion['spread'])}"
    ]
    notes += [*_decision_notes(lesion), *_context_notes(lesion)]
    return "\t".join([f"lesion, {lesion['photos_used']} of {photos} photos", lesion["label"], scores, *notes])


def _decision_notes(line: dict[str, Any]) -> list[str]:
    """What a photo or a lesion is decided to be, and what it may still be."""
    from dermadeit.reporting.format import percent
    from dermadeit.trust.calibration import operating_point_title

    notes, point = [], line["operating_point"]
    if point:
        notes.append(f"{operating_point_title(point['name'])}: {point['decision']}")
    if decision := line.get("decision"):
        known = (f"{name} {_share_text(decision[name])}" for name in ("sensitivity", "specificity"))
        notes.append(", ".join(known))
    if line.get("prevalence") is not None:
        notes.append(f"at a prevalence of {percent(line['prevalence'])}")
    if line["conformal_set"] is not None:
        notes.append(f"still possible: {', '.join(line['conformal_set']) or 'none'}")
    return notes


def _context_notes(line: dict[str, Any]) -> list[str]:
    """The answer with age and sex of a photo or a lesion, or why there is none."""
    from dermadeit.reporting.format import percent

    context = line["patient_context"]
    if context is None:
        return []
    notes = [context["note"]] if context["note"] else []
    if context["label"]:
        scores = "  ".join(f"{key} {percent(value)}" for key, value in context["probabilities"].items())
        notes.insert(0, f"with age and sex: {context['label']}, {scores}")
    return notes


def _share_text(figure: Mapping[str, Any]) -> str:
    """A figure of a decision, such as “85.4 % (80.7 to 89.5 %)”; between two bounds where no more is known."""
    from dermadeit.reporting.format import percent, percent_span

    if figure["low"] != figure["high"]:
        return percent_span(figure["low"], figure["high"])
    interval = figure["interval"]
    return percent(figure["low"]) + (f" ({percent_span(*interval)})" if interval else "")


def _prediction_line(line: dict[str, Any]) -> str:
    from dermadeit.reporting.format import percent
    from dermadeit.reporting.names import HEATMAP_STATES, ranked
    from dermadeit.trust.gating import STATE_WORDS, WARNED, WITHHELD

    # A file name may hold terminal control sequences.
    file = "".join(mark if mark.isprintable() else "\ufffd" for mark in line["file"])
    if line["error"]:
        return f"{file}\tfailed\t{line['error']['message']}"
    scores = "  ".join(f"{key} {percent(value)}" for key, value in ranked(line["probabilities"]))
    notes = [line["saliency"]] if line.get("saliency") else []
    if line["abstain"]:
        if "saliency" in line and not notes:
            notes.append("no heatmap, because the answer is withheld; --even-if-withheld draws it")
        # What similar cases say against the answer comes last, and would name it.
        warnings = line["warnings"][:-1] if line["neighbour_disagreement"] else line["warnings"]
        return "\t".join([file, STATE_WORDS[WITHHELD], *line["abstain"]["reasons"], *notes, *warnings])
    if line.get("warning_codes"):
        notes.insert(0, STATE_WORDS[WARNED])
    notes += [*_decision_notes(line), *_context_notes(line)]
    if line["neighbours"]:
        named = ", ".join(f"{near['diagnosis']} {near['image_id']}" for near in line["neighbours"])
        notes.append(f"similar: {line['neighbour_vote']}; the nearest: {named}")
    if line["saliency_check"]:
        notes.append(
            HEATMAP_STATES["reliable" if line["saliency_check"]["faithful"] else "unreliable"].lower()
        )
    return "\t".join([file, line["label"], scores, *notes, *line["warnings"]])


def _print_figures(evaluation: Any) -> None:
    from dermadeit.reporting.format import count, counted
    from dermadeit.reporting.names import interval_warnings

    metrics = evaluation.metrics
    excluded = sum(metrics["excluded"].values())
    typer.echo(
        f"{evaluation.model}, {metrics['task']}: {counted(metrics['n'], 'image')}, "
        f"{counted(metrics['views'], 'view')}, {count(metrics['failed'])} not read, {count(excluded)} left out"
    )
    if metrics.get("not_measured"):
        typer.echo(metrics["not_measured"], err=True)
        return
    classes = Counter(item.label for item in evaluation.predictions)
    if classes:
        _print_classes({key: classes[key] for key in evaluation.predictions[0].prediction.probabilities})
    for warning in interval_warnings([metrics]):
        typer.echo(warning, err=True)
    _print_headline_figures(metrics)
    if lesions := metrics["lesions"]:
        several = f"{count(lesions['several_photos'])} with several photos, answered together"
        typer.echo(f"  {counted(lesions['n'], 'lesion')}, {several}:")
        _print_headline_figures(lesions)
    if context := metrics.get("patient_context"):
        _print_context(context)


def _print_context(context: Mapping[str, Any]) -> None:
    """What age and sex bring, on the images whose age is known."""
    from dermadeit.metrics.classification import HEADLINE_FIGURES
    from dermadeit.reporting.format import counted, difference

    typer.echo(f"  with age and sex, {counted(context['with_context']['n'], 'image')}:")
    _print_headline_figures(context["with_context"])
    typer.echo("  with minus without age and sex, paired:")
    for key, name in HEADLINE_FIGURES.items():
        found = context["comparison"]["differences"][key]
        if found["difference"] is not None:
            typer.echo(f"  {name:<20}{difference(found['difference'], found['interval'])}")


def _print_headline_figures(figures: Mapping[str, Any]) -> None:
    from dermadeit.metrics.classification import HEADLINE_FIGURES
    from dermadeit.reporting.format import figure

    for key, name in HEADLINE_FIGURES.items():
        if figures[key] is not None:
            typer.echo(f"  {name:<20}{figure(figures[key], figures['intervals'].get(key))}")


def _print_classes(counts: Mapping[str, int]) -> None:
    typer.echo(f"  true classes: {', '.join(f'{key} {count}' for key, count in counts.items())}")


def _print_comparison(content: Mapping[str, Any]) -> None:
    from dermadeit.metrics.classification import HEADLINE_FIGURES
    from dermadeit.reporting.format import counted, difference

    for note in content["notes"]:
        _note(note)
    typer.echo(f"{content['task']}: {counted(content['images'], 'image')} that every model has read")
    for figures in list(content["models"].values())[:1]:
        matrix = figures["confusion_matrix"]
        _print_classes(dict(zip(matrix["classes"], map(sum, matrix["counts"]), strict=True)))
    for title, figures in content["models"].items():
        typer.echo(f"{title}, {counted(figures['views'], 'view')}")
        _print_headline_figures(figures)
    for pair in content["comparisons"]:
        typer.echo(f"{pair['first']} minus {pair['second']}, paired")
        for key, name in HEADLINE_FIGURES.items():
            found = pair["differences"][key]
            if found["difference"] is not None:
                typer.echo(f"  {name:<20}{difference(found['difference'], found['interval'])}")


def _print_calibrations(model: str, trust: Any) -> None:
    from dermadeit.reporting.format import counted

    for calibration in trust.calibrations.values():
        report = calibration.report
        size = f"{counted(report['images'], 'image')} of {counted(report['lesions'], 'lesion')}"
        typer.echo(f"{model}, {calibration.task}: {size}")
        for views, figures in report["views"].items():
            _print_calibrated_views(int(views), figures)
        if calibration.class_weights:
            weights = zip(calibration.classes, calibration.class_weights, strict=True)
            typer.echo(f"  class weights: {', '.join(f'{key} {value:.2f}' for key, value in weights)}")
    _print_fitted_context(trust)
    for name, tried in trust.report["gates"].items():
        if tried:
            typer.echo(
                f"  withheld, {name.replace('_', ' ')}: {tried['refused']} of {tried['images']}, with a warning: "
                f"{tried.get('warned', 'not known')}"
            )


def _print_fitted_context(trust: Any) -> None:
    from dermadeit.metrics.classification import FIGURE_NAMES
    from dermadeit.reporting.format import counted, difference

    context = trust.patient_context
    if context is None:
        typer.echo(trust.report.get("without_patient_context") or "Age and sex were not fitted.")
        return
    report = context.report
    size = f"{counted(report['images'], 'image')} of {counted(report['lesions'], 'lesion')}"
    typer.echo(f"age and sex: {size}; answers with minus without them, on lesions that were not fitted:")
    for key, calibration in context.calibrations.items():
        gains = calibration.report["gain"]
        for name in ("accuracy", "roc_auc", "nll"):
            found = gains[name]
            if found["difference"] is not None:
                shown = difference(found["difference"], found["interval"])
                typer.echo(f"  {key:<12}{FIGURE_NAMES[name]:<46}{shown}")


def _print_calibrated_views(views: int, figures: Mapping[str, Any]) -> None:
    from dermadeit.reporting.format import counted, decimal
    from dermadeit.trust.calibration import operating_point_title

    debiased, plain = (
        " → ".join(decimal(figures[when][name]["value"]) for when in ("before", "after"))
        for name in ("ece_debiased", "ece")
    )
    slope = figures["after"]["calibration_slope"]["value"]
    error = f"calibration error {debiased} (debiased; plain {plain}), slope {decimal(slope)}"
    typer.echo(f"  {counted(views, 'view')}: {figures['scaling']} scaling, {error}")
    for name, point in figures["operating_points"].items():
        sensitivity, specificity = (decimal(point[key]["value"]) for key in ("sensitivity", "specificity"))
        typer.echo(
            f"    {operating_point_title(name):<18}sensitivity {sensitivity}, specificity {specificity}"
        )
