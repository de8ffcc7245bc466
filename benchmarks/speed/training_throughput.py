"""Images a second of our training input against the original's, side by side in one run.

    python -m benchmarks.speed.training_throughput --output throughput.json

On synthetic lesions of 600 × 450 pixels, written for the occasion, it times

- input: from the files to normalised, augmented batches on the device. The original decodes, resizes and
  transforms image by image with MONAI, in every epoch. Ours decodes and resizes once for as long as the pixels
  fit into memory (a training does so with `--workers 0`), and augments a batch at a time. Each is timed both
  ways, decoding and from memory, so that it shows what caching brings and what augmenting by batches does.
- training: whole steps of the model (forward, focal loss, backward, AdamW) fed by each input, and the step
  alone, which gets the same batch again and again.

All arms take turns in every repetition, and a ratio is taken within one repetition: another load on the machine
then spoils a repetition, not a comparison. Reported are the median over the repetitions and its 95 % interval. On
a core that other programs use too, `--cpu-time` with OMP_NUM_THREADS=1 counts only what this one gets.
"""

from __future__ import annotations

import argparse
import logging
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from functools import partial
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import torch
from timm.layers import set_fused_attn

from benchmarks.speed.rounds import divide, summarise, take_turns
from benchmarks.speed.row import FLOOR, OURS, PEER, Ratio, make_row, times_the_peer
from dermadeit.data.dataset import PIXEL_CACHE_BYTES, LesionDataset
from dermadeit.data.manifest import Manifest, read_source
from dermadeit.data.synthetic import write_dataset
from dermadeit.files import write_json
from dermadeit.imaging.preprocessing import Preprocessing
from dermadeit.models.classifier import create_classifier
from dermadeit.tasks import get_task
from train.augment.augmentation import BatchAugmentation
from train.configuration import TrainingConfiguration
from train.loaders import create_train_loader
from train.losses import focal_loss
from train.original import OriginalDataset

logger = logging.getLogger("benchmarks.speed.training_throughput")

LESIONS = 32
PICTURE_SIZE = (600, 450)

Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]

ORIGINAL_INPUT, OUR_INPUT = "input: original, decoding", "input: ours, from memory"
ORIGINAL_TRAINING, OUR_TRAINING = "training: original, decoding", "training: ours, from memory"
ALONE = "training: step alone"
RATIOS = (
    (OUR_INPUT, ORIGINAL_INPUT, "at least 5"),
    ("input: ours, decoding", ORIGINAL_INPUT, ""),
    (OUR_INPUT, "input: original, from memory", ""),
    (OUR_TRAINING, ORIGINAL_TRAINING, ""),
    (OUR_TRAINING, ALONE, "at least 0.9"),
    (ORIGINAL_TRAINING, ALONE, ""),
)
"""Which arm is divided by which, and what is asked of the quotient."""


def original_batches(manifest: Manifest, configuration: TrainingConfiguration, cache_bytes: int) -> Batches:
    """Endless batches of the original's pipeline: float32 [B, 3, S, S] and labels [B], on the device."""
    preprocessing = Preprocessing(configuration.model.image_size, per_image_zscore=True)
    dataset = OriginalDataset(LesionDataset(manifest, preprocessing, cache_bytes))
    loader = create_train_loader(dataset, configuration, torch.Generator().manual_seed(0))
    device = configuration.run.resolve_device()
    while True:
        for pixels, labels, _ in loader:
            yield pixels.to(device), labels.to(device)


