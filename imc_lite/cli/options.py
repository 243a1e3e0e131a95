"""Options that several commands share, handed to them as one object each."""

from __future__ import annotations

import codecs
import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import click

from imc_lite.files import json_line
from imc_lite.models.open import DEVICES, MOST_THREADS, QUANTS

if TYPE_CHECKING:
    from imc_lite.models.base import MLLM
    from imc_lite.pipeline import IMC

MODEL_HELP = (
    "`default`, a bundle folder, or a Hugging Face model: its folder or organisation/name; with `vllm:` before it its "
    "language model runs in vLLM."
)
WINDOW_HELP = (
    "DICOM: lung, bone, brain, mediastinum, soft-tissue, full, or CENTRE,WIDTH; for CT also medgemma-ct, "
    "medgemma-1.5-ct, or three windows for red, green and blue, W:W:W.  [default: the file's]"
)

Command = Callable[..., Any]


class Within(click.FloatRange):
    """A number within limits. Click lets "nan" through, which is beyond none of them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found: float = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value!r} is not a valid number.", param, ctx)
        return found


class View(TypedDict):
    """How a DICOM picture is shown: arguments of `imc_lite.images.load.load_image`."""

    window: str | None
    frame: int | None


@dataclass(frozen=True)
class ModelChoice:
    """Which model, where it runs and with how many threads."""

    model: str
    device: str
    quant: str
    threads: int
    offline: bool

    def open(
        self,
        *,
        pdc: bool = True,
        sms: bool = True,
        prototypes: Path | None = None,
        confidence: Path | None = None,
        upstream: str | None = None,
        upstream_model: str | None = None,
        upstream_timeout: float | None = None,
    ) -> IMC:
        """The model with its prototypes; for the arguments see `IMC.from_pretrained`.

        Raises:
            ImcError: it cannot be opened.
        """
        from imc_lite.pipeline import IMC

        imc = IMC.from_pretrained(
            self.model,
            device=self.device,
            quant=self.quant,
            threads=self.threads,
            offline=self.offline,
            pdc=pdc,
            sms=sms,
            prototypes=prototypes,
            confidence=confidence,
            upstream=upstream,
            upstream_model=upstream_model,
            upstream_timeout=upstream_timeout,
        )
        self._use_threads(imc.model)
        return imc

    def open_encoder(self, prototypes: Path | None = None) -> IMC:
        """The model to inspect pictures with, which need not hold a language model.

        Args:
            prototypes: a file of `imc-lite prototypes build`, in the place of those that come with it.

        Raises:
            ImcError: it cannot be opened.
        """
        from imc_lite.models.open import open_encoder
        from imc_lite.pdc.prototypes import prototypes_of
        from imc_lite.pipeline import IMC

        model = open_encoder(
            self.model, device=self.device, quant=self.quant, threads=self.threads, offline=self.offline
        )
        self._use_threads(model)
        return IMC(model, prototypes_of(model, prototypes), sms=False)

    def open_alone(self, threads: int | None = None) -> MLLM:
        """The model without what belongs to it, with so many threads, or those that were asked for.

        Raises:
            ImcError: it cannot be opened.
        """
        from imc_lite.models.open import open_mllm

        count = self.threads if threads is None else threads
        model = open_mllm(self.model, device=self.device, quant=self.quant, threads=count, offline=self.offline)
        self._use_threads(model)
        return model

    def _use_threads(self, model: MLLM) -> None:
        """Torch has one number of threads for the whole process: a command may set it, the library may not."""
        if "torch" in model.runtime:
            import torch

            torch.set_num_threads(self.threads)


def lines(given: str) -> Iterator[str]:
    """What was given on the command line, or each line of stdin where that is "-"; undecodable bytes are replaced."""
    if given != "-":
        # On the command line they arrive as surrogates, which nothing can write.
        yield given.encode("utf-8", "replace").decode("utf-8")
        return
    for number, line in enumerate(sys.stdin.buffer):
        text = line if number else line.removeprefix(codecs.BOM_UTF8)
        yield text.decode("utf-8", "replace").rstrip("\r\n")


def say_json(row: Mapping[str, Any]) -> None:
    """A row on stdout, as `imc_lite.files.json_line` writes it. Where the terminal's characters are not UTF-8, others
    than those of ASCII are escaped, so that what comes is JSON there too."""
    text = json_line(row)
    if (sys.stdout.encoding or "").lower().replace("-", "") != "utf8":
        text = re.sub(r"[^\x00-\x7f]", lambda found: json.dumps(found.group())[1:-1], text)
    click.echo(text)


def model_options(function: Command) -> Command:
    """--model, --device, --quant, --threads and --offline, as the argument `choice`."""

    @wraps(function)
    def call(*args: Any, model: str, device: str, quant: str, threads: int, offline: bool, **others: Any) -> Any:
        return function(*args, choice=ModelChoice(model, device, quant, threads, offline), **others)

    for option in (
        click.option("--quant", type=click.Choice(QUANTS), default="auto", help="Of a Hugging Face language model."),
        click.option("--device", type=click.Choice(DEVICES), default="auto", help="Where the model runs."),
        click.option("--offline", is_flag=True, help="Never use the network."),
        click.option(
            "--threads", type=click.IntRange(1, MOST_THREADS), default=1, show_default=True, help="CPU threads."
        ),
        click.option("-m", "--model", default="default", show_default=True, help=MODEL_HELP),
    ):
        call = option(call)
    return call


def picture_options(function: Command) -> Command:
    """--window and --frame, as the argument `view`."""

    @wraps(function)
    def call(*args: Any, window: str | None, frame: int | None, **others: Any) -> Any:
        if window is not None:
            from imc_lite.images.dicom.windows import canonical

            canonical(window)  # refused once, before anything is read
        return function(*args, view=View(window=window, frame=frame), **others)

    for option in (
        click.option("--frame", type=click.IntRange(1), help="DICOM: which frame.  [default: the first]"),
        click.option("--window", help=WINDOW_HELP),
    ):
        call = option(call)
    return call
