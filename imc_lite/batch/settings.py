"""What answers in a run, in words that differ where the answers may."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from imc_lite.batch.rows import Plan
from imc_lite.bundle.contents import sha256 as file_sha256
from imc_lite.bundle.store import Bundle
from imc_lite.errors import ImcError, shown
from imc_lite.models.open import find_bundle, find_plugin, is_checkpoint
from imc_lite.pipeline import IMC

DIGITS = 12
NONE = "none"


def describe(
    model: str,
    plan: Plan,
    open_model: Callable[[], IMC],
    *,
    prototypes: Path | None = None,
    confidence: Path | None = None,
    pdc: bool = True,
    sms: bool = True,
    device: str = "auto",
    quant: str = "auto",
    offline: bool = False,
    upstream: str | None = None,
    upstream_model: str | None = None,
) -> dict[str, str]:
    """`run.model`, `run.prototypes` and `run.options` of docs/json.md.

    A bundle is known by its manifest, so nothing is opened for it; of another model only the opened one tells its
    version.

    Raises:
        ImcError: no such model, the prototypes cannot be read, or the upstream's URL cannot be meant.
    """
    if find_plugin(model) is None and (model == "default" or not is_checkpoint(model)):
        bundle = Bundle(find_bundle(model, offline=offline))
        digests = json.dumps({name: facts["sha256"] for name, facts in sorted(bundle.files.items())})
        answering = f"{bundle.id} {bundle.version} {sha256(digests.encode()).hexdigest()[:DIGITS]}"
        own = bundle.files.get("prototypes.safetensors")
        used = own["sha256"][:DIGITS] if own else NONE
    else:
        imc = open_model()
        answering = f"{imc.model.id} {imc.model.version}"
        used = NONE if imc.prototypes is None else imc.prototypes.digest()[:DIGITS]
    if prototypes is not None:
        used = _digest(prototypes)
    switches = {"pdc": pdc, "sms": sms, "timings": plan.timings, "check-wording": plan.check_wording}
    options = [word for word, on in switches.items() if on]
    chosen = {"device": device, "quant": quant, "window": plan.window or "auto", "frame": plan.frame or "auto"}
    if plan.max_risk is not None:
        chosen["max-risk"] = f"{plan.max_risk:g}"
    if confidence is not None:
        chosen["confidence"] = _digest(confidence, "confidence", "fit it: imc-lite calibrate")
    if upstream is not None:
        from imc_lite.upstream.client import Upstream

        asked = Upstream(upstream, upstream_model)
        chosen |= {"upstream": asked.url, "upstream-model": asked.model or "auto"}
    options += [f"{name}={shown(value)}" for name, value in chosen.items() if value != "auto"]
    return {"model": answering, "prototypes": used if pdc else NONE, "options": " ".join(options)}


def _digest(path: Path, what: str = "prototypes", remedy: str = "build them: imc-lite prototypes build") -> str:
    try:
        return file_sha256(path)[:DIGITS]
    except OSError as error:
        raise ImcError(f"no readable {what} in {shown(path)} ({error.strerror}); {remedy}") from error
