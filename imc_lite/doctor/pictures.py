"""Every kind of picture, a few pixels each, decoded from memory as a user's file would be."""

from __future__ import annotations

import base64
import io
import struct

import numpy as np
from PIL import Image

from imc_lite.doctor.check import Check, ok, problem, warning
from imc_lite.doctor.machine import version
from imc_lite.errors import ImcError
from imc_lite.images import codec
from imc_lite.images.load import load_image

# Grey levels [8, 8] that every picture here holds.
GREY = np.add.outer(np.arange(8) * 20, np.arange(8) * 12).astype(np.uint8)
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
LOSSY = 3.0  # mean difference in grey levels that JPEG and WebP may leave
JPEG_LS, JPEG_LOSSLESS, JPEG_2000 = (f"1.2.840.10008.1.2.4.{n}" for n in (80, 70, 90))
JPEG_BASELINE, RLE = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.5"
# `GREY` as GDCM 3.2 encodes it, without loss.
STREAMS = {
    JPEG_LS: "/9j/9wALCAAIAAgBAREA/9oACAEBAAAAAIHBwc1NH4AQCHKJIeAjmsY7uOMzKqqUKqqiISIiIiIgEkkk8Ekkk4D/2QA=",
    JPEG_LOSSLESS: (
        "/9j/wwALCAAIAAgBAREA/8QAFgABAQEAAAAAAAAAAAAAAAAABAUI/9oACAEBAAEAAM/sYxjGMqMYxjGMqMYxjGMqMYxjGMqMYxjGMqMYxjGM"
        "qMYxjGMqMYxjGM//2Q=="
    ),
    JPEG_2000: (
        "/0//UQApAAAAAAAIAAAACAAAAAAAAAAAAAAACAAAAAgAAAAAAAAAAAABBwEB/1IADAAAAAEAAgQEAAH/XAAKQEBISFBISFD/ZAAqAAFDcmVh"
        "dGVkIGJ5IEdEQ00vT3BlbkpQRUcgdmVyc2lvbiAyLjMuMP+QAAoAAAAAADAAAf+T34AoB6rpCD3B84OH1AYM+hcLPKvA+QHB84QAIhi3A3+0"
        "L//ZAA=="
    ),
}
NAMES = {JPEG_BASELINE: "JPEG", JPEG_LOSSLESS: "JPEG lossless", JPEG_LS: "JPEG-LS", JPEG_2000: "JPEG 2000", RLE: "RLE"}
DICOM = "pip install --force-reinstall 'imc-lite[dicom]'"


def check_pictures() -> list[Check]:
    """The formats that Pillow reads, each written by it first."""
    failed = [name for name in FORMATS if not _reads(name)]
    read = ", ".join(name for name in FORMATS if name not in failed)
    if not failed:
        return [ok("pictures", f"{read} are read")]
    remedy = "pip install --force-reinstall pillow (its wheels read all of them)"
    return [problem("pictures", f"{', '.join(failed)} cannot be read; {read or 'none'} can", remedy)]


def check_dicom() -> list[Check]:
    """The decoder process, and a DICOM file of every kind of pixel data."""
    if version("pydicom") is None:
        return [ok("dicom", "[dicom] is not installed; DICOM files are refused")]
    started = _decoder_check()
    failed = [name for syntax, name in NAMES.items() if not _is_grey(_dicom(syntax))]
    if not failed:
        return [started, ok("dicom", f"{', '.join(NAMES.values())} are read")]
    remedy = DICOM if version("python-gdcm") else "pip install 'imc-lite[dicom]' (GDCM decodes them)"
    read = ", ".join(name for name in NAMES.values() if name not in failed)
    return [started, problem("dicom", f"{', '.join(failed)} cannot be read; {read or 'none'} can", remedy)]


def _decoder_check() -> Check:
    """Whether the process that compressed pixel data are decoded in starts; what it decodes is looked at after."""
    stream = base64.b64decode(STREAMS[JPEG_LS])
    try:
        codec.decode(
            stream,
            syntax=JPEG_LS,
            photometric="MONOCHROME2",
            rows=8,
            columns=8,
            samples=1,
            bits=8,
            signed=False,
        )
    except codec.DecodingError as error:
        if "decoder process" in str(error):
            return problem("decoder", "the process that decodes compressed DICOM does not start", DICOM)
        return warning("decoder", "the process that decodes compressed DICOM starts and decodes no JPEG-LS", DICOM)
    return ok("decoder", "the process that decodes compressed DICOM starts")


def _reads(name: str) -> bool:
    buffer = io.BytesIO()
    try:
        Image.fromarray(GREY).save(buffer, name, quality=95)
    except (OSError, KeyError):  # Pillow was built without it
        return False
    return _is_grey(buffer.getvalue())


def _is_grey(data: bytes) -> bool:
    try:
        found = load_image(data)
    except ImcError:
        return False
    if found.shape != (8, 8, 3):
        return False
    return bool(np.abs(found[..., 0].astype(int) - GREY).mean() <= LOSSY)


def _dicom(syntax: str) -> bytes:
    """`GREY` as a DICOM file, as it is shown without a window of its own: its values fill 0 to 255 already."""
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.7")
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID("2.25.1")
    dataset.Rows = dataset.Columns = 8
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    # Grey level for grey level, so that all 64 of them are compared and not a stretch of them.
    dataset.WindowCenter, dataset.WindowWidth = 128, 256
    dataset.PixelData = encapsulate([_stream(syntax)])
    dataset["PixelData"].is_undefined_length = True
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _stream(syntax: str) -> bytes:
    if syntax in STREAMS:
        return base64.b64decode(STREAMS[syntax])
    if syntax == RLE:  # one segment of one run of 64 literal bytes (PS3.5 annex G)
        return struct.pack("<16I", 1, 64, *[0] * 14) + bytes([len(GREY.tobytes()) - 1]) + GREY.tobytes() + b"\0"
    buffer = io.BytesIO()
    Image.fromarray(GREY).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()
