"""EfficientNet-Lite2, the default model's encoder.

https://github.com/tensorflow/tpu, models/official/efficientnet/lite.
"""

# (repeats, kernel, stride of the first block, output channels); expansion 1 in the first stage, else 6.
STAGES = (
    (1, 3, 1, 16),
    (3, 3, 2, 24),
    (3, 5, 2, 48),
    (4, 3, 2, 88),
    (4, 5, 1, 120),
    (5, 5, 2, 208),
    (1, 3, 1, 352),
)
TAPS = (0, 2, 5, 10)  # blocks whose statistics are read, beside the stem
