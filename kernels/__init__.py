"""Matching and calibration of vision tokens on a GPU, one launch each, beside the PyTorch they are checked against.

    from imc_lite.kernels.match import WhitenedPrototypes, match
    from imc_lite.kernels.calibrate import LowRankMaps, calibrate

Each operator has a folder:

| file | what it holds |
|---|---|
| `reference` | the specification: the formula and its source, in plain PyTorch |
| `triton` | the Triton kernel and the choice of its block sizes |
| `op` | the function to call, a `torch.library` operator: Triton on CUDA, the reference elsewhere |
| `prototypes` (match), `maps` (calibrate) | the fitted constants, checked when they are made |
| `spec` | shapes, tolerances and cost, for the tests and the benchmark |

`registry` finds them all. A new kernel is a new folder and its name in `registry.FOLDERS`: the tests
(`tests/test_kernels.py`), the ahead-of-time compilation for sm_90 (`tests/compile_kernels.py`) and the benchmark
(`python -m imc_lite.kernels.bench`) take it from there.

Nothing heavy is imported here: the operators need torch; their kernels, `spec` and `bench` need Triton too.
"""
