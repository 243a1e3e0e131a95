"""Write the graph templates that ship in the package: `python -m imc_lite.export.templates`."""

from __future__ import annotations

import json
from pathlib import Path

from imc_lite.export.calibrate import calibrate_graph
from imc_lite.export.graphs import DecoderConfig, decoder, encoder, projector

from imc_lite.models.default.spec import ENCODER

ASSETS = Path(__file__).resolve().parent.parent / "imc_lite" / "assets"


def write_templates(folder: Path, config: DecoderConfig | None = None) -> None:
    """Write encoder, shallow, projector, decoder and calibrate.onnx, layout.json and preprocessing.json (what is done
    to a picture); the same bytes every time."""
    config = config or DecoderConfig()
    layouts = {}
    graphs = {"encoder": encoder(), "projector": projector(out=config.hidden), "decoder": decoder(config)}
    for name, (model, layout) in graphs.items():
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))
        layouts[name] = layout
    (folder / "shallow.onnx").write_bytes(encoder(shallow=True)[0].SerializeToString(deterministic=True))
    (folder / "calibrate.onnx").write_bytes(calibrate_graph().SerializeToString(deterministic=True))
    (folder / "layout.json").write_text(json.dumps(layouts, separators=(",", ":")) + "\n")
    (folder / "preprocessing.json").write_text(json.dumps(ENCODER.preprocessing, indent=1) + "\n")


if __name__ == "__main__":
    write_templates(ASSETS)
