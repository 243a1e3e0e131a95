"""A bundle carried to another folder, so that a host without a network or a package index can run it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from imc_lite.bundle.store import Bundle
from imc_lite.errors import ImcError


def copy_bundle(source: Path, destination: Path) -> Bundle:
    """Copy a bundle's files, check what arrived, then let it appear under its name, all or nothing.

    Only what the manifest names is copied. An existing destination is never touched.

    Args:
        source: an intact bundle's folder.
        destination: a folder that is not there yet, in one that is.

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
        for name in bundle.files:
            shutil.copyfile(bundle.file(name), work / name)
        shutil.copyfile(bundle.folder / "manifest.json", work / "manifest.json")
        for name in bundle.files:
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
