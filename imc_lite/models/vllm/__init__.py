"""`vllm:NAME`: a Hugging Face model that sees here, with its noise calibrated, and whose words vLLM writes.

Importing this package imports neither torch nor vLLM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imc_lite.errors import ImcError, missing

if TYPE_CHECKING:
    from imc_lite.models.vllm.model import VllmMLLM


def open_vllm(argument: str, *, device: str = "auto", threads: int = 1, offline: bool = False) -> VllmMLLM:
    """The model that `-m vllm:NAME` means: the entry point `vllm` of the group `imc_lite.models`.

    Args:
        argument: "organisation/name" on the Hugging Face hub, or a folder.
        device: where tower and projector run: "cpu", "cuda", or "auto". Where vLLM runs is up to its build.
        threads: not read here: torch's are set by the program, vLLM's by its own environment variables.
        offline: only what is in the hub's cache, or the folder.

    Raises:
        ImcError: no name, vLLM is not installed, or the model cannot be opened.
    """
    if not argument:
        raise ImcError("vllm: names no model; give vllm:ORGANISATION/NAME or vllm:FOLDER")
    try:
        from imc_lite.models.vllm.model import VllmMLLM
    except ImportError as error:
        raise missing(error, "imc-lite[vllm]") from error
    return VllmMLLM.open(argument, device=device, offline=offline)
