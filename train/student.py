"""The network that is trained: a classifier, and a projector on its distillation token."""

from __future__ import annotations

import torch
from torch import nn

from dermadeit.models import LesionClassifier

PROJECTOR_EXPANSION = 4


class Student(nn.Module):
    """A classifier whose distillation embedding is projected into the teacher's space.

    The projector serves training only; checkpoints hold the classifier.

    Attributes:
        classifier: Answers with the class token.
        projector: Two layers from the distillation embedding to the teacher's, or None without a teacher.
    """

    def __init__(self, classifier: LesionClassifier, teacher_dim: int | None) -> None:
        super().__init__()
        self.classifier = classifier
        dim = classifier.embedding_dim
        self.projector = teacher_dim and nn.Sequential(
            nn.Linear(dim, PROJECTOR_EXPANSION * dim),
            nn.GELU(),
            nn.Linear(PROJECTOR_EXPANSION * dim, teacher_dim),
        )

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Normalised images [B, 3, S, S] to logits [B, K] and projection [B, teacher_dim] or None."""
        class_embedding, distillation_embedding = self.classifier.embed(images)
        logits = self.classifier.head(class_embedding)
        return logits, self.projector(distillation_embedding) if self.projector else None
