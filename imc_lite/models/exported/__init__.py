"""Exported Hugging Face models, run by ONNX Runtime without torch.

- `model`: `ExportedMLLM`
- `picture_steps`: pictures as such a model's vision tower takes them
"""
