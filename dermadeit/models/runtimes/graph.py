"""A checkpoint's network as an OpenVINO graph, made of its weights alone.

OpenVINO's own converter would need torch and timm, which take seconds to import, and seconds more to trace a
network; and it tells its makers of its use. The networks of `specs` are few and plain: they are written down here,
in milliseconds, and tests hold each against timm's.

Shapes: M images (views of photos), of which P are kept; S side; T tokens of D numbers; C channels; K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from dermadeit.models.runtimes.openvino_import import openvino
from dermadeit.models.specs import ModelSpec

LOGITS, CLASS_EMBEDDING, DISTILLATION_EMBEDDING, SHALLOW, TOKENS = (
    "logits",
    "class_embedding",
    "distillation_embedding",
    "shallow",
    "tokens",
)
"""Names of the outputs: float32 [M, K], [P, D], [P, D], [P, C] and, of a transformer, [P, T, D]."""

SHALLOW_BLOCK = 2
"""Index of the block (of the stage of a convolutional network) whose output is the shallow embedding's."""

_HEAD_DIM = 64
_LAYER_NORM_EPSILON = 1e-6

Node = Any
"""A node of the graph; OpenVINO's operators return them under many types."""

Weights = Mapping[str, np.ndarray]


def build_graph(spec: ModelSpec, weights: Weights, size: int) -> Any:
    """An OpenVINO model of a network.

    Args:
        spec: What the weights are of.
        weights: timm's names to float16 or float32 values, as `Checkpoint.weights`.
        size: Side of the input, in pixels.

    Returns:
        An `openvino.Model`. Its inputs: `images` uint8 [M, 3, S, S]; `scale` and `shift`, float32 [M, 3, 1, 1],
        which standardise them (`scale` · image + `shift`); `kept`, int64 [P], indices of the images whose
        embeddings are wanted. Its outputs are those named above.

    Raises:
        KeyError: The weights are not those of this network.
        RuntimeError: The same, as OpenVINO says it.
    """
    ov = openvino()
    op = ov.opset13
    images = op.parameter([-1, 3, size, size], np.uint8, name="images")
    scale = op.parameter([-1, 3, 1, 1], np.float32, name="scale")
    shift = op.parameter([-1, 3, 1, 1], np.float32, name="shift")
    kept = op.parameter([-1], np.int64, name="kept")
    standardised = op.add(op.multiply(op.convert(images, "f32"), scale), shift)
    build = _transformer if spec.is_transformer else _convolutional
    outputs = build(op, spec, {key: _as_float(values) for key, values in weights.items()}, standardised)
    results = []
    for name, node in outputs.items():
        wanted = node if name == LOGITS else op.gather(node, kept, op.constant(0, dtype=np.int64))
        result = op.result(wanted)
        result.output(0).tensor.set_names({name})
        results.append(result)
    for parameter in (images, scale, shift, kept):
        parameter.output(0).tensor.set_names({parameter.get_friendly_name()})
    return ov.Model(results, [images, scale, shift, kept], spec.name)


def _as_float(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32) if values.dtype == np.float16 else values


def _transformer(op: Any, spec: ModelSpec, weights: Weights, images: Node) -> dict[str, Node]:
    kernel = weights["patch_embed.proj.weight"]
    patches = op.convolution(images, kernel, kernel.shape[2:], [0, 0], [0, 0], [1, 1])
    patches = op.reshape(patches, _shape(op, 0, kernel.shape[0], -1), special_zero=True)
    tokens = op.add(op.transpose(patches, _shape(op, 0, 2, 1)), weights["patch_embed.proj.bias"])
    prefix = [weights[name] for name in ("cls_token", "dist_token") if name in weights]
    count = len(prefix)
    batch = op.gather(op.shape_of(images), _shape(op, 0), op.constant(0, dtype=np.int64))
    repeated = op.concat([batch, _shape(op, count, kernel.shape[0])], 0)
    tokens = op.concat([op.broadcast(np.concatenate(prefix, axis=1), repeated), tokens], 1)
    tokens = op.add(tokens, weights["pos_embed"])
    blocks = 1 + max(int(key.split(".")[1]) for key in weights if key.startswith("blocks."))
    before_last = shallow = tokens
    for index in range(blocks):
        before_last = tokens
        block = partial(_named, weights, f"blocks.{index}")
        tokens = _transformer_block(op, block, tokens)
        if index == SHALLOW_BLOCK:
            end = op.slice(tokens, _shape(op, count), _shape(op, 2**31), _shape(op, 1), _shape(op, 1))
            shallow = op.reduce_mean(end, _shape(op, 1))
    tokens = _layer_norm(op, partial(_named, weights, "norm"), tokens)

    def token(index: int) -> Node:
        return op.gather(tokens, op.constant(index, dtype=np.int64), op.constant(1, dtype=np.int64))

    return {
        LOGITS: _linear(op, partial(_named, weights, "head"), token(0)),
        CLASS_EMBEDDING: token(0),
        DISTILLATION_EMBEDDING: token(1 if spec.distilled else 0),
        SHALLOW: shallow,
        TOKENS: before_last,
    }


