"""Hugging Face models as bundles: how far every part is from torch, for each family and precision.

    python recipes/measure_export.py -o recipes/results/export.json

Tiny models of random weights (tests/tiny_models.py), exported in float32; one of them in fewer bits too. Random weights
give flat distributions, where fewer bits change the greedy token sooner than in a trained model.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from imc_lite.export.hf import export_checkpoint
from imc_lite.export.write import PRECISIONS

from imc_lite.models.hf.families import FAMILIES

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from tiny_models import tiny

FEWER_BITS = "gemma3"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for family in FAMILIES:
            source = Path(scratch) / family
            for part in tiny(family):
                part.save_pretrained(source)
            for precision in PRECISIONS if family == FEWER_BITS else ("fp32",):
                bundle = export_checkpoint(
                    str(source), Path(scratch) / f"{family}-{precision}", precision=precision, offline=True
                )
                size = sum(facts["size"] for facts in bundle.files.values())
                parity = bundle.manifest["parity"]
                rows.append({"family": FAMILIES[family].name, "precision": precision, "bytes": size, **parity})
    command = "python recipes/measure_export.py -o recipes/results/export.json"
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    args.out.write_text(json.dumps({"command": command, "versions": versions, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
