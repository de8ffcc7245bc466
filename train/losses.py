"""The losses: of the class token against labels and teacher, of the distillation token against the teacher.

Every loss is one value an image, so that mixed images can weigh the losses of their two originals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


def shift_by_prior(logits: torch.Tensor, class_counts: torch.Tensor, strength: float) -> torch.Tensor:
    """Logits plus the log class frequencies (logit adjustment, Menon et al. 2021, 2007.07314).

    Trained so, the logits themselves answer as if the classes were more even: with strength 1 equally frequent,
    which is balanced softmax (Ren et al. 2020, 2007.10740).

    Args:
        logits: float [B, K].
        class_counts: float [K], images of each class in the train split, each above 0.
        strength: 0 leaves the logits as they are.

    Returns:
        float [B, K], answers under the frequencies of the train split.
    """
    return logits + strength * (class_counts / class_counts.sum()).log() if strength else logits


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


def mean_over_networks(
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    projected: torch.Tensor,
    target: torch.Tensor,
    dims: Sequence[int],
) -> torch.Tensor:
    """An embedding loss for each network of a teacher, and their mean: a wide network weighs no more than others.

    Args:
        loss: Of float [B, d] against float [B, d], giving float [B].
        projected: The student's projection, float [B, D].
        target: The networks' embeddings side by side, float [B, D].
        dims: Length of each network's embedding, D in all.

    Returns:
        float [B].
    """
    parts = zip(projected.split(list(dims), dim=-1), target.split(list(dims), dim=-1), strict=True)
    return torch.stack([loss(own, of_teacher) for own, of_teacher in parts]).mean(dim=0)
