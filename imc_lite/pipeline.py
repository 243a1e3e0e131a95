"""Image and question in, answer and report out."""

from __future__ import annotations

import math
import time
import unicodedata
from pathlib import Path

from imc_lite.errors import ImcError
from imc_lite.images import Source, load_image
from imc_lite.models.base import MLLM
from imc_lite.perception import Prototypes
from imc_lite.results import ImageReport, Noise, QuestionReport, Result

MAX_QUESTION = 2000
MAX_NEW_TOKENS = 64


class IMC:
    """A medical visual question answerer.

    >>> imc = IMC.from_pretrained()
    >>> imc.answer("tests/images/synpic28602.jpg", "What modality is this?").answer
    'x-ray'
    """

    def __init__(self, model: MLLM, prototypes: Prototypes | None = None) -> None:
        """Answer with an opened model; `from_pretrained` opens one by name.

        Args:
            model: the model.
            prototypes: what its encoder's noise verdicts are read from; without them none is given.
        """
        self.model, self.prototypes = model, prototypes

    @classmethod
    def from_pretrained(cls, model: str | Path = "default", *, threads: int = 1, offline: bool = False) -> IMC:
        """Open the default model, or a bundle folder.

        Args:
            model: "default", or the folder of a bundle.
            threads: CPU threads.
            offline: never fetch the default model's base weights; they must be in the cache.

        Raises:
            ImcError: no such model, or the default one cannot be built.
        """
        from imc_lite.models.ort import OrtMLLM

        opened = OrtMLLM(find_bundle(str(model), offline=offline), threads=threads)
        return cls(opened, packaged_prototypes(opened.encoder_sha256))

    def inspect(self, image: Source) -> ImageReport:
        """Which noise a picture carries, from one encoder pass; the language model is not loaded.

        Raises:
            ImcError: the image cannot be used, or the model has no prototypes.
        """
        if self.prototypes is None:
            raise ImcError("this model has no noise prototypes; build them: imc-lite prototypes build")
        return self._report(image, self.prototypes.match(self.model.perceive(load_image(image)).stats))

    def _report(self, image: Source, noise: Noise | None) -> ImageReport:
        return ImageReport(path=str(image) if isinstance(image, (str, Path)) else None, noise=noise)

    def answer(self, image: Source, question: str, *, id: str | None = None) -> Result:
        """Answer one question about one picture, greedily: the same input gives the same answer.

        Args:
            image: what `imc_lite.images.load_image` takes.
            question: up to 2,000 characters.
            id: carried into the result.

        Raises:
            ImcError: the image or the question cannot be used.
        """
        began = time.perf_counter()
        question = check_question(question)
        pixels = load_image(image)
        loaded = time.perf_counter()
        perception = self.model.perceive(pixels)
        noise = None if self.prototypes is None else self.prototypes.match(perception.stats)
        perceived = time.perf_counter()
        generation = self.model.generate(question, perception.tokens, MAX_NEW_TOKENS)
        done = time.perf_counter()
        marks = {"load": loaded - began, "perceive": perceived - loaded, "calibrate": 0.0, "repair": 0.0}
        marks |= {"decode": done - perceived, "total": done - began}
        return Result(
            id=id,
            answer=generation.text,
            confidence=math.exp(sum(generation.logprobs) / len(generation.logprobs)),
            image=self._report(image, noise),
            question=QuestionReport(original=question, repaired=question),
            timings_ms={k: round(v * 1000, 3) for k, v in marks.items()},
            model={"id": self.model.id, "version": self.model.version},
            versions=_versions(),
        )


def find_bundle(model: str, *, offline: bool = False, progress: bool = True) -> Path:
    """The folder behind a model's name or path; the default model is built on first use."""
    if model == "default":
        from imc_lite.bundle.store import ensure_default

        return ensure_default(offline=offline, progress=progress)
    if Path(model).is_dir():
        return Path(model)
    raise ImcError(f"no model {model!r}: give `default` or the folder of a bundle")


def packaged_prototypes(encoder: str) -> Prototypes | None:
    """The prototypes that ship with the package, if the encoder with this SHA-256 is the one they belong to."""
    from importlib import resources

    from imc_lite.perception import load_prototypes

    with resources.as_file(resources.files("imc_lite.assets") / "prototypes.safetensors") as path:
        try:
            return load_prototypes(path, encoder)
        except ImcError:
            return None


def check_question(question: str) -> str:
    """The question in Unicode NFC with single spaces, or ImcError when it cannot be asked."""
    if not isinstance(question, str):
        raise ImcError(f"the question must be text, not {type(question).__name__}; give a string")
    if len(question) > MAX_QUESTION:
        raise ImcError(f"the question has {len(question):,} characters, at most {MAX_QUESTION:,} are read; shorten it")
    # Surrogates come from undecodable bytes on the command line; no tokenizer takes them.
    text = unicodedata.normalize("NFC", question.encode("utf-8", "replace").decode("utf-8"))
    text = " ".join("".join(" " if unicodedata.category(c) == "Cc" else c for c in text).split())
    if not text:
        raise ImcError("the question is empty; ask something about the image")
    return text


def _versions() -> dict[str, str]:
    import onnxruntime

    from imc_lite import __version__

    return {"imc_lite": __version__, "onnxruntime": onnxruntime.__version__}
