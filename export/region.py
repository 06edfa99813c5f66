"""Which part of a network runs in int8: the longest run of layers that integer kernels compute, from the first linear
layer on. What lies before it and behind it stays float."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from export.network import (
    Activation,
    BatchNormalization,
    Conv1D,
    Dense,
    GlobalPooling1D,
    Layer,
    Network,
    Normalization,
    Pooling1D,
    Reshape,
    Shape,
    ZeroPadding1D,
    output_shape,
)
from toolkit.errors import ExportError

FUSED = ("relu", "relu6")  # activations that integer kernels apply while they narrow their sums


@dataclass(frozen=True)
class Parts:
    """A network in three. shape: of what enters `inside`.

    Attributes:
        before: float, ending in what becomes codes.
        inside: int8. Every Activation in it is fused into the Conv1D or Dense right before it.
        behind: float, from the codes' real numbers to the logits; never empty.
    """

    before: tuple[Layer, ...]
    inside: tuple[Layer, ...]
    behind: tuple[Layer, ...]
    shape: Shape


def split(network: Network, *, first_layer_float: bool) -> Parts:
    """The network in three parts, whose layers one after the other are the network's.

    Args:
        first_layer_float: keep the first linear layer, its activation and the pooling behind it float.
    Raises:
        ExportError: nothing is left for int8.
    """
    layers = network.layers
    linear = [index for index, layer in enumerate(layers[:-1]) if isinstance(layer, Conv1D | Dense)]
    begin = linear[0] if linear else 0
    if linear and first_layer_float:
        begin += 1
        while isinstance(layers[begin], Activation | Pooling1D):
            begin += 1
    end = begin
    while end < len(layers) - 1 and _is_integer(layers, end, begin):
        end += 1
    if not any(isinstance(layer, Conv1D | Dense) for layer in layers[begin:end]):
        kept = "behind the first linear layer, which stays float," if first_layer_float and linear else "in it"
        raise ExportError(
            f"int8 needs a Conv1D or Dense layer before the last Dense: there is none {kept} that integer kernels "
            "compute. Export it as float16: toolkit export --precision float16"
        )
    shape: Shape = network.shape
    for layer in layers[:begin]:
        shape = output_shape(layer, shape)
    return Parts(layers[:begin], layers[begin:end], layers[end:], shape)


def fold(network: Network) -> Network:
    """The same function, every BatchNormalization right behind a Conv1D or Dense taken into its weights."""
    folded: list[Layer] = []
    for layer in network.layers:
        if isinstance(layer, BatchNormalization) and folded and isinstance(folded[-1], Conv1D | Dense):
            linear = folded[-1]
            kernel = (linear.kernel * layer.scale).astype(np.float32)
            folded[-1] = replace(
                linear, kernel=kernel, bias=(linear.bias * layer.scale + layer.offset).astype(np.float32)
            )
        else:
            folded.append(layer)
    return replace(network, layers=tuple(folded))


def fold_spread(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """The division of a Normalization right before a Conv1D or Dense taken into its kernel; its mean stays, because an
    offset much larger than the spread would cancel in the sums."""
    folded = list(layers)
    for index, (layer, following) in enumerate(zip(layers, layers[1:], strict=False)):
        if isinstance(layer, Normalization) and isinstance(following, Conv1D | Dense):
            spread = layer.deviation.reshape(-1)
            if spread.size in (1, following.kernel.shape[-2]):
                kernel = (following.kernel / spread[:, np.newaxis]).astype(np.float32)
                folded[index] = replace(layer, variance=np.ones_like(layer.variance), epsilon=0.0)
                folded[index + 1] = replace(following, kernel=kernel)
    return tuple(folded)


def _is_integer(layers: tuple[Layer, ...], index: int, begin: int) -> bool:
    match layers[index]:
        case Conv1D() | Dense():
            return True
        case Activation(name):
            return name in FUSED and index > begin and isinstance(layers[index - 1], Conv1D | Dense)
        case Pooling1D(reduce) | GlobalPooling1D(reduce):
            return reduce == "max"
        case ZeroPadding1D() | Reshape():
            return True
        case _:
            return False
