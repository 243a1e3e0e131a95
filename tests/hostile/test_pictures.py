"""Pictures made to do harm. Each is given up with one line, soon, and within little memory.

| abuse | outcome |
|---|---|
| a PNG that promises 3.6 billion pixels | refused by its header (`tests/test_images.py`) |
| a DICOM file, a JPEG or JPEG 2000 stream that does | refused by its header |
| deflated DICOM that inflates to gigabytes, with or without the usual 128 bytes before it | inflated once, stopped |
| a few kilobytes that are a hundred million transparent pixels | made RGB in strips, within a gigabyte |
| RLE that unpacks to more than its picture | unpacked as far as the picture goes |
| a palette whose segments ask for billions of entries | expanded as far as the palette goes |
| a JPEG stream that makes GDCM end the process | the decoder's process ends, the one line is an answer |
| a progressive JPEG with hundreds of scans | refused (`tests/test_images.py`) |
| elements that quote a patient in what goes wrong | no word of theirs in what is said (`tests/test_dicom.py`) |
"""

import json
import resource
import struct
import subprocess
import sys
import textwrap
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imc_lite import ImcError, load_image
from imc_lite.images import raster

pydicom = pytest.importorskip("pydicom", reason="DICOM is read with imc-lite[dicom]")
from dicom_files import make, written  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.uid import JPEGBaseline8Bit, RLELossless  # noqa: E402

HERE = Path(__file__).parent
GIB = 1 << 30


@cache
def zeros(size: int) -> bytes:
    """Elements that hold `size` zeros of pixel data, deflated to a thousandth of that."""
    packer, block = zlib.compressobj(1, zlib.DEFLATED, -15), bytes(1 << 24)
    parts = [packer.compress(b"\x08\x00\x16\x00UI\x02\x001\0\xe0\x7f\x10\x00OB\0\0" + struct.pack("<I", size))]
    parts += [packer.compress(block) for _ in range(size // len(block))]
    return b"".join([*parts, packer.flush()])


@pytest.mark.slow
@pytest.mark.parametrize(("preamble", "implicit_header"), [(True, False), (False, False), (True, True)])
def test_deflated_bombs_are_stopped_early(preamble, implicit_header, tmp_path):
    uid = b"1.2.840.10008.1.2.1.99"
    # Some writers have the header in implicit VR, and pydicom reads it.
    header = b"\x02\x00\x10\x00" + (b"" if implicit_header else b"UI") + struct.pack("<H", len(uid))
    header += (b"\0\0" if implicit_header else b"") + uid
    path = tmp_path / "bomb"
    path.write_bytes((bytes(128) + b"DICM" if preamble else b"") + header + zeros(GIB // 2))
    assert path.stat().st_size < 4_000_000
    found = limited(path)
    assert "unpacks to over 256 MiB" in found["line"] and found["peak"] < GIB // 2


def limited(path: Path) -> dict:
    """What a process of its own makes of a picture: its line, and the most memory that it held."""
    program = r"""
        import json, re, sys
        from pathlib import Path
        from imc_lite import ImcError, load_image
        try:
            found = {"shape": load_image(sys.argv[1]).shape}
        except ImcError as error:
            found = {"line": str(error)}
        # Not getrusage: that counts what this process held when it started the other one.
        held = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]
        print(json.dumps(found | {"peak": 1024 * int(held)}))
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_largest_picture_takes_less_than_a_gigabyte(tmp_path):
    path = tmp_path / "large.png"
    Image.new("LA", (10_000, 9_999), (200, 100)).save(path)
    found = limited(path)
    assert found["shape"] == [9_999, 10_000, 3] and found["peak"] < GIB


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "PA", "CMYK", "YCbCr"])
def test_strips_make_no_difference(mode, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 40, 4), np.uint8)
    picture = Image.fromarray(pixels, "RGBA")
    picture = picture.convert(mode) if mode in ("RGBA", "LA", "PA") else picture.convert("RGB").convert(mode)
    if mode in ("L", "P"):
        picture.info["transparency"] = 5
    whole = load_image(picture)
    monkeypatch.setattr(raster, "STRIP_PIXELS", 7 * 40)
    assert np.array_equal(load_image(picture), whole)


def test_rle_stops_at_the_size_of_its_picture():
    run = bytes([129, 7]) * 200_000  # 25 million sevens
    header = struct.pack("<16L", 1, 64, *[0] * 14)
    dataset = make(np.zeros((10, 10), np.uint8), RLELossless, PixelData=encapsulate([header + run]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (load_image(written(dataset)) == 0).all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000
    for broken in (header, header + b"\5\1", struct.pack("<16L", 15, *[64] * 15) + run, b"\1"):
        dataset.PixelData = encapsulate([broken])
        with pytest.raises(ImcError, match="damaged"):
            load_image(written(dataset))


def test_a_stream_that_ends_the_decoder_is_one_line():
    pytest.importorskip("gdcm", reason="JPEG is read with imc-lite[dicom]")
    code = (HERE / "decoder_abort.jpg").read_bytes()
    dataset = make(np.zeros((3, 3, 3), np.uint8), JPEGBaseline8Bit, PixelData=encapsulate([code]))
    with pytest.raises(ImcError, match=r"pixel data that (make the decoder fail|are damaged).*JPEG Baseline"):
        load_image(written(dataset))


def test_every_byte_of_a_header_may_be_wrong():
    """Each byte of the elements of a small file becomes 0, 255 or its neighbour's value, in turn."""
    whole = written(make(np.arange(16, dtype=np.uint16).reshape(4, 4), WindowCenter=8, WindowWidth=16))
    for at in range(132, len(whole) - 32):
        value = (0, 255, whole[at - 1])[at % 3]
        try:
            picture = load_image(whole[:at] + bytes([value]) + whole[at + 1 :])
        except ImcError as error:
            assert "\n" not in str(error) and "Doe" not in str(error) and "4711" not in str(error)
        else:
            assert picture.dtype == np.uint8 and picture.ndim == 3


def test_sequences_in_sequences_end():
    """Ten thousand of them, each in the one before."""
    deep = b"\x40\x00\x60\x02SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 10_000
    whole = written(make(np.zeros((4, 4), np.uint8)))
    at = whole.index(b"\xe0\x7f\x10\x00")
    with pytest.raises(ImcError, match="damaged or incomplete"):
        load_image(whole[:at] + deep + whole[at:])
