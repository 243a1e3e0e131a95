"""Export the calibration's PyTorch specification to ONNX, for hosts without torch."""

from __future__ import annotations

import onnx
import torch
from imc_lite.kernels.calibrate import reference


class Calibrate(torch.nn.Module):
    """`imc_lite.kernels.calibrate.reference.calibrate` of one picture by one prototype with weight 1."""

    def forward(
        self, x: torch.Tensor, down: torch.Tensor, up: torch.Tensor, offset: torch.Tensor, shift: torch.Tensor
    ) -> torch.Tensor:
        one = torch.ones(1, 1)
        return reference.calibrate(x[None], one, down[None], up[None], offset[None], shift[None])[0][0]


def calibrate_graph() -> onnx.ModelProto:
    """x float32 [N, D], down [D, R], up [R, D], offset [R], shift [D] -> y [N, D]; any sizes."""
    n, d, r = (torch.export.Dim(name, min=1) for name in ("tokens", "width", "rank"))
    tokens, width, rank = 3, 8, 2
    sizes = {"x": (tokens, width), "down": (width, rank), "up": (rank, width), "offset": (rank,), "shift": (width,)}
    shapes = {"x": (n, d), "down": (d, r), "up": (r, d), "offset": (r,), "shift": (d,)}
    program = torch.onnx.export(
        Calibrate(),
        tuple(torch.zeros(size) for size in sizes.values()),
        dynamo=True,
        verbose=False,
        input_names=list(sizes),
        output_names=["y"],
        dynamic_shapes={name: dict(enumerate(dims)) for name, dims in shapes.items()},
        opset_version=18,
    )
    assert program is not None, "the exporter gives a program where dynamo is set"
    return without_traces(program.model_proto, "calibrate")


def without_traces(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The exporter writes the source lines and paths of the machine it ran on; a shipped file holds none."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        for field in ("doc_string", "metadata_props"):
            if field in item.DESCRIPTOR.fields_by_name:
                item.ClearField(field)
    graph.name, model.producer_version = name, ""
    return model
