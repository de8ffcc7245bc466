"""How much memory a training step needs, to choose a batch size for a GPU that is not there.

    python -m benchmarks.speed.training_memory --gigabytes 16

Counts what autograd keeps for the backward pass of a step under autocast, in 16 bits where that computes in 16
bits, plus weights, gradients, AdamW's two moments and the moving average in 32 bits. Measured on the CPU, without
a GPU: kernels' own workspace and the allocator's fragmentation are not in it, so a fifth of the memory is left
free.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from dermadeit.files import write_json
from dermadeit.models.classifier import create_classifier

MODELS = ("dermadeit", "dermadeit-small", "dermadeit-base")
MEASURED_BATCH = 4
BYTES_A_PARAMETER = 20
FREE_SHARE = 0.2


def measure_memory(model: str, image_size: int) -> dict[str, float]:
    """Bytes of a training step: `fixed`, and `per_image`."""
    classifier = create_classifier(model, 2, image_size=image_size, drop_path_rate=0.1).train()
    own = {parameter.data_ptr() for parameter in classifier.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    images = torch.randn(MEASURED_BATCH, 3, image_size, image_size)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16),
    ):
        loss = classifier(images).float().logsumexp(dim=-1).mean()
    loss.backward()
    parameters = sum(parameter.numel() for parameter in classifier.parameters())
    return {"fixed": BYTES_A_PARAMETER * parameters, "per_image": sum(kept.values()) / MEASURED_BATCH}


def main() -> None:
    """Prints the largest batch, a power of two, of each model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=16.0, help="memory of the GPU")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    options = parser.parse_args()
    figures = {}
    for model in MODELS:
        memory = measure_memory(model, options.image_size)
        room = options.gigabytes * (1 - FREE_SHARE) * 2**30 - memory["fixed"]
        batch = 1 << max(int(room / memory["per_image"]), 1).bit_length() - 1
        figures[model] = {**memory, "largest_batch": batch}
        print(  # noqa: T201
            f"{model:<18}{memory['fixed'] / 2**20:>8.0f} MiB + {memory['per_image'] / 2**20:>6.1f} MiB an image: "
            f"batches up to {batch}"
        )
    if options.output:
        write_json(options.output, {"gigabytes": options.gigabytes, "models": figures})


if __name__ == "__main__":
    main()