def our_batches(manifest: Manifest, configuration: TrainingConfiguration, cache_bytes: int) -> Batches:
    """Endless batches of our pipeline: float32 [B, 3, S, S] and labels [B], on the device."""
    preprocessing = Preprocessing(configuration.model.image_size)
    dataset = LesionDataset(manifest, preprocessing, cache_bytes)
    generator = torch.Generator().manual_seed(0)
    loader = create_train_loader(dataset, configuration, generator)
    device = configuration.run.resolve_device()
    augmentation = BatchAugmentation(configuration.augmentation, preprocessing.size, device)
    views = torch.tensor(configuration.augmentation.views)
    while True:
        for pixels, labels, _ in loader:
            drawn = views[torch.randint(len(views), (len(labels),), generator=generator)]
            images = augmentation(pixels.to(device).float().div_(255), drawn, generator)
            yield preprocessing.normalise(images), labels.to(device)


def create_step(
    configuration: TrainingConfiguration, classes: int
) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """Builds a model with random weights, and returns what trains it by one step on images and labels."""
    device = configuration.run.resolve_device()
    precision = configuration.run.resolve_precision(device)
    # As the training does: on a CPU the plain attention's backward is the faster one.
    set_fused_attn(device.type != "cpu")
    torch.manual_seed(0)
    classifier = create_classifier(
        configuration.model.model,
        classes,
        image_size=configuration.model.image_size,
        drop_path_rate=configuration.model.drop_path,
    ).to(device)
    # The types of torch leave this argument out.
    options: dict[str, Any] = {"memory_format": torch.channels_last}
    classifier.to(**options)
    optimizer = torch.optim.AdamW(classifier.train().parameters(), lr=1e-5)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    fast = torch.float16 if precision == "fp16" else torch.bfloat16

    def step(images: torch.Tensor, labels: torch.Tensor) -> None:
        with torch.autocast(device.type, fast, enabled=precision != "fp32"):
            logits = classifier(images)
        loss = focal_loss(logits.float(), labels, configuration.loss.gamma).mean()
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    return step


def measure(
    configuration: TrainingConfiguration,
    rounds: int,
    batches: int = 1,
    *,
    only: Collection[str] = (),
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Times the arms on synthetic lesions.

    Args:
        configuration: Model, size and batch.
        rounds: Turns of each arm; one more goes first and isn't counted.
        batches: How many an arm takes in a turn.
        only: Names of the arms to time; none for all.
        clock: Gives seconds.

    Returns:
        Name to seconds of each turn.
    """
    with tempfile.TemporaryDirectory() as folder:
        table = write_dataset(
            Path(folder), lesions=LESIONS, seed=0, images_per_lesion=(1, 1), size=PICTURE_SIZE
        )
        manifest = read_source(table, get_task(configuration.data.task))
        arms = create_arms(manifest, configuration, batches)
        chosen = {name: run for name, run in arms.items() if not only or name in only}
        return take_turns(chosen, least=rounds, most=rounds, clock=clock)


def measure_rows(image_size: int, rounds: int) -> list[dict[str, Any]]:
    """The rows of training in the table of `benchmarks.speed.bench`; the peer is the original's pipeline.

    Args:
        image_size: Side of the network's input, in pixels.
        rounds: Turns of each arm.
    """
    configuration = TrainingConfiguration.create(model="deit", image_size=image_size, batch_size=LESIONS)
    arms = (ORIGINAL_INPUT, OUR_INPUT, ORIGINAL_TRAINING, OUR_TRAINING, ALONE)
    measured = measure(configuration, rounds, only=arms)
    return [
        make_row(
            f"Training input, batches of {LESIONS}",
            "photos/s",
            {PEER: measured[ORIGINAL_INPUT], OURS: measured[OUR_INPUT]},
            [times_the_peer("at least 5")],
            amount=LESIONS,
        ),
        make_row(
            f"Training steps, batches of {LESIONS}",
            "photos/s",
            {PEER: measured[ORIGINAL_TRAINING], OURS: measured[OUR_TRAINING], FLOOR: measured[ALONE]},
            [times_the_peer(), Ratio(FLOOR, OURS, "of our step is the network alone", "at least 0.9")],
            amount=LESIONS,
        ),
    ]


def main(arguments: list[str] | None = None) -> None:
    """Measures, logs a table, and writes it as JSON where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="deit", help="an undistilled model of MODEL_SPECS")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--repetitions", type=int, default=8)
    parser.add_argument("--batches", type=int, default=1, help="batches an arm takes in a turn")
    parser.add_argument("--cpu-time", action="store_true", help="count CPU seconds of this process, not time")
    parser.add_argument("--output", type=Path, help="a JSON file to write")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    configuration = TrainingConfiguration.create(
        model=options.model,
        image_size=options.image_size,
        batch_size=options.batch_size,
        device=options.device,
    )
    clock = time.process_time if options.cpu_time else time.perf_counter
    measured = measure(configuration, options.repetitions, options.batches, clock=clock)
    images = options.batches * options.batch_size
    report = {
        "conditions": describe(configuration, options),
        "images_per_second": {
            name: summarise([images / value for value in values]) for name, values in measured.items()
        },
        "ratios": [
            {"of": of, "to": to, "asked": asked} | summarise(divide(measured[to], measured[of]))
            for of, to, asked in RATIOS
        ],
    }
    log_table(report)
    if options.output:
        write_json(options.output, report)


