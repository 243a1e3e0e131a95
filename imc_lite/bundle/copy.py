"""A bundle carried to another folder, so that a host without a network or a package index can run it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from imc_lite.bundle.build import write_manifest
from imc_lite.bundle.store import Bundle
from imc_lite.errors import ImcError

ENCODER = ("encoder", "calibrate", "prototypes", "config")  # the parts that name noise


def copy_bundle(source: Path, destination: Path, encoder_only: bool = False) -> Bundle:
    """Copy a bundle's files, check what arrived, then let it appear under its name, all or nothing.

    Only what the manifest names is copied. An existing destination is never touched.

    Args:
        source: an intact bundle's folder.
        destination: a folder that is not there yet, in one that is.
        encoder_only: leave out what answers; `inspect` runs with the rest.

    Raises:
        ImcError: the source is not whole, the destination is there already, or it cannot be written.
    """
    bundle = Bundle(source)
    if destination.exists() or destination.is_symlink():
        raise ImcError(f"{destination} is there already; name a folder that is not")
    try:
        work = Path(tempfile.mkdtemp(prefix=".build-", dir=destination.parent))
    except OSError as error:
        raise ImcError(f"cannot write {destination} ({error.strerror}); choose another folder") from error
    try:
        names = [n for n in bundle.files if not encoder_only or n.partition(".")[0] in ENCODER]
        for name in names:
            shutil.copyfile(bundle.file(name), work / name)
        if encoder_only:
            facts = {k: v for k, v in bundle.manifest.items() if k not in ("format", "files")}
            write_manifest(work, {**facts, "encoder_only": True})
        else:
            shutil.copyfile(bundle.folder / "manifest.json", work / "manifest.json")
        for name in names:
            _settle(work / name)
        copied = Bundle(work)
        for name in copied.files:
            copied.file(name)
        umask = os.umask(0)
        os.umask(umask)
        work.chmod(0o777 & ~umask)  # mkdtemp's folders are private; another user may run this one
        os.rename(work, destination)
    except OSError as error:
        raise ImcError(f"cannot write {destination} ({error.strerror}); choose another folder") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Bundle(destination)


def _settle(path: Path) -> None:
    """On disk before it is checked, so that a power cut leaves no empty file under a finished name."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
