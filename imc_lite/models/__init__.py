"""The model seam: `base` says what a model must do, `ort` does it with ONNX Runtime."""