def create_arms(
    manifest: Manifest, configuration: TrainingConfiguration, count: int
) -> dict[str, Callable[[], None]]:
    """Name of each arm to what runs `count` batches of it."""
    inputs = {
        f"{whose}, {how}": batches(manifest, configuration, cache_bytes)
        for whose, batches in (("original", original_batches), ("ours", our_batches))
        for how, cache_bytes in (("decoding", 0), ("from memory", PIXEL_CACHE_BYTES))
    }
    for name in ("original, from memory", "ours, from memory"):
        fill = -(-4 * len(manifest.rows) // configuration.optimisation.batch_size)
        for _ in islice(inputs[name], fill):
            pass
    step = create_step(configuration, len(manifest.task.classes))
    same = next(inputs["ours, from memory"])

    def consume(batches: Batches) -> None:
        for _ in islice(batches, count):
            pass
        _wait_for_gpu()

    def train_on(batches: Batches) -> None:
        for images, labels in islice(batches, count):
            step(images, labels)
        _wait_for_gpu()

    return (
        {f"input: {name}": partial(consume, batches) for name, batches in inputs.items()}
        | {
            f"training: {name}": partial(train_on, inputs[name])
            for name in ("original, decoding", "ours, from memory")
        }
        | {ALONE: partial(train_on, repeat(same))}
    )


def _wait_for_gpu() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def describe(configuration: TrainingConfiguration, options: argparse.Namespace) -> dict:
    """What the figures hold for."""
    device = configuration.run.resolve_device()
    return {
        "model": configuration.model.model,
        "image_size": configuration.model.image_size,
        "batch_size": configuration.optimisation.batch_size,
        "precision": configuration.run.resolve_precision(device),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "pictures": list(PICTURE_SIZE),
        "repetitions": options.repetitions,
        "batches": options.batches,
        "seconds": "of CPU" if options.cpu_time else "of time",
    }


def log_table(report: dict) -> None:
    """Logs the conditions, the throughputs and the ratios."""
    logger.info("%s", ", ".join(f"{name} {value}" for name, value in report["conditions"].items()))
    logger.info("\n%-70s %8s  %s", "images a second", "median", "95 % interval")
    for name, figures in report["images_per_second"].items():
        logger.info("%-70s %8.1f  %.1f to %.1f", name, figures["median"], *figures["interval"])
    logger.info("\n%-70s %8s  %s", "ratio", "median", "95 % interval")
    for ratio in report["ratios"]:
        logger.info(
            "%-70s %8.2f  %.2f to %.2f  %s",
            f"{ratio['of']} / {ratio['to']}",
            ratio["median"],
            *ratio["interval"],
            ratio["asked"] and f"(asked: {ratio['asked']})",
        )


if __name__ == "__main__":
    main()
