"""The pictures that are to be judged: files as they are named, folders with all that is below them."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from imc_lite.errors import shown
from imc_lite.images.dicom.file import is_dicom

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".dcm", ".dicom"))
SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*")
HEAD = 132  # bytes up to and with the mark of DICOM
NO_SUFFIX, NO_FILE = "no suffix", "no file"


@dataclass(frozen=True)
class Candidate:
    """One picture to judge.

    Attributes:
        path: as given, or of a file below a folder, the folder as given and the way from there.
        from_folder: it was found and not named, so it may turn out to be no picture.
        error: why there is nothing to judge under this path.
    """

    path: str
    from_folder: bool = False
    error: str | None = None


@dataclass
class Found:
    """Pictures in the order in which they are judged, whether a folder was among what was given, and how many files
    were passed over, by suffix."""

    candidates: list[Candidate] = field(default_factory=list)
    folders: bool = False
    passed_over: Counter[str] = field(default_factory=Counter)


def find_pictures(given: Sequence[str]) -> Found:
    """Files as named, and the pictures below folders, by name within each folder.

    Below a folder a file is taken for a picture by its suffix, or else by how it begins: as PNG, JPEG, TIFF, WebP or
    DICOM; one without a preamble only where its name has no suffix with a letter in it, as DICOM archives name
    files. Hidden files and folders (`.name`) and `DICOMDIR` are passed over. Links to folders are followed, each
    folder is looked through once.

    A folder that cannot be read or holds no picture is a candidate with an error.
    """
    found, been = Found(), set[tuple[int, int]]()
    for path in given:
        if not os.path.isdir(path):
            found.candidates.append(Candidate(path))
            continue
        found.folders = True
        before, again = len(found.candidates), _place(path) in been
        found.candidates += _below(path, found.passed_over, been)
        if len(found.candidates) == before and not again:
            error = f"{shown(path)} holds no picture; name another folder"
            found.candidates.append(Candidate(path, error=error))
    return found


def _place(folder: str) -> tuple[int, int] | None:
    """Device and inode; None where it cannot be looked at."""
    try:
        about = os.stat(folder)
    except OSError:
        return None
    return about.st_dev, about.st_ino


def _below(folder: str, passed_over: Counter[str], been: set[tuple[int, int]]) -> Iterator[Candidate]:
    """What is below a folder, but for the folders that have been looked through."""
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        try:
            about = os.stat(path)
            if not stat.S_ISDIR(about.st_mode):
                if _is_picture(path, about):
                    yield Candidate(path, from_folder=True)
                else:
                    passed_over[_suffix(path, about)] += 1
                continue
            if (about.st_dev, about.st_ino) in been:
                continue
            been.add((about.st_dev, about.st_ino))
            names = sorted(name for name in os.listdir(path) if not name.startswith("."))
        except OSError as error:
            lost = error.errno in (errno.ENOENT, errno.ELOOP)  # a link that leads nowhere, or a file gone meanwhile
            if lost and PurePath(path).suffix.lower() not in SUFFIXES:
                passed_over[NO_FILE] += 1
            else:
                yield Candidate(path, from_folder=True, error=_unreadable(path, error))
            continue
        waiting += [os.path.join(path, name) for name in reversed(names)]


def _is_picture(path: str, about: os.stat_result) -> bool:
    if not stat.S_ISREG(about.st_mode) or os.path.basename(path) == "DICOMDIR":
        return False
    suffix = PurePath(path).suffix.lower()
    if suffix in SUFFIXES:
        return True
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD)
    except OSError:
        return True  # nobody knows, and reading it says why
    if head.startswith(SIGNATURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return True
    # Two bytes are all that marks DICOM without a preamble, and many a file of another kind begins with them.
    return head[128:] == b"DICM" or (not re.search("[a-z]", suffix) and is_dicom(head))


def _suffix(path: str, about: os.stat_result) -> str:
    if not stat.S_ISREG(about.st_mode):
        return NO_FILE
    return shown(PurePath(path).suffix.lower(), 12) or NO_SUFFIX


def _unreadable(path: str, error: OSError) -> str:
    return f"cannot read {shown(path)} ({error.strerror or error}); check the path and its permissions"
