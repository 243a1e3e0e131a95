"""Compile the Triton kernels for sm_90 without a GPU and print one line each: name, registers, stack bytes.

Run by test_kernels_compile.py in a process of its own, because the interpreter replaces the compiler.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from imc_lite.kernels import calibrate, match
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

POINTERS = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.bool: "*i1",
    torch.int32: "*i32",
}


class Recorder:
    """Stands in for a kernel: takes one launch and compiles what it would have run."""

    def __init__(self, kernel, label):
        self.kernel, self.label = kernel, label

    def __getitem__(self, grid):
        return self.compile

    def compile(self, *args, num_warps, num_stages=3, enable_fp_fusion, **constants):
        names = self.kernel.arg_names
        signature, constexprs, attrs = {}, {}, {}
        for i, (name, value) in enumerate(
            zip(names, (*args, *(constants[n] for n in names[len(args) :])), strict=True)
        ):
            if isinstance(value, torch.Tensor):
                signature[name] = POINTERS[value.dtype]
                attrs[(i,)] = [["tt.divisibility", 16]]
            elif name in constants or value == 1:
                signature[name], constexprs[(i,)] = "constexpr", value
            else:
                signature[name] = "i32"
                if value % 16 == 0:
                    attrs[(i,)] = [["tt.divisibility", 16]]
        source = ASTSource(fn=self.kernel, signature=signature, constexprs=constexprs, attrs=attrs)
        options = {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": enable_fp_fusion}
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
        print(self.label, *_resources(compiled.asm["cubin"]), compiled.metadata.shared, flush=True)


def _resources(cubin: bytes) -> tuple[str, ...]:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return re.search(r"REG:(\d+) STACK:(\d+)", usage).groups()


def main() -> None:
    dtypes = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
    for case in sys.argv[1:]:
        op, dtype, batch, tokens, width, rank = case.split(":")
        x_dtype, batch, tokens, width, rank = dtypes[dtype], int(batch), int(tokens), int(width), int(rank)
        prototypes = 36
        if op == "calibrate":
            calibrate._calibrate_kernel = Recorder(_original(calibrate, "_calibrate_kernel"), case)
            calibrate.calibrate_triton(
                torch.empty(batch, tokens, width, dtype=x_dtype),
                torch.empty(batch, prototypes),
                torch.empty(prototypes, width, rank, dtype=x_dtype),
                torch.empty(prototypes, rank, width, dtype=x_dtype),
                torch.empty(prototypes, rank),
                torch.empty(prototypes, width),
            )
        else:
            match._match_kernel = Recorder(_original(match, "_match_kernel"), case)
            size = 8 * width if op == "match" else width
            x = torch.empty(batch, 4, tokens, width, dtype=x_dtype) if op == "match" else torch.empty(batch, width)
            match.match_triton(
                x,
                torch.empty(size),
                torch.empty(size, rank),
                torch.empty(prototypes, rank),
                torch.empty(prototypes),
                torch.empty(size),
                torch.empty(size, rank),
                torch.empty(rank, rank, dtype=torch.float64),
            )


def _original(module, name: str):
    kernel = getattr(module, name)
    return kernel.kernel if isinstance(kernel, Recorder) else kernel


if __name__ == "__main__":
    main()
