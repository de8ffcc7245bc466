"""What the first layers of a network see of an image: colours and texture, before any diagnosis.

They change little in training, and tell photos of skin from others better than the embeddings that the answer is
read from: those are made to tell lesions apart, and place what is no lesion wherever it happens to fall.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dermadeit.models import LesionClassifier

SHALLOW_BLOCK = 2
"""Index of the block whose output is taken; blocks 1 to 4 of a DeiT-tiny serve about as well."""


@contextmanager
def recording_shallow_embeddings(classifier: LesionClassifier) -> Iterator[list[torch.Tensor]]:
    """Collects the shallow embeddings of every batch that goes through a classifier meanwhile.

    Not for several threads at a time: hold the predictor's lock.

    Yields:
        A list to which each pass of a batch of B images appends a tensor [B, C]: the mean patch token of a
        transformer, or the mean over the positions of a convolutional network's feature map.
    """
    backbone, recorded = classifier.backbone, []

    def record(_block: torch.nn.Module, _inputs: tuple, features: torch.Tensor) -> None:
        if classifier.spec.is_transformer:
            recorded.append(features[:, backbone.num_prefix_tokens :].mean(dim=1))
        else:
            recorded.append(features.mean(dim=(2, 3)))

    handle = backbone.blocks[SHALLOW_BLOCK].register_forward_hook(record)
    try:
        yield recorded
    finally:
        handle.remove()
