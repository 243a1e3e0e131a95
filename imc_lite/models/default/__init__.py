"""The default model: an EfficientNet-Lite2 encoder in front of SmolLM2-135M.

- `spec`: the encoder's facts, said once
- `preprocess`: pictures as the encoder takes them
- `onnx`: on ONNX Runtime, without torch
- `packaged`: the encoder alone, from the files of the package, to name noise for other models or without a bundle
- `torch`: in PyTorch, for a GPU
"""
