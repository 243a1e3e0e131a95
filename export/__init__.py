"""Models as ONNX graphs, for hosts without torch.

The default model, written by hand so that weights can be filled in without torch or onnx:

- `graphs`: encoder, projector and decoder as templates whose weights are external data
- `quantize`: the encoder in 8 bits
- `calibrate`: the calibration's PyTorch specification
- `templates`: writes the templates and their layout into `imc_lite/assets`

Hugging Face models:

- `hf`: a checkpoint as a bundle
- `trace`: its parts as modules that can be traced
- `write`: those as ONNX files, in fewer bits where wished
- `describe`: its pictures and prompts as data
- `parity`: the bundle compared with torch

An export leaves the process as it was: torch's threads and random numbers, logging, standard output. Only Python's
warnings are held back meanwhile (`quiet`).
"""
