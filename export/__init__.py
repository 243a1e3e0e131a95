"""ONNX graphs of the default model, written by hand so that weights can be filled in without torch or onnx.

- `graphs`: encoder, projector and decoder as templates whose weights are external data
- `quantize`: the encoder in 8 bits
- `templates`: writes the templates and their layout into `imc_lite/assets`
"""
