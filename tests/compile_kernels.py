"""Compile every kernel of the registry for sm_90 without a GPU: a line of registers, stack and shared memory each.

Run by test_kernels_compile.py in a process of its own, because the interpreter replaces the compiler.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from imc_lite.kernels.registry import Kernel, Shape, kernels
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
    """Stands in for a `triton.jit` function: takes one launch and compiles what it would have run."""

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
    for kernel in kernels():
        module = sys.modules[kernel.triton.__module__]
        launched = getattr(module, kernel.launched)
        for dtype, shape in kernel.compiled:
            setattr(module, kernel.launched, Recorder(launched, case(kernel, dtype, shape)))
            kernel.triton(*kernel.inputs(shape, dtype, "cpu", 0))
        setattr(module, kernel.launched, launched)


def case(kernel: Kernel, dtype: torch.dtype, shape: Shape) -> str:
    """What a line begins with."""
    return f"{kernel.name}:{str(dtype).removeprefix('torch.')}:{shape.batch}x{shape.tokens}x{shape.width}:r{shape.rank}"


if __name__ == "__main__":
    main()
