"""Write the graph templates that ship in the package: `python -m imc_lite.export.templates`."""

from __future__ import annotations

import json
from pathlib import Path

from imc_lite.export.calibrate import calibrate_graph
from imc_lite.export.graphs import DecoderConfig, decoder, encoder, projector

ASSETS = Path(__file__).resolve().parent.parent / "imc_lite" / "assets"


def write_templates(folder: Path, config: DecoderConfig | None = None) -> None:
    """Write encoder, projector, decoder and calibrate.onnx and layout.json; the same bytes every time."""
    config = config or DecoderConfig()
    layouts = {}
    graphs = {"encoder": encoder(), "projector": projector(out=config.hidden), "decoder": decoder(config)}
    for name, (model, layout) in graphs.items():
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))
        layouts[name] = layout
    (folder / "calibrate.onnx").write_bytes(calibrate_graph().SerializeToString(deterministic=True))
    (folder / "layout.json").write_text(json.dumps(layouts, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    write_templates(ASSETS)
