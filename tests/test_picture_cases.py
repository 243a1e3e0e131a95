"""Pictures that were once shown wrong or refused come out right; `tests/pictures/README.md` says whose they are."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imc_lite import load_image

PICTURES = Path(__file__).parent / "pictures"
TRUTHS = {path.name.removesuffix(".truth.png"): path for path in sorted((PICTURES / "truth").iterdir())}


def truth(name: str) -> np.ndarray:
    return np.asarray(Image.open(TRUTHS[name]).convert("RGB")).astype(int)


def apart(found: np.ndarray, right: np.ndarray) -> float:
    assert found.shape == right.shape
    return float(np.abs(found.astype(int) - right).mean())


@pytest.mark.parametrize("name", TRUTHS)
def test_pictures_come_out_as_their_truth(name):
    (path,) = (p for p in PICTURES.iterdir() if p.stem == name)
    if path.suffix == ".dcm":
        pytest.importorskip("pydicom", reason="DICOM is read with imc-lite[dicom]")
    assert apart(load_image(path), truth(name)) <= 2


def test_a_signed_stream_is_signed_whatever_the_header_says():
    pytest.importorskip("gdcm", reason="JPEG 2000 is read with imc-lite[dicom]")
    # The same picture, uncompressed, in missing_PixelRepresentation.dcm.
    assert apart(load_image(PICTURES / "j2k_s16_u.dcm"), truth("missing_PixelRepresentation")) <= 2


def test_an_inverse_presentation_shape_inverts_as_in_dcmtk():
    pytest.importorskip("pydicom")
    assert apart(load_image(PICTURES / "plut_inverse_m2.dcm"), 255 - truth("missing_PixelRepresentation")) <= 2


def test_a_sigmoid_is_one_in_small_letters():
    pydicom = pytest.importorskip("pydicom")
    stored = pydicom.dcmread(PICTURES / "sigmoid_lower.dcm").pixel_array.astype(float)
    right = np.rint(255 / (1 + np.exp(-4 * (stored - 2048) / 4096)))
    assert apart(load_image(PICTURES / "sigmoid_lower.dcm")[..., 0], right) <= 1


def test_16_bit_colours_are_stretched():
    data = (PICTURES / "rgb48_12.png").read_bytes()
    samples = png_samples(data).astype(float)
    right = np.rint((samples - samples.min()) * 255 / (samples.max() - samples.min()))
    assert samples.max() < 4096 and apart(load_image(data), right) == 0


def png_samples(data: bytes) -> np.ndarray:
    """The samples of a 16-bit RGB PNG without interlace, read as the PNG specification says and without Pillow."""
    at, chunks = 8, {}
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        chunks[data[at + 4 : at + 8]] = chunks.get(data[at + 4 : at + 8], b"") + data[at + 8 : at + 8 + length]
        at += 12 + length
    width, height, depth, colours, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, colours, interlaced) == (16, 2, 0)
    raw, stride, step = zlib.decompress(chunks[b"IDAT"]), 6 * width, 6
    above, rows = bytes(stride), []
    for y in range(height):
        kind, line = raw[y * (stride + 1)], bytearray(raw[y * (stride + 1) + 1 : (y + 1) * (stride + 1)])
        for x in range(stride):
            left, up, corner = line[x - step] if x >= step else 0, above[x], above[x - step] if x >= step else 0
            guess = left + up - corner
            nearest = min((left, up, corner), key=lambda v, guess=guess: abs(guess - v))
            line[x] = (line[x] + (0, left, up, (left + up) // 2, nearest)[kind]) % 256
        above = bytes(line)
        rows.append(np.frombuffer(above, ">u2").reshape(width, 3))
    return np.stack(rows)
