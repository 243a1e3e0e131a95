"""More than 8 bits a sample, signs, floats and odd palettes in PNG and TIFF: as stored, stretched."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from imc_lite import ImcError, load_image

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(100, 4096, (7, 9, 3)).astype(np.uint16)  # 12 bits in 16
OPACITY = np.full((7, 9, 1), 65535, np.uint16)
OPACITY[0], OPACITY[1] = 0, 32768


def png(samples: np.ndarray, colour_type: int, *extra: tuple[bytes, bytes]) -> bytes:
    """A 16-bit PNG without filters."""
    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(samples: np.ndarray, photometric: int, order: str = "<", deflate: bool = False, **tags: list[int]) -> bytes:
    """A TIFF of one strip; `tags` are further 16-bit values by `tNUMBER`."""
    channels = samples.shape[2] if samples.ndim == 3 else 1
    width = 8 * samples.dtype.itemsize
    kind = {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    data = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    data = zlib.compress(data) if deflate else data
    values = {256: [samples.shape[1]], 257: [samples.shape[0]], 258: [width] * channels, 262: [photometric]}
    values |= {259: [8 if deflate else 1], 277: [channels], 278: [samples.shape[0]], 339: [kind] * channels}
    values |= {int(name[1:]): value for name, value in tags.items()}
    after = 8 + 2 + 12 * (len(values) + 2) + 4
    entries, tail = [], b""
    for tag in sorted([*values, 273, 279]):
        if tag in (273, 279):
            entries.append(struct.pack(f"{order}HHII", tag, 4, 1, len(data)) if tag == 279 else b"offset")
            continue
        packed = struct.pack(f"{order}{len(values[tag])}H", *values[tag])
        if len(packed) > 4:
            tail, packed = tail + packed, struct.pack(f"{order}I", after + len(tail))
        entries.append(struct.pack(f"{order}HHI", tag, 3, len(values[tag])) + packed.ljust(4, b"\0"))
    offset = struct.pack(f"{order}HHII", 273, 4, 1, after + len(tail))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    ifd = struct.pack(f"{order}H", len(entries)) + b"".join(offset if e == b"offset" else e for e in entries)
    return head + ifd + bytes(4) + tail + data


def stretched(values: np.ndarray) -> np.ndarray:
    values = values.astype(float)
    low, high = np.nanmin(values), np.nanmax(values)
    return np.rint((values - low) * 255 / (high - low))


def grey(data: bytes) -> np.ndarray:
    picture = load_image(data)
    assert (picture == picture[..., :1]).all()
    return picture[..., 0]


def test_png_colours_use_all_their_bits():
    assert (load_image(png(COLOURS, 2)) == stretched(COLOURS)).all()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflate", [False, True])
def test_tiff_colours_use_all_their_bits(order, deflate):
    assert (load_image(tiff(COLOURS, 2, order, deflate)) == stretched(COLOURS)).all()


def test_what_is_transparent_is_black_and_no_part_of_the_stretch():
    colours = COLOURS.copy()
    colours[0] = 65535
    share = OPACITY / 65535
    seen = np.where(OPACITY > 0, colours, COLOURS[3, 3])
    right = np.rint(stretched(seen) * share)
    for data in (
        png(np.concatenate([colours, OPACITY], 2), 6),
        tiff(np.concatenate([colours, OPACITY], 2), 2, t338=[2]),
    ):
        assert np.abs(load_image(data).astype(int) - right).max() <= 1
    found = load_image(png(np.concatenate([colours[..., :1], OPACITY], 2), 4))
    right = np.rint(stretched(np.where(OPACITY > 0, colours, COLOURS[3, 3])[..., :1]) * share)
    assert np.abs(found.astype(int) - right).max() <= 1
    # Colours that are already multiplied by their opacity are not multiplied again.
    found = load_image(tiff(np.concatenate([COLOURS, OPACITY], 2), 2, t338=[1]))
    assert (found == stretched(COLOURS)).all()


def test_one_transparent_colour_or_grey():
    key = COLOURS[2, 2]
    found = load_image(png(COLOURS, 2, (b"tRNS", key.astype(">u2").tobytes())))
    assert found[2, 2].tolist() == [0, 0, 0] and (found != 0).any()
    values = COLOURS[..., 0].copy()
    values[0] = 65535
    found = grey(png(values, 0, (b"tRNS", b"\xff\xff")))
    assert (found[0] == 0).all() and (found[1:] == stretched(values[1:])).all()


def test_cmyk_of_16_bits():
    ink = RNG.integers(0, 65536, (5, 5, 4)).astype(np.uint16)
    right = stretched((65535 - ink[..., :3].astype(float)) * (65535 - ink[..., 3:].astype(float)))
    assert np.abs(load_image(tiff(ink, 5)).astype(int) - right).max() <= 1


def test_planes_of_16_bits_are_refused():
    for deflate in (False, True):
        with pytest.raises(ImcError, match="separate planes"):
            load_image(tiff(COLOURS, 2, deflate=deflate, t284=[2]))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_white_may_be_zero(dtype):
    values = COLOURS[..., 0].astype(dtype)
    assert (grey(tiff(values, 1)) == stretched(values)).all()
    assert (grey(tiff(values, 0)) == 255 - stretched(values)).all()


def test_signs_are_as_stored():
    values = np.array([[0, 1 << 31, (1 << 32) - 1]], np.uint32)
    assert grey(tiff(values, 1)).tolist() == [[0, 128, 255]]
    for dtype in (np.int8, np.int16, np.int32):
        assert grey(tiff(np.array([[-128, 0, 127]], dtype), 1)).tolist() == [[0, 128, 255]], dtype


def test_what_is_no_number_is_black_and_no_part_of_the_stretch():
    values = np.array([[-2, np.nan, -1.5, -1, np.inf, -np.inf]], np.float32)
    assert grey(tiff(values, 1)).tolist() == [[0, 0, 128, 255, 255, 0]]
    assert (load_image(Image.fromarray(values)) == load_image(tiff(values, 1))).all()
    assert grey(tiff(np.array([[1, np.nan, 2]], np.float32), 0)).tolist() == [[255, 0, 0]]
    with pytest.raises(ImcError, match="no pixel that is a number"):
        load_image(tiff(np.full((2, 2), np.nan, np.float32), 1))


def test_a_palette_of_8_bits_in_16():
    indices = np.array([[0, 1, 2]], np.uint8)
    colours = np.zeros((3, 256), int)
    colours[:, 1], colours[:, 2] = (255, 0, 7), (1, 2, 3)
    for factor in (1, 257):
        found = load_image(tiff(indices, 3, t320=(colours * factor).ravel().tolist()))
        assert found.tolist() == [[[0, 0, 0], [255, 0, 7], [1, 2, 3]]], factor
