"""Models "imc_lite" and "imc_lite_plain" of VLMEvalKit, so that its data sets can be run through PDC and SMS.

    python -m imc_lite.integrations.vlmevalkit RUN.py --model imc_lite --data MedQDEGBench_simulate_test

RUN.py is the `run.py` of a checkout of https://github.com/open-compass/VLMEvalKit, which knows no plug-ins: this puts
our models among those that it knows, and runs it with all that follows.
"""

from __future__ import annotations

import runpy
import sys
from functools import partial
from pathlib import Path
from typing import Any

from vlmeval.config import supported_VLM
from vlmeval.vlm.base import BaseModel

from imc_lite.errors import ImcError
from imc_lite.images.load import load_image
from imc_lite.integrations.choices import answer_prompt
from imc_lite.pipeline import IMC


class ImcLite(BaseModel):
    """One picture or none a question; of listed options the likeliest (`imc_lite.integrations.choices`)."""

    def __init__(
        self,
        model: str = "default",
        pdc: bool = True,
        sms: bool = True,
        prototypes: str | None = None,
        quant: str = "auto",
        threads: int = 1,
        offline: bool = False,
    ) -> None:
        """Open a model; the arguments are those of `IMC.from_pretrained`.

        Raises:
            ImcError: the model cannot be opened.
        """
        super().__init__()
        self.imc = IMC.from_pretrained(
            model, quant=quant, threads=threads, offline=offline, pdc=pdc, sms=sms,
            prototypes=None if prototypes is None else Path(prototypes),
        )  # fmt: skip

    def generate_inner(self, message: list[dict[str, Any]], dataset: str | None = None) -> str:
        """The answer to the texts of a message about its picture.

        Raises:
            ImcError: several pictures, video, or a question that cannot be asked.
        """
        kinds = [part["type"] for part in message]
        if kinds.count("image") > 1 or set(kinds) - {"image", "text"}:
            shown = ", ".join(kind for kind in kinds if kind != "text")
            raise ImcError(f"{dataset} shows {shown} with one question; imc_lite takes one picture, choose another set")
        pictures = [part["value"] for part in message if part["type"] == "image"]
        tokens = self.imc.see(load_image(pictures[0])).tokens if pictures else None
        return answer_prompt(self.imc, "\n".join(part["value"] for part in message if part["type"] == "text"), tokens)


def main() -> None:
    """Run VLMEvalKit's own command with our models among its own."""
    if len(sys.argv) < 2 or not Path(sys.argv[1]).is_file():
        print("imc-lite: name the run.py of a checkout of VLMEvalKit, then its options", file=sys.stderr)
        sys.exit(2)
    supported_VLM["imc_lite"] = partial(ImcLite)
    supported_VLM["imc_lite_plain"] = partial(ImcLite, pdc=False, sms=False)
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
