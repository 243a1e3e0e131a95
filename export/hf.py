"""A Hugging Face model written as a bundle that ONNX Runtime answers from, without torch, transformers or a network.

Every part is compared with the model it came from before the bundle appears under its name; the figures go into its
manifest.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from imc_lite.export.describe import describe
from imc_lite.export.parity import Bounds, check
from imc_lite.export.trace import record
from imc_lite.export.write import BITS, SEED, write_graphs

from imc_lite.bundle.manifest import write_manifest
from imc_lite.bundle.publish import appear, check_free, work_folder
from imc_lite.bundle.store import Bundle
from imc_lite.models.hf.load import load
from imc_lite.models.hf.model import HfMLLM
from imc_lite.pdc.prototypes import load_prototypes
from imc_lite.sms.selftest import can_rewrite


def export_checkpoint(
    name: str,
    destination: Path,
    *,
    precision: str = "fp32",
    prototypes: Path | None = None,
    encoder_only: bool = False,
    offline: bool = False,
    bounds: Bounds | None = None,
) -> Bundle:
    """Write a checkpoint as a bundle, all or nothing.

    Args:
        name: "organisation/name" on the Hugging Face hub, or a folder; loaded in float32 on the CPU.
        destination: a folder that is not there yet, in one that is.
        precision: of the language model's weights: "fp32", "fp16", "int8", "int4". Tower and projector stay float32:
            noise is read from them.
        prototypes: a file of `imc-lite prototypes build` for this tower, to go into the bundle.
        encoder_only: write the noise identifier alone.
        offline: never use the network.
        bounds: what may differ from torch; those of the precision by default.

    Raises:
        ImcError: no such model, one that cannot be exported, other prototypes, a part that differs from torch, or the
            destination is there already or cannot be written.
    """
    check_free(destination)
    with work_folder(destination, "choose another folder") as scratch:  # made before anything is fetched or loaded
        mllm = load(name, device="cpu", quant="none", offline=offline)
        if prototypes is not None:
            load_prototypes(prototypes, mllm.identity)
        work = scratch / "bundle"
        work.mkdir()
        image = np.random.default_rng(SEED).integers(0, 256, (320, 240, 3), np.uint8)
        recorded = record(mllm, image)
        config = describe(mllm, recorded, image) | {"rewrites": not encoder_only and can_rewrite(mllm)}
        write_graphs(mllm, recorded, config, work, precision, encoder_only)
        (work / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        if prototypes is not None:
            shutil.copyfile(prototypes, work / "prototypes.safetensors")
        facts = _facts(mllm, precision, encoder_only)
        write_manifest(work, facts)
        parity = check(mllm, Bundle(work), bounds or Bounds.of(precision), SEED)
        write_manifest(work, {**facts, "parity": parity})
        appear(work, destination)
    return Bundle(destination)


def _facts(mllm: HfMLLM, precision: str, encoder_only: bool) -> dict[str, Any]:
    # In fewer bits it is another model: what is known of its answers was not measured with them.
    fewer = f"-lm-{precision}" if precision in BITS else ""
    name = Path(mllm.id).resolve().name if Path(mllm.id).is_dir() else mllm.id  # no path of this machine on another
    return {
        "kind": "huggingface",
        "id": name,
        "version": f"{mllm.version}{fewer}",
        "family": mllm.family.name,
        "precision": precision,
        "encoder_only": encoder_only,
        "identity": mllm.identity,
        "sources": [{"name": name, "licence": "as its checkpoint says"}],
    }
