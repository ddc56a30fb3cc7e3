"""The shapes of the parameters of models that people know."""

from __future__ import annotations

import itertools
from typing import TypeAlias

Shape: TypeAlias = tuple[int, ...]


def resnet50() -> list[Shape]:
    """He et al. 2016, as torchvision has it: 161 arrays, 25.6 million elements. Convolutions are out, in, 3, 3."""
    shapes: list[Shape] = [(64, 3, 7, 7), (64,), (64,)]
    inputs = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        outputs = 4 * width
        for block in range(blocks):
            shapes += [(width, inputs, 1, 1), (width,), (width,)]
            shapes += [(width, width, 3, 3), (width,), (width,)]
            shapes += [(outputs, width, 1, 1), (outputs,), (outputs,)]
            if block == 0:  # the shortcut has other dimensions
                shapes += [(outputs, inputs, 1, 1), (outputs,), (outputs,)]
            inputs = outputs
    return [*shapes, (1000, 2048), (1000,)]


def gpt2() -> list[Shape]:
    """Radford et al. 2019, the smallest: 148 arrays, 124.4 million elements."""
    width = 768
    layer: list[Shape] = [(width,), (width,), (width, 3 * width), (3 * width,), (width, width), (width,),
                          (width,), (width,), (width, 4 * width), (4 * width,), (4 * width, width), (width,)]  # fmt: skip
    return [(50257, width), (1024, width), *layer * 12, (width,), (width,)]


def perceptron(*widths: int) -> list[Shape]:
    """Weights and biases of fully connected layers."""
    shapes: list[Shape] = []
    for inputs, outputs in itertools.pairwise(widths):
        shapes += [(inputs, outputs), (outputs,)]
    return shapes


MODELS = {"ResNet-50": resnet50(), "GPT-2": gpt2(), "perceptron": perceptron(64, 256, 256, 10)}