def _transformer_block(op: Any, block: Callable[[str], np.ndarray | None], tokens: Node) -> Node:
    width = len(_given(block("norm1.weight")))
    heads = width // _HEAD_DIM
    normalised = _layer_norm(op, lambda name: block(f"norm1.{name}"), tokens)
    qkv = _linear(op, lambda name: block(f"attn.qkv.{name}"), normalised)
    qkv = op.reshape(qkv, _shape(op, 0, 0, 3, heads, _HEAD_DIM), special_zero=True)
    qkv = op.transpose(qkv, _shape(op, 2, 0, 3, 1, 4))
    parts = [op.gather(qkv, op.constant(i, dtype=np.int64), op.constant(0, dtype=np.int64)) for i in range(3)]
    attended = op.transpose(op.scaled_dot_product_attention(*parts), _shape(op, 0, 2, 1, 3))
    attended = op.reshape(attended, _shape(op, 0, 0, width), special_zero=True)
    attended = _linear(op, lambda name: block(f"attn.proj.{name}"), attended)
    tokens = op.add(tokens, _layer_scale(op, block("ls1.gamma"), attended))
    normalised = _layer_norm(op, lambda name: block(f"norm2.{name}"), tokens)
    hidden = op.gelu(_linear(op, lambda name: block(f"mlp.fc1.{name}"), normalised), "erf")
    hidden = _linear(op, lambda name: block(f"mlp.fc2.{name}"), hidden)
    return op.add(tokens, _layer_scale(op, block("ls2.gamma"), hidden))


def _layer_norm(op: Any, weights: Callable[[str], np.ndarray | None], tokens: Node) -> Node:
    centred = op.mvn(
        tokens, _shape(op, -1), normalize_variance=True, eps=_LAYER_NORM_EPSILON, eps_mode="inside_sqrt"
    )
    return op.add(op.multiply(centred, _given(weights("weight"))), _given(weights("bias")))


def _layer_scale(op: Any, gamma: np.ndarray | None, values: Node) -> Node:
    return values if gamma is None else op.multiply(values, gamma)


def _linear(op: Any, weights: Callable[[str], np.ndarray | None], values: Node) -> Node:
    product = op.matmul(values, _given(weights("weight")), transpose_a=False, transpose_b=True)
    return op.add(product, _given(weights("bias")))


_STRIDES = {
    "mobilenetv2_100": (1, 2, 2, 2, 1, 2, 1),
    "tf_efficientnetv2_b0": (1, 2, 2, 2, 1, 2),
    "tf_efficientnetv2_s": (1, 2, 2, 2, 1, 2),
}
"""Stride of the first block of each stage, the only thing that the weights don't tell."""


def _convolutional(op: Any, spec: ModelSpec, weights: Weights, images: Node) -> dict[str, Node]:
    network = _Convolutions(op, weights, ported=spec.architecture.startswith("tf_"))
    values = network.activated(images, "conv_stem", "bn1", stride=2)
    shallow = values
    for stage, stride in enumerate(_STRIDES[spec.architecture]):
        block = 0
        while any(key.startswith(f"blocks.{stage}.{block}.") for key in weights):
            values = network.block(values, f"blocks.{stage}.{block}", stride if block == 0 else 1)
            block += 1
        if stage == SHALLOW_BLOCK:
            shallow = network.pooled(values)
    embedding = network.pooled(network.activated(values, "conv_head", "bn2"))
    return {
        LOGITS: _linear(op, partial(_named, weights, "classifier"), embedding),
        CLASS_EMBEDDING: embedding,
        DISTILLATION_EMBEDDING: embedding,
        SHALLOW: shallow,
    }


