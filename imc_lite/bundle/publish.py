"""A folder made beside its place and moved there when it is whole, so that nobody ever finds half of one."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from imc_lite.bundle.contents import check_file
from imc_lite.bundle.manifest import NAME, read_manifest
from imc_lite.errors import ImcError, shown
from imc_lite.files import lock, locked

PREFIX = ".build-imc-lite-"
STALE_SECONDS = 3600


def check_free(destination: Path) -> None:
    """That nothing, not even a link to nowhere, has the name that a folder is to get.

    Raises:
        ImcError: something has it.
    """
    if os.path.lexists(destination):
        raise ImcError(f"{shown(destination)} is there already; name a folder that is not")


@contextlib.contextmanager
def work_folder(destination: Path, remedy: str) -> Iterator[Path]:
    """An empty folder beside `destination`, removed at the end if it is still there.

    What runs that were killed left beside it is removed when it is an hour old.

    Raises:
        ImcError: it cannot be made, or what is written there fails with OSError; `remedy` says what to do.
    """
    work = destination.parent / f"{PREFIX}{os.urandom(6).hex()}"
    try:
        _clean(destination.parent)
        # Not `tempfile`: its folders are for their owner alone, and another user may run this one.
        work.mkdir()
        held = _hold(work)
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
            if held is not None:
                os.close(held)
    except OSError as error:
        raise ImcError(f"cannot write {shown(destination)} ({error.strerror or error}); {remedy}") from error


def appear(work: Path, destination: Path) -> None:
    """Give a finished folder its name, which nothing else has yet.

    Raises:
        OSError: something has it by now, or the disk refuses.
    """
    _settle(work)
    os.rename(work, destination)


def publish(work: Path, destination: Path) -> None:
    """Give a finished bundle its name. A whole one that has it already stays; a broken one is mended.

    A reader finds a folder of that name from the first moment on, at no time none: the files of a broken bundle are
    replaced one by one, the manifest last.

    Args:
        work: the finished folder, on the same disk.
        destination: its place.

    Raises:
        OSError: the disk refuses.
    """
    _settle(work)
    with locked(destination.parent / f".{destination.name}.lock"):
        if not os.path.exists(destination):
            os.rename(work, destination)
        elif not is_whole(destination):
            for path in sorted(work.iterdir(), key=lambda path: path.name == NAME):
                place = destination / path.name
                if place.is_dir() and not place.is_symlink():
                    shutil.rmtree(place)
                os.replace(path, place)


def is_whole(folder: Path) -> bool:
    """Whether a folder is a bundle with every file as its manifest says."""
    try:
        for name, facts in read_manifest(folder)["files"].items():
            check_file(folder, name, facts)
    except ImcError:
        return False
    return True


def _settle(folder: Path) -> None:
    """On disk before it has its name, so that a power cut leaves no empty file under a finished one."""
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())


def _hold(work: Path) -> int | None:
    """The folder, opened and locked as a sign that its maker lives; None where another holds it or it cannot be."""
    try:
        handle = os.open(work, os.O_RDONLY)
    except OSError:
        return None
    if lock(handle):
        return handle
    os.close(handle)
    return None


def _clean(folder: Path) -> None:
    for left in folder.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE_SECONDS and (held := _hold(left)) is not None:
                shutil.rmtree(left, ignore_errors=True)
                os.close(held)
