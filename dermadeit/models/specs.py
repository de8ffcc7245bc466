"""The models that can be trained, served and compared, by name. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from dermadeit.errors import ModelError


@dataclass(frozen=True)
class ModelSpec:
    """What a model name stands for.

    Attributes:
        name: Name used by the CLI, the API and the checkpoint folders.
        title: Name shown to people.
        architecture: timm architecture.
        pretrained: timm's name of the weights that training starts from, and whose normalisation is kept. Those
            of a plain transformer fit its twin with a distillation token.
        body_parameters: Number of parameters without the heads, at `image_size`.
        embedding_dim: Length of the embedding that a head reads.
        image_size: Side of the input in pixels, unless a training chooses another.
        patch_size: Side of a patch in pixels, or None for a convolutional network.
        distilled: Whether there is a distillation token (index 1) beside the class token (index 0).
    """

    name: str
    title: str
    architecture: str
    pretrained: str
    body_parameters: int
    embedding_dim: int
    image_size: int = 224
    patch_size: int | None = None
    distilled: bool = False

    @property
    def is_transformer(self) -> bool:
        """Whether the features are tokens rather than a feature map."""
        return self.patch_size is not None

    def count_parameters(self, num_classes: int) -> int:
        """Number of parameters with so many classes, at `image_size`."""
        heads = 2 if self.distilled else 1
        return self.body_parameters + heads * (self.embedding_dim + 1) * num_classes


_AUGREG = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
"""ViT-tiny of Steiner et al. 2021 (2106.10270), trained on ImageNet-21k; the layers are those of DeiT-tiny."""


def _deit(
    name: str,
    title: str,
    size: str,
    parameters: int,
    embedding_dim: int,
    *,
    distilled: bool,
    pretrained: str = "",
) -> ModelSpec:
    architecture = f"deit_{size}{'_distilled' if distilled else ''}_patch16_224"
    return ModelSpec(
        name,
        title,
        architecture,
        pretrained or f"{architecture}.fb_in1k",
        parameters,
        embedding_dim,
        patch_size=16,
        distilled=distilled,
    )


MODEL_SPECS: Mapping[str, ModelSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            # On held-out lesions AugReg weights were ahead of DeiT's own as a start of either.
            _deit(
                "dermadeit", "DermaDeiT (tiny)", "tiny", 5_524_800, 192, distilled=True, pretrained=_AUGREG
            ),
            _deit("dermadeit-small", "DermaDeiT (small)", "small", 21_666_432, 384, distilled=True),
            _deit("dermadeit-base", "DermaDeiT (base)", "base", 85_800_192, 768, distilled=True),
            _deit("deit", "DeiT (tiny)", "tiny", 5_524_416, 192, distilled=False, pretrained=_AUGREG),
            _deit("deit-small", "DeiT (small)", "small", 21_665_664, 384, distilled=False),
            _deit("deit-base", "DeiT (base)", "base", 85_798_656, 768, distilled=False),
            ModelSpec(
                "vit-augreg",
                "ViT-tiny (AugReg)",
                "vit_tiny_patch16_224",
                _AUGREG,
                5_524_416,
                192,
                patch_size=16,
            ),
            ModelSpec(
                "mobilenetv2", "MobileNetV2", "mobilenetv2_100", "mobilenetv2_100.ra_in1k", 2_223_872, 1280
            ),
            ModelSpec(
                "efficientnetv2-b0",
                "EfficientNetV2-B0",
                "tf_efficientnetv2_b0",
                "tf_efficientnetv2_b0.in1k",
                5_858_704,
                1280,
            ),
            ModelSpec(
                "efficientnetv2-s",
                "EfficientNetV2-S",
                "tf_efficientnetv2_s",
                "tf_efficientnetv2_s.in21k_ft_in1k",
                20_177_488,
                1280,
            ),
            ModelSpec(
                "dinov2",
                "DINOv2 (ViT-S/14)",
                "vit_small_patch14_dinov2",
                "vit_small_patch14_dinov2.lvd142m",
                21_628_800,
                384,
                patch_size=14,
            ),
        )
    }
)

COMPARED_MODELS = ("dermadeit", "deit", "mobilenetv2", "efficientnetv2-b0", "dinov2")
"""Names of the student and its baselines, in the order in which they are shown."""

OURS = "dermadeit"
"""The model that all others are compared with."""


def get_spec(name: str) -> ModelSpec:
    """Returns the spec called `name`; raises `ModelError` for an unknown one."""
    try:
        return MODEL_SPECS[name]
    except KeyError:
        raise ModelError(f"There is no model “{name}”. Choose one of {', '.join(MODEL_SPECS)}.") from None


def model_name(model: str) -> str:
    """A model's name for people."""
    spec = MODEL_SPECS.get(model)
    return spec.title if spec else model