class _Convolutions:
    """The blocks of timm's EfficientNet family, which tell by their layers' names what they are."""

    def __init__(self, op: Any, weights: Weights, *, ported: bool) -> None:
        self._op = op
        self._weights = weights
        # Networks ported from TensorFlow pad, norm and bend as they do there.
        self._padding = "same_upper" if ported else "explicit"
        self._epsilon = 1e-3 if ported else 1e-5
        self._activate: Callable[[Node], Node] = op.swish if ported else lambda values: op.clamp(values, 0, 6)

    def block(self, values: Node, name: str, stride: int) -> Node:
        """One block, with its way around where the shapes allow one."""

        def has(layer: str) -> bool:
            return f"{name}.{layer}.weight" in self._weights

        into = values.get_output_partial_shape(0)[1]
        if has("conv"):
            out = self.activated(values, f"{name}.conv", f"{name}.bn1", stride)
        elif has("conv_exp"):
            out = self.activated(values, f"{name}.conv_exp", f"{name}.bn1", stride)
            out = self._normed(out, f"{name}.conv_pwl", f"{name}.bn2")
        elif has("conv_pwl"):
            out = self.activated(values, f"{name}.conv_pw", f"{name}.bn1")
            out = self._squeezed(self.activated(out, f"{name}.conv_dw", f"{name}.bn2", stride), f"{name}.se")
            out = self._normed(out, f"{name}.conv_pwl", f"{name}.bn3")
        else:
            out = self._squeezed(
                self.activated(values, f"{name}.conv_dw", f"{name}.bn1", stride), f"{name}.se"
            )
            out = self._normed(out, f"{name}.conv_pw", f"{name}.bn2")
        same = stride == 1 and into == out.get_output_partial_shape(0)[1]
        return self._op.add(values, out) if same else out

    def activated(self, values: Node, convolution: str, norm: str, stride: int = 1) -> Node:
        """Convolution, batch norm, activation."""
        return self._activate(self._normed(values, convolution, norm, stride))

    def pooled(self, values: Node) -> Node:
        """The mean over the positions: [M, C, h, w] to [M, C]."""
        return self._op.reduce_mean(values, _shape(self._op, 2, 3))

    def _normed(self, values: Node, convolution: str, norm: str, stride: int = 1) -> Node:
        kernel = self._weights[f"{convolution}.weight"]
        weight, bias, mean, variance = (
            self._weights[f"{norm}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        gain = weight / np.sqrt(variance + self._epsilon)
        kernel = kernel * gain[:, None, None, None]
        out = self._convolved(values, kernel, stride)
        return self._op.add(out, (bias - mean * gain)[None, :, None, None])

    def _convolved(self, values: Node, kernel: np.ndarray, stride: int) -> Node:
        pad = [side // 2 for side in kernel.shape[2:]]
        place = ([stride, stride], pad, pad, [1, 1], self._padding)
        channels = values.get_output_partial_shape(0)[1].get_length()
        if kernel.shape[1] == channels:
            return self._op.convolution(values, kernel, *place)
        return self._op.group_convolution(values, kernel[:, None], *place)

    def _squeezed(self, values: Node, name: str) -> Node:
        """Squeeze and excitation, where there is one."""
        if f"{name}.conv_reduce.weight" not in self._weights:
            return values
        gate = self._op.reduce_mean(values, _shape(self._op, 2, 3), keep_dims=True)
        for layer, activate in (("conv_reduce", self._activate), ("conv_expand", self._op.sigmoid)):
            gate = self._convolved(gate, self._weights[f"{name}.{layer}.weight"], 1)
            gate = activate(self._op.add(gate, self._weights[f"{name}.{layer}.bias"][None, :, None, None]))
        return self._op.multiply(values, gate)


def _named(weights: Weights, prefix: str, name: str) -> np.ndarray | None:
    return weights.get(f"{prefix}.{name}")


def _given(values: np.ndarray | None) -> np.ndarray:
    if values is None:
        raise KeyError("a weight is missing")
    return values


def _shape(op: Any, *sizes: int) -> Node:
    return op.constant(np.array(sizes, dtype=np.int64))
