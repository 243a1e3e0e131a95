"""A bundle carried to another folder, so that a host without a network or a package index can run it."""

from __future__ import annotations

import shutil
from pathlib import Path

from imc_lite.bundle.manifest import NAME, write_manifest
from imc_lite.bundle.publish import appear, check_free, work_folder
from imc_lite.bundle.store import Bundle

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
    check_free(destination)
    with work_folder(destination, "choose another folder") as work:
        names = [n for n in bundle.files if not encoder_only or n.partition(".")[0] in ENCODER]
        for name in names:
            shutil.copyfile(bundle.file(name), work / name)
        if encoder_only:
            facts = {k: v for k, v in bundle.manifest.items() if k not in ("format", "files")}
            write_manifest(work, {**facts, "encoder_only": True})
        else:
            shutil.copyfile(bundle.folder / NAME, work / NAME)
        copied = Bundle(work)
        for name in copied.files:
            copied.file(name)
        appear(work, destination)
    return Bundle(destination)
