"""The losses: of the class token against the labels, of the distillation token against the teacher.

Every loss is one value an image, so that mixed images can weigh the losses of their two originals.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

SMALLEST_COMPLEMENT = 1e-6


def focal_loss(logits: torch.Tensor, labels: torch.Tensor, gamma: float) -> torch.Tensor:
    """-(1 - p)^gamma log p, p being the probability of the true class.

    Focal loss of Lin et al. 2017 (1708.02002) for softmax outputs, without class weights; gamma 0 is
    cross-entropy.

    Args:
        logits: float [B, K].
        labels: int64 [B], 0 to K - 1.
        gamma: Focusing exponent, 0 or more.

    Returns:
        float [B].
    """
    log_p = F.log_softmax(logits, dim=-1).gather(1, labels[:, None]).squeeze(1)
    # A power below 1 has an infinite slope at 0.
    return -((-torch.expm1(log_p)).clamp_min(SMALLEST_COMPLEMENT) ** gamma) * log_p


def balanced_softmax_loss(
    logits: torch.Tensor, labels: torch.Tensor, class_counts: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy of logits shifted by the log of the class counts (Ren et al. 2020, 2007.10740).

    The logits themselves then answer as if every class were equally frequent.

    Args:
        logits: float [B, K].
        labels: int64 [B], 0 to K - 1.
        class_counts: float [K], images of each class in the train split, each above 0.

    Returns:
        float [B].
    """
    return F.cross_entropy(logits + class_counts.log(), labels, reduction="none")


def cosine_smooth_l1(projected: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """One minus the cosine similarity, plus the smooth-L1 distance averaged over dimensions.

    The embedding loss of AM-RADIO (Ranzinger et al. 2024, 2312.06709) and UNIC (Sariyildiz et al. 2024,
    2408.05088), with equal weights.

    Args:
        projected: The student's projection, float [B, D].
        target: The teacher's embedding, float [B, D], standardised.

    Returns:
        float [B].
    """
    cosine = F.cosine_similarity(projected, target, dim=-1)
    return 1 - cosine + F.smooth_l1_loss(projected, target, reduction="none").mean(dim=-1)


def soft_logits_kl(logits: torch.Tensor, target_logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL(softmax(target / T) || softmax(logits / T)) times T² (Hinton et al. 2015, 1503.02531).

    Args:
        logits: The student's, float [B, K].
        target_logits: The teacher's logits or log-probabilities, float [B, K].
        temperature: T, above 0.

    Returns:
        float [B].
    """
    divergence = F.kl_div(
        F.log_softmax(logits / temperature, dim=-1),
        F.log_softmax(target_logits / temperature, dim=-1),
        reduction="none",
        log_target=True,
    )
    return divergence.sum(dim=-1) * temperature**2
