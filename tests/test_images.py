"""Every kind of picture loads; everything else gives one clear line."""

import gzip
import io
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from imc_lite import ImcError, load_image
from imc_lite.errors import shown
from imc_lite.models.exported.picture_steps import prepare


@pytest.fixture(scope="module")
def picture(chest) -> Image.Image:
    return Image.open(chest).convert("RGB").resize((60, 40))


def _bytes(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "JPEG", "WEBP"])
def test_formats(picture, kind):
    got = load_image(_bytes(picture, kind))
    assert got.shape == (40, 60, 3) and got.dtype == np.uint8
    assert np.abs(got.astype(int) - np.asarray(picture)).mean() < 8


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK"])
def test_modes_become_rgb(picture, mode):
    kind = "TIFF" if mode == "CMYK" else "PNG"
    got = load_image(_bytes(picture.convert(mode), kind))
    assert got.shape == (40, 60, 3)
    assert abs(got.mean() - np.asarray(picture).mean()) < 15


def test_transparency_lies_on_black(picture):
    clear = picture.convert("RGBA")
    clear.putalpha(0)
    assert load_image(_bytes(clear, "PNG")).max() == 0


def test_palette_with_transparency(picture):
    data = _bytes(picture.convert("P"), "PNG", transparency=0)
    assert load_image(data).shape == (40, 60, 3)


def test_a_palette_of_colours_that_are_transparent_lies_on_black():
    clear = Image.new("RGBA", (4, 4), (200, 100, 50, 0))
    assert load_image(clear.quantize(4)).max() == 0
    assert load_image(clear.convert("RGB").quantize(4)).max() > 150


