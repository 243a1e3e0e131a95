"""The process that decodes compressed pixel data, so that a crash or a hang of a C library stays in it.

`imc_lite.images.codec` starts it and is the only one to talk to it, over standard input and output:

    request    header, code        header: {"syntax", "photometric", "rows", "columns", "samples", "bits",
                                            "signed", "seconds", "length"}
    reply      header, samples     header: {"length", "container"}, or {"length": 0, "error": true}

A header is four bytes of length (big endian) and JSON; `length` counts the bytes that follow it. Samples stand pixel by
pixel, in little-endian words of `container` bits. The first reply, {"ready": true}, comes unasked.

It imports GDCM alone at first, which takes a fifth of the time that pydicom does.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
from typing import IO, Any

SPARE_MEMORY = 256 << 20  # bytes, beside what samples need
BYTES_PER_SAMPLE = 24  # GDCM and OpenJPEG hold a sample in several buffers of 1 to 4 bytes at once
LONGEST_HEADER = 4096
JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")


def main() -> None:
    """Answer requests until standard input ends, which it does with the process that started this one."""
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries print where they like
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; our end is that of the input
    gdcm = _gdcm()
    write_message(replies, {"ready": True, "length": 0})
    while (request := read_message(requests)) is not None:
        header, code = request
        _limit(header)
        try:
            samples, container = _decode(gdcm, header, code)
        except Exception:  # decoders raise what they like, and it may quote what they read
            write_message(replies, {"error": True, "length": 0})
        else:
            write_message(replies, {"container": container, "length": len(samples)}, samples)
        _limit(None)


def read_message(stream: IO[bytes], most: int | None = None) -> tuple[dict[str, Any], bytes] | None:
    """A header and the bytes that follow it; None where the stream ends early or they are more than `most`."""
    start = _read(stream, 4)
    length = struct.unpack(">I", start)[0] if len(start) == 4 else LONGEST_HEADER + 1
    if length > LONGEST_HEADER:
        return None
    try:
        header = json.loads(_read(stream, length))
        length = int(header["length"])
    except (ValueError, KeyError, TypeError):
        return None
    if length < 0 or (most is not None and length > most):
        return None
    body = _read(stream, length)
    return (header, body) if len(body) == length else None


def write_message(stream: IO[bytes], header: dict[str, Any], body: bytes = b"") -> None:
    """The counterpart of `read_message`."""
    text = json.dumps(header).encode()
    for part in (struct.pack(">I", len(text)) + text, body):
        left = memoryview(part)
        while left:
            left = left[stream.write(left) :]
    stream.flush()


def _read(stream: IO[bytes], length: int) -> bytes:
    """`length` bytes, fewer where the stream ends; a pipe gives them in pieces."""
    pieces = []
    while length and (piece := stream.read(length)):
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)


def _limit(header: dict[str, Any] | None) -> None:
    """Memory and time for one request, or no limit; where the system has none to set, the parent's own clock stays."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold the picture
        most = resource.getrlimit(resource.RLIMIT_AS)[1]
        if header is None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
            return
        # An alarm ends this process even when it hangs in C and the parent, whose clock rings first, is gone.
        signal.setitimer(signal.ITIMER_REAL, header["seconds"] + 2)
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        need = used + SPARE_MEMORY + header["rows"] * header["columns"] * header["samples"] * BYTES_PER_SAMPLE
        resource.setrlimit(resource.RLIMIT_AS, (need if most == resource.RLIM_INFINITY else min(need, most), most))
    except (ImportError, AttributeError, OSError, ValueError):
        pass


def _gdcm() -> Any:
    try:
        import gdcm
    except ImportError:
        return None
    return gdcm


def _decode(gdcm: Any, header: dict[str, Any], code: bytes) -> tuple[bytes, int]:
    """Samples, and the bits of the words they are in."""
    if gdcm is not None and (decoded := _by_gdcm(gdcm, header, code)) is not None:
        return decoded
    return _by_plugins(header, code)


def _by_gdcm(gdcm: Any, header: dict[str, Any], code: bytes) -> tuple[bytes, int] | None:
    """GDCM's decoding, None where it has none. It never changes colours but for undoing those of JPEG 2000."""
    syntax = gdcm.TransferSyntax.GetTSType(header["syntax"])
    if syntax == gdcm.TransferSyntax.TS_END or (header["syntax"] in JPEG_LS and header["bits"] in (6, 7)):
        return None  # its JPEG-LS codec reads 6 and 7 bits wrongly
    container = next(bits for bits in (8, 16, 32) if header["bits"] <= bits)
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(code)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    pixel_data = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    pixel_data.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((header["columns"], header["rows"], 1))
    image.SetDataElement(pixel_data)
    kind = gdcm.PhotometricInterpretation.GetPIType(header["photometric"])
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    if header["samples"] > 1:
        image.SetPlanarConfiguration(0)
    image.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    bits, signed = header["bits"], int(header["signed"])
    image.SetPixelFormat(gdcm.PixelFormat(header["samples"], container, bits, bits - 1, signed))
    buffer = image.GetBuffer()
    return None if buffer is None else (buffer.encode("utf-8", "surrogateescape"), container)


def _by_plugins(header: dict[str, Any], code: bytes) -> tuple[bytes, int]:
    """What else is installed for pydicom: it knows 12-bit lossy JPEG and High-Throughput JPEG 2000."""
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder

    decoder = get_decoder(header["syntax"])
    plugins = [p for p in decoder.available_plugins if p != "gdcm"]
    if header["samples"] > 1 and len(plugins) > 1:
        plugins = [p for p in plugins if p != "pillow"]  # which turns YBR into RGB where a marker says so
    options: dict[str, Any] = {
        "number_of_frames": 1,
        "rows": header["rows"],
        "columns": header["columns"],
        "samples_per_pixel": header["samples"],
        "photometric_interpretation": header["photometric"],
        "planar_configuration": 0,
        "bits_allocated": 8 if header["bits"] <= 8 else 16,
        "bits_stored": header["bits"],
        "pixel_representation": int(header["signed"]),
        "pixel_keyword": "PixelData",
    }
    for plugin in plugins:
        try:
            samples, _ = decoder.as_array(encapsulate([code]), index=0, raw=True, decoding_plugin=plugin, **options)
            return samples.astype(samples.dtype.newbyteorder("<")).tobytes(), 8 * samples.dtype.itemsize
        except Exception:
            continue
    raise ValueError("no decoder reads it")
