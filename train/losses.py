"""The two terms of the objective: focal loss on the labels, KL divergence to the teacher's embedding."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def focal_loss(logits: torch.Tensor, labels: torch.Tensor, gamma: float) -> torch.Tensor:
    """Mean of -(1 - p)^gamma log p over the batch, p being the probability of the true class.

    Focal loss of Lin et al. 2017 (1708.02002) for softmax outputs, without class weights; gamma 0 is
    cross-entropy.

    Args:
        logits: float [B, K].
        labels: int64 [B], 0 to K - 1.
        gamma: Focusing exponent, 0 or more.
    """
    log_p = F.log_softmax(logits, dim=-1).gather(1, labels[:, None]).squeeze(1)
    return (-((1 - log_p.exp()) ** gamma) * log_p).mean()


def embedding_kl(projected: torch.Tensor, target: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL(softmax(target / T) || softmax(projected / T)) times T², averaged over the batch.

    Distribution matching as in Hinton et al. 2015 (1503.02531), applied to an embedding instead of logits.

    Args:
        projected: The student's projection, float [B, D].
        target: The teacher's embedding, float [B, D].
        temperature: T, above 0.
    """
    divergence = F.kl_div(
        F.log_softmax(projected / temperature, dim=-1),
        F.log_softmax(target / temperature, dim=-1),
        reduction="batchmean",
        log_target=True,
    )
    return divergence * temperature**2