def test_what_is_said_of_another_mode_is_passed_over(picture):
    """Pillow carries which value is transparent over to modes in which it means nothing."""
    told = Image.open(io.BytesIO(_bytes(picture, "PNG", transparency=(1, 2, 3))))
    assert load_image(told.quantize(8)).shape == (40, 60, 3)
    told = Image.open(io.BytesIO(_bytes(picture.convert("P"), "PNG", transparency=b"\0\1")))
    assert load_image(told.convert("1")).shape == (40, 60, 3)


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "WEBP", "BMP"])
def test_one_opened_image_for_several_threads(kind):
    """Pillow reads the rest of a file when it is first asked for pixels."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8))
    data = _bytes(noise, kind)
    wanted = load_image(data)
    for _ in range(6):
        opened, together = Image.open(io.BytesIO(data)), threading.Barrier(4)

        def load(_: int, opened: Image.Image = opened, together: threading.Barrier = together) -> np.ndarray:
            together.wait()
            return load_image(opened)

        with ThreadPoolExecutor(4) as threads:
            assert all(np.array_equal(found, wanted) for found in threads.map(load, range(4)))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_deep_pictures_are_stretched(dtype):
    ramp = np.tile(np.arange(4096, dtype=dtype)[::64], (8, 1))  # 12-bit values
    kind = "PNG" if dtype == np.uint16 else "TIFF"
    got = load_image(_bytes(Image.fromarray(ramp), kind))
    assert got.min() == 0 and got.max() == 255
    assert (np.diff(got[0, :, 0].astype(int)) >= 0).all()


def test_exif_rotation_is_applied(picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    assert load_image(_bytes(picture, "JPEG", exif=exif)).shape == (60, 40, 3)


def test_first_frame_of_many(picture):
    data = _bytes(picture, "TIFF", save_all=True, append_images=[Image.new("RGB", (5, 5))])
    assert load_image(data).shape == (40, 60, 3)


def test_tiny_and_arrays():
    assert load_image(_bytes(Image.new("L", (1, 1), 7), "PNG")).tolist() == [[[7, 7, 7]]]
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert load_image(grey).shape == (2, 3, 3)
    assert load_image(np.full((2, 2, 3), 0.5)).tolist() == [[[128] * 3] * 2] * 2
    for bad in (np.zeros((2, 2, 4), np.uint8), np.zeros((0, 3)), np.full((2, 2), 9.0), np.zeros((2, 2), np.int64)):
        with pytest.raises(ImcError):
            load_image(bad)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _bomb() -> bytes:
    """A valid PNG that promises 60,000 x 60,000 pixels in a few hundred bytes."""
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(bytes(60001)))


BAD = {
    "bomb": (_bomb, "million pixels"),
    "truncated": (lambda: _bytes(Image.effect_noise((200, 200), 50), "PNG")[:900], "damaged"),
    "half a jpeg": (lambda: _bytes(Image.effect_noise((200, 200), 50), "JPEG")[:2000], "damaged"),
    "text": (lambda: b"this is no picture", "not a picture"),
    "gif": (lambda: _bytes(Image.new("P", (3, 3)), "GIF"), "not a picture"),
    "broken chunk": (lambda: _bytes(Image.new("L", (9, 9)), "PNG")[:40] + b"\xff" * 60, "or is damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_give_one_line(name, tmp_path):
    make, why = BAD[name]
    path = tmp_path / "bad.png"
    path.write_bytes(make())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImcError, match=why) as caught:
            load_image(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_missing_folder_and_empty(tmp_path):
    (tmp_path / "empty.png").touch()
    for path, why in ((tmp_path / "no.png", "does not exist"), (tmp_path, "folder"), (tmp_path / "empty.png", "empty")):
        with pytest.raises(ImcError, match=why):
            load_image(path)
    with pytest.raises(ImcError, match="cannot read"):
        load_image("nul\0byte.png")


def test_sources_of_a_wrong_type_give_one_line(tmp_path):
    class Closed(io.BytesIO):
        def read(self, *size):
            raise ValueError("I/O operation on closed file")

    whole = gzip.compress(bytes(range(256)) * 9)
    read = io.BytesIO(b"abc")
    read.read()
    for bad, why in (
        (io.StringIO("text"), "binary mode"),
        (Closed(), "cannot be read"),
        (gzip.GzipFile(fileobj=io.BytesIO(whole[:-9])), "stream cannot be read .*ended"),
        (read, "stream is at its end; seek"),
        (np.ma.masked_invalid(np.full((4, 4), np.nan)), "without NaN"),
        (None, "not NoneType"),
        (5, "not int"),
        (["a.png"], "not list"),
        ({"path": "a.png"}, "not dict"),
        (b"", "is empty"),
        (np.full((4, 4), 255.0), "must be within 0-1"),
        (np.full((4, 4), np.nan), "without NaN"),
        (np.zeros((0, 50)), r"not \[0, 50\]"),
        (np.zeros((4, 4), np.int32), "not int32"),
    ):
        with pytest.raises(ImcError, match=why):
            load_image(bad)


def test_bytes_of_any_kind_are_a_file(picture):
    data = _bytes(picture, "PNG")
    for source in (bytearray(data), memoryview(data), io.BytesIO(data), io.BufferedReader(io.BytesIO(data))):
        assert (load_image(source) == load_image(data)).all()


def test_errors_repeat_80_characters_at_most():
    uri = "data:image/png;base64," + "A" * 5000
    for source, why in ((uri, "is a data URI, not a path"), ("x" * 5000 + ".png", "cannot read"), ("a\nb", "exist")):
        with pytest.raises(ImcError, match=why) as caught:
            load_image(source)
        assert len(str(caught.value)) < 200 and "\n" not in str(caught.value)
    assert shown("x" * 81) == "x" * 26 + "…" + "x" * 53 and len(shown("x" * 81)) == 80
    assert shown("x" * 80) == "x" * 80 and shown("/a/b\t\udc80") == "/a/b\ufffd\ufffd"


def test_a_jpeg_of_endless_scans_is_refused(picture):
    """Each scan of a progressive JPEG passes over the whole picture: a small file could take minutes."""
    data = _bytes(picture, "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    with pytest.raises(ImcError, match="over 100 scans"):
        load_image(data[:-2] + data[start:-2] * 200 + data[-2:])
    # Pillow takes the same file for another format where it names further pictures.
    further = io.BytesIO()
    picture.save(further, "MPO", save_all=True, append_images=[picture])
    mark = further.getvalue()
    at, size = mark.index(b"\xff\xe2"), int.from_bytes(mark[mark.index(b"\xff\xe2") + 2 :][:2], "big") + 2
    named = data[:2] + mark[at : at + size] + data[2:-2]
    assert Image.open(io.BytesIO(named + data[-2:])).format == "MPO"
    with pytest.raises(ImcError, match="over 100 scans"):
        load_image(named + data[start:-2] * 200 + data[-2:])
    assert load_image(data).shape == (40, 60, 3)


def test_what_is_behind_the_end_of_a_jpeg_is_no_scan(picture):
    """A telephone puts a film there."""
    data = _bytes(picture, "JPEG")
    assert np.array_equal(load_image(data + b"\xff\xda" * 200), load_image(data))


def test_a_picture_too_thin_for_a_model_that_scales_its_shorter_side():
    spec = {"pad": None, "views": [[["shortest", 8], ["crop", 8, 8]]], "resample": 3, "scale": 1, "mean": [0] * 3}
    spec |= {"std": [1] * 3, "patches": None}
    assert prepare(np.zeros((2, 400, 3), np.uint8), spec).shape == (1, 3, 8, 8)
    with pytest.raises(ImcError, match="402 x 2 pixels is too thin"):
        prepare(np.zeros((2, 402, 3), np.uint8), spec)


@pytest.mark.parametrize("photometric", [0, 1])
def test_a_pillow_image_is_read_as_its_file_is(tmp_path, photometric):
    """Also where white is zero, which the copy that Pillow turns does not know."""
    values = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    Image.fromarray(values).save(tmp_path / "deep.tif", tiffinfo={262: photometric})
    with Image.open(tmp_path / "deep.tif") as opened:
        assert opened.tag_v2[262] == photometric
        assert np.array_equal(load_image(opened), load_image(tmp_path / "deep.tif"))
    first, last = load_image(tmp_path / "deep.tif")[[0, -1], [0, -1], 0]
    assert (first > last) == (photometric == 0)


def test_a_pillow_image_with_a_palette_of_8_bits_is_read_as_its_file_is(tmp_path):
    picture = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16), "P")
    picture.putpalette(bytes(range(256)) * 3)
    picture.save(tmp_path / "p.tif")
    data = bytearray((tmp_path / "p.tif").read_bytes())
    entry = next(i for i in range(len(data)) if data[i : i + 4] == b"\x40\x01\x03\x00")
    at = int.from_bytes(data[entry + 8 : entry + 12], "little")
    data[at : at + 1536] = np.frombuffer(data[at : at + 1536], "<u2").astype("<u2").__rshift__(8).tobytes()
    (tmp_path / "p.tif").write_bytes(data)
    with Image.open(tmp_path / "p.tif") as opened:
        assert np.array_equal(load_image(opened), load_image(tmp_path / "p.tif"))
        assert load_image(opened).max() > 200


def test_what_is_said_while_a_library_is_silent_is_heard():
    """A thread that reads a TIFF points descriptor 2 of the whole process elsewhere."""
    script = (
        "import sys, click; from imc_lite.cli.main import _keep_stderr; "
        "from imc_lite.images.decoder_output import no_stderr; _keep_stderr()\n"
        "with no_stderr: click.echo('heard', err=True); print('too', file=sys.stderr)\n"
        "import os; os.write(2, b'and this')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == "heard\ntoo\nand this"


def test_libraries_do_not_speak(picture, capfd):
    """libtiff and libjpeg have words of their own for damaged files."""
    data = _bytes(picture, "TIFF", compression="tiff_lzw")
    for at in range(200, 600, 10):
        damaged = bytearray(data)
        damaged[at : at + 4] = b"\xff" * 4
        try:
            load_image(bytes(damaged))
        except ImcError as error:
            assert "\n" not in str(error)
    assert capfd.readouterr() == ("", "")
