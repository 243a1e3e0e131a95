"""A DICOM file's elements, read by pydicom; what it says about them is held back, because it may quote them."""

from __future__ import annotations

import io
import logging
import zlib
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING

from imc_lite.errors import ImcError

if TYPE_CHECKING:
    from pydicom import Dataset

MAX_INFLATED, SPARE, RATIO = 1 << 28, 1 << 24, 200  # bytes; what is inflated may be so much, and so many times the file
MOST_ITEMS = 200_000  # of sequences: each becomes an object of hundreds of bytes, whatever it holds
ITEMS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")  # how one begins, in either byte order
PIECE = 1 << 16  # bytes inflated at a time
# What the first element of a file without a preamble looks like: group 2 or 8, either byte order.
FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")
OTHER_PICTURES = (b"\x89PNG", b"\xff\xd8", b"BM", b"II*\0", b"MM\0*", b"RIFF")


def is_dicom(head: bytes, name: str = "") -> bool:
    """Whether a file that begins with `head` (132 bytes or more) is DICOM; `name` decides where bytes cannot."""
    if head[128:132] == b"DICM":
        return True
    if head.startswith(OTHER_PICTURES):
        return False
    return head.startswith(FIRST_GROUPS) or (bool(head) and name.lower().endswith((".dcm", ".dicom")))


def read(data: bytes, name: str) -> Dataset:
    """The elements of a file, with a transfer syntax in any case.

    Raises:
        ImcError: pydicom is not installed; not DICOM, or damaged; deflated, and inflates to over 256 MiB or far more
            than pictures do; of more sequence items than any picture has.
    """
    pydicom = _pydicom()
    if pydicom is None:
        raise ImcError(f"{name} is a DICOM file and pydicom is not installed; install imc-lite[dicom]")
    try:
        opened = _opened(pydicom, data, name)
        if sum(opened.getvalue().count(item) for item in ITEMS) > MOST_ITEMS:
            raise ImcError(f"{name} has over {MOST_ITEMS:,} sequence items; export the picture without them")
        dataset = pydicom.dcmread(opened, force=True)
        known = "PixelData" in dataset or "DirectoryRecordSequence" in dataset
        if not known and not any(element.tag.group == 8 for element in dataset):
            raise ImcError(f"{name} is not a DICOM file, or is damaged; export it again")
        if "TransferSyntaxUID" not in dataset.file_meta:
            # Files without a header are what the bytes show: no compression, either byte order.
            implicit, little = dataset.original_encoding
            syntaxes = {(True, True): "ImplicitVRLittleEndian", (False, True): "ExplicitVRLittleEndian"}
            syntax = syntaxes.get((bool(implicit), bool(little)), "ExplicitVRBigEndian")
            dataset.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
    except ImcError:
        raise
    except Exception:  # pydicom raises whatever its parser ran into, with the file's own words
        raise ImcError(f"{name} is a damaged or incomplete DICOM file; export it again") from None
    return dataset


@lru_cache(maxsize=1)
def _pydicom() -> ModuleType | None:
    try:
        import pydicom
    except ImportError:
        return None
    logger = logging.getLogger("pydicom")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    return pydicom


def _opened(pydicom: ModuleType, data: bytes, name: str) -> io.BytesIO:
    """The file itself, or where its transfer syntax is the deflated one, the file without that compression.

    pydicom inflates without a limit, and a few kilobytes may hold terabytes of zeros.
    """
    stream = io.BytesIO(data)
    pydicom.filereader.read_preamble(stream, force=True)
    # pydicom's own reading, so that the two cannot disagree on a file made to be read in two ways.
    header = pydicom.filereader._read_file_meta_info(stream)
    if header.get("TransferSyntaxUID") != pydicom.uid.DeflatedExplicitVRLittleEndian:
        return io.BytesIO(data)
    syntax = b"\x02\x00\x10\x00UI\x14\x00" + pydicom.uid.ExplicitVRLittleEndian.encode().ljust(20, b"\0")
    inflated = io.BytesIO()
    inflated.write(bytes(128) + b"DICM" + syntax)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    while not inflater.eof and (piece := inflater.unconsumed_tail or stream.read(PIECE)):
        inflated.write(inflater.decompress(piece, PIECE))
        most = min(MAX_INFLATED, SPARE + RATIO * len(data))
        if inflated.tell() > most:
            raise ImcError(f"{name} unpacks to over {most >> 20} MiB; export it without deflating")
    inflated.write(inflater.flush())  # a few bytes, where a piece ended before them
    if not inflater.eof:
        raise ImcError(f"{name} is a damaged or incomplete DICOM file; export it again")
    inflated.seek(0)
    return inflated
