"""The network that is trained: a classifier, and what its distillation token is compared through."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from dermadeit.models.classifier import LesionClassifier
from train.configuration import TrainingConfiguration
from train.original import relu_projector

PROJECTOR_EXPANSION = 4


class StudentOutput(NamedTuple):
    """What a student says about B images.

    Attributes:
        logits: From the class token, float [B, K].
        projected: Distillation token in each of the teacher's spaces, float [B, spaces, D]; None where no
            embeddings are compared.
        distillation_logits: From a head of their own, float [B, C]; None where the answering head is distilled.
    """

    logits: torch.Tensor
    projected: torch.Tensor | None
    distillation_logits: torch.Tensor | None


class Student(nn.Module):
    """A classifier whose distillation embedding is projected into the teacher's embedding spaces.

    Projector and distillation head serve training only; a model without a distillation token hangs both on the
    embedding that it classifies.

    Args:
        classifier: Answers with the class token.
        configuration: Says which output and projector.
        spaces: Number of embedding spaces of the teacher: cross-fitted networks have one a fold. 0 without a
            teacher.
        teacher_dim: Length of an embedding in each of them.
        teacher_classes: Number of the teacher's soft logits, C.
    """

    def __init__(
        self,
        classifier: LesionClassifier,
        configuration: TrainingConfiguration,
        spaces: int = 0,
        teacher_dim: int = 0,
        teacher_classes: int = 0,
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.spaces = spaces
        self._distil_from = configuration.teacher.distil_from
        self.projector = self.distillation_head = None
        if not spaces:
            return
        if configuration.loss.alpha and teacher_dim:
            create = relu_projector if configuration.teacher.projector == "relu" else _projector
            self.projector = create(classifier.embedding_dim, spaces * teacher_dim)
        if configuration.loss.logit_weight and configuration.teacher.distil_into == "distillation_head":
            own_fits = classifier.spec.distilled and teacher_classes == classifier.head.out_features
            self.distillation_head = (
                classifier.backbone.head_dist
                if own_fits
                else nn.Linear(classifier.embedding_dim, teacher_classes)
            )

    @property
    def training_only(self) -> list[nn.Module]:
        """The modules beside the classifier."""
        of_backbone = getattr(self.classifier.backbone, "head_dist", None)
        modules = (self.projector, self.distillation_head)
        return [module for module in modules if module is not None and module is not of_backbone]

    def forward(self, images: torch.Tensor) -> StudentOutput:
        """Normalised images, float [B, 3, S, S], to a `StudentOutput`."""
        features = self.classifier.backbone.forward_features(images)
        class_embedding, embedding = self.classifier.pool(features)
        logits = self.classifier.head(class_embedding)
        if self._distil_from == "last_patch":
            embedding = features[:, -1]
        elif self._distil_from == "class_token":
            embedding = class_embedding
        projected = distillation_logits = None
        if self.projector is not None:
            projected = self.projector(embedding).unflatten(-1, (self.spaces, -1))
        if self.distillation_head is not None:
            distillation_logits = self.distillation_head(embedding)
        return StudentOutput(logits, projected, distillation_logits)


def _projector(dim: int, teacher_dim: int) -> nn.Sequential:
    hidden = PROJECTOR_EXPANSION * dim
    return nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, teacher_dim))
