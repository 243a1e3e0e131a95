"""Matching and calibration of vision tokens on a GPU, one launch each, with the PyTorch they are checked against.

| module | what it holds |
|---|---|
| `ops` | the functions to call: `match`, `match_stats`, `calibrate`; Triton on CUDA, PyTorch elsewhere |
| `banks` | `MatchBank`, `CalibrationBank`: fitted constants, checked once and laid out for the kernels |
| `reference` | the specification: the same functions in plain PyTorch |
| `match`, `calibrate` | the Triton kernels and their launch heuristics |
| `bench` | `python -m imc_lite.kernels.bench`: checks, then times, and appends to `kernels/results/bench.csv` |

Nothing heavy is imported here: `ops`, `banks` and `reference` need torch, `match` and `calibrate` Triton too.
"""
