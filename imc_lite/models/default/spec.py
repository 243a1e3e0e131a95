"""The default model's encoder, every fact of it: EfficientNet-Lite2 as `ENCODER`.

Export, both runtimes, preprocessing, perception and the training recipe read it here.
https://github.com/tensorflow/tpu, models/official/efficientnet/lite.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np


@dataclass(frozen=True)
class Block:
    """One inverted residual (MBConv, Sandler et al., arXiv 1801.04381).

    Attributes:
        name: of its weights.
        kernel, stride: of its depthwise convolution.
        inputs, inside, outputs: channels; there is no expansion where `inside` is `inputs`.
        tapped: whether statistics are read from its output.
    """

    name: str
    kernel: int
    stride: int
    inputs: int
    inside: int
    outputs: int
    tapped: bool

    @property
    def expands(self) -> bool:
        """Whether a convolution widens the input first."""
        return self.inside != self.inputs

    @property
    def residual(self) -> bool:
        """Whether the input is added to the output."""
        return self.stride == 1 and self.inputs == self.outputs


@dataclass(frozen=True)
class EncoderSpec:
    """An EfficientNet-Lite encoder and what is read from it.

    Attributes:
        side: of the square that it takes, in pixels.
        mean, std: a pixel p of 0-255 goes in as (p - mean) / std.
        stem: channels of the first convolution, of stride 2.
        stages: repeats, kernel, stride of the first block, and output channels of each.
        expansion: channels inside a block times its inputs, but in the first stage, which does not expand.
        taps: indices of the blocks whose statistics are read; the stem's are read too.
        width: channels of a token.
    """

    side: int
    mean: int
    std: int
    stem: int
    stages: tuple[tuple[int, int, int, int], ...]
    expansion: int
    taps: tuple[int, ...]
    width: int

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks, in order."""
        found: list[Block] = []
        inputs = self.stem
        for stage, (repeats, kernel, stride, outputs) in enumerate(self.stages):
            for i in range(repeats):
                inside = inputs * (self.expansion if stage else 1)
                index = len(found)
                step, tapped = stride if i == 0 else 1, index in self.taps
                found.append(Block(f"blocks.{index}", kernel, step, inputs, inside, outputs, tapped))
                inputs = outputs
        return tuple(found)

    @property
    def shallow_blocks(self) -> tuple[Block, ...]:
        """Blocks up to the last one whose statistics are read."""
        return self.blocks[: max(self.taps) + 1]

    @property
    def tap_channels(self) -> tuple[int, ...]:
        """Channels of the depths whose statistics are read: the stem, then each tapped block."""
        return (self.stem, *(block.outputs for block in self.blocks if block.tapped))

    @property
    def statistics(self) -> int:
        """Length of the statistics: mean and mean of squares of each channel in four quadrants."""
        return 8 * sum(self.tap_channels)

    @property
    def tokens(self) -> int:
        """Number of tokens: the last map, averaged two by two."""
        return (self.side // (2 * prod(stride for _, _, stride, _ in self.stages)) // 2) ** 2

    @property
    def preprocessing(self) -> dict[str, object]:
        """What is done to a picture, as a bundle states it; prototypes belong to its SHA-256."""
        return {
            "side": self.side,
            "resize": "bicubic",
            "pad": "black square",
            "mean": self.mean,
            "std": self.std,
        }


ENCODER = EncoderSpec(
    side=320,
    mean=127,
    std=128,
    stem=32,
    stages=(
        (1, 3, 1, 16),
        (3, 3, 2, 24),
        (3, 5, 2, 48),
        (4, 3, 2, 88),
        (4, 5, 1, 120),
        (5, 5, 2, 208),
        (1, 3, 1, 352),
    ),
    expansion=6,
    taps=(0, 2, 5, 10),
    width=1280,
)

NO_PICTURE = np.zeros((0, 1280), np.float32)  # tokens of a question about a picture that is missing
