"""Each element that turns stored values into grey does what the standard and DCMTK make of it, or is named."""

import io
import struct
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from imc_lite import ImcError, load_image

pydicom = pytest.importorskip("pydicom", reason="DICOM is read with imc-lite[dicom]")
from dicom_files import make, ramp, row, written  # noqa: E402
from pydicom.dataset import Dataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.uid import (  # noqa: E402
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR")
COUNTED = np.arange(256, dtype=np.uint16)[None].repeat(2, 0) * 16  # 12 bits
CURVE = np.rint(np.sqrt(np.arange(4096) / 4095) * 4095).astype(int)


def line(data: bytes, **options) -> np.ndarray:
    return load_image(data, **options)[0, :, 0].astype(int)


def linear(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, float)
    return np.rint((values - values.min()) * 255 / (values.max() - values.min())).astype(int)


def windowed(values: np.ndarray, centre: float, width: float) -> np.ndarray:
    """C.11.2.1.2.1 of PS3.3."""
    return np.rint(255 * np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)).astype(int)


def table(data, descriptor=(4096, 0, 12), vr="OW", signed=False) -> Dataset:
    item = Dataset()
    data = data.astype("<u2").tobytes() if isinstance(data, np.ndarray) and vr == "OW" else data
    item.add_new("LUTDescriptor", "SS" if signed else "US", list(descriptor))
    item.add_new("LUTData", vr, data)
    return item


def as_file(dataset: Dataset, implicit: bool = False, little: bool = True) -> bytes:
    dataset.file_meta.TransferSyntaxUID = (
        ExplicitVRBigEndian if not little else ImplicitVRLittleEndian if implicit else "1.2.840.10008.1.2.1"
    )
    buffer = io.BytesIO()
    dataset.save_as(buffer, implicit_vr=implicit, little_endian=little)
    return buffer.getvalue()


# Lookup tables


@pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize(("implicit", "little"), [(False, True), (True, True), (False, False)])
def test_tables_as_words_or_numbers_in_every_encoding(sequence, implicit, little):
    values = COUNTED.astype("<u2" if little else ">u2")
    right = linear(CURVE[COUNTED[0]]) if sequence.startswith("Mod") else np.rint(CURVE[COUNTED[0]] * 255 / 4095)
    for vr, data in (("OW", CURVE.astype(values.dtype).tobytes()), ("US", CURVE.tolist())):
        dataset = make(values, BitsStored=12, HighBit=11)
        setattr(dataset, sequence, [table(data, vr=vr)])
        assert np.abs(line(as_file(dataset, implicit, little)) - right).max() <= 1, vr


def test_tables_of_8_bits_one_or_two_in_a_word():
    entries = (CURVE >> 4).astype(np.uint8)
    right = entries[COUNTED[0]]
    for vr, data in (
        ("US", entries.tolist()),
        ("OW", entries.astype("<u2").tobytes()),
        ("OW", entries.tobytes()),
        ("US", np.frombuffer(entries.tobytes(), "<u2").tolist()),
    ):
        dataset = make(COUNTED, BitsStored=12, HighBit=11, VOILUTSequence=[table(data, (4096, 0, 8), vr)])
        assert (row(dataset) == right).all()


def test_tables_have_0_to_their_bits_and_not_their_own_range():
    part = CURVE // 4 + 1000
    dataset = make(COUNTED, BitsStored=12, HighBit=11, VOILUTSequence=[table(part)])
    assert np.abs(row(dataset) - part[COUNTED[0]] * 255 / 4095).max() <= 1


def test_the_first_value_of_a_table_has_the_sign_of_its_values():
    stored = (COUNTED.astype(np.int16) - 1024)[:, :200]
    right = np.rint(CURVE[COUNTED[0, :200]] * 255 / 4095)
    for first, signed in ((-1024, True), (64512, False)):
        dataset = make(stored, VOILUTSequence=[table(CURVE, (4096, first, 12), signed=signed)])
        assert np.abs(row(dataset) - right).max() <= 1
    # Unsigned as stored, but not after the rescale.
    unsigned = make(COUNTED[:, :200], RescaleSlope=1, RescaleIntercept=-1024)
    unsigned.VOILUTSequence = [table(CURVE, (4096, 64512, 12))]
    assert np.abs(row(unsigned) - right).max() <= 1
    # A first value that is large and unsigned stays so.
    high = make(COUNTED[:, :200] + np.uint16(40000), VOILUTSequence=[table(CURVE, (4096, 40000, 12))])
    assert np.abs(row(high) - right).max() <= 1
    # What leaves a modality table is never negative, so implicit VR's signed reading of the next first value is wrong.
    both = make(stored, ModalityLUTSequence=[table(CURVE + 40000, (4096, -1024, 16), signed=True)])
    both.VOILUTSequence = [table(CURVE, (4096, 40000, 12))]
    found = line(as_file(both, implicit=True))
    assert np.abs(found - np.rint(CURVE[CURVE[COUNTED[0, :200]]] * 255 / 4095)).max() <= 1


@pytest.mark.parametrize(
    "item",
    [
        table(CURVE, (4096, 0, 8)),
        table(CURVE[:4000]),
        table(CURVE, (4096, 0, 0)),
        table(CURVE, (4096, 0, 17)),
        table(CURVE, (4096, 0)),
        Dataset(),
    ],
)
def test_tables_that_contradict_their_descriptor_are_named(item):
    for sequence in ("VOILUTSequence", "ModalityLUTSequence"):
        with pytest.raises(ImcError, match=f"{sequence}.*LUTDescriptor"):
            row(make(COUNTED, **{sequence: [item]}))


# Stored bits


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_high_bit_says_where_values_are(dtype):
    values = (COUNTED.astype(np.int64) - (2048 if dtype == np.int16 else 0)) & 0xFFF
    for high_bit in (11, 13, 15):
        shift = high_bit - 11
        cells = (values << shift).astype(np.uint16)
        # Other bits may hold anything: an overlay, or what was in memory.
        cells[:, ::3] |= np.uint16(~(0xFFF << shift) & 0xFFFF)
        dataset = make(cells.view(dtype), BitsStored=12, HighBit=high_bit)
        assert np.abs(row(dataset) - linear(COUNTED[0])).max() <= 1, high_bit
        assert np.abs(line(written(_rle(dataset))) - linear(COUNTED[0])).max() <= 1, high_bit


def _rle(dataset: Dataset) -> Dataset:
    """RLE with runs of one byte, the most significant bytes first."""
    cells = np.frombuffer(dataset.PixelData, "<u2")
    segments = [b"".join(bytes([0, b]) for b in plane.astype(np.uint8).tolist()) for plane in (cells >> 8, cells & 255)]
    header = struct.pack("<16L", 2, 64, 64 + len(segments[0]), *[0] * 13)
    dataset.PixelData = encapsulate([header + b"".join(segments)])
    dataset.file_meta.TransferSyntaxUID = RLELossless
    return dataset


def test_bits_that_cannot_be_are_named():
    for bits in ({"HighBit": 7}, {"BitsStored": 0}, {"BitsStored": 17, "HighBit": 16}, {"HighBit": 16}):
        with pytest.raises(ImcError, match="BitsAllocated, BitsStored, HighBit"):
            row(make(COUNTED, **({"BitsStored": 12} | bits)))
    with pytest.raises(ImcError, match=r"12 bits \(BitsAllocated"):
        row(make(COUNTED, BitsAllocated=12, BitsStored=12, HighBit=11))


def test_32_bits_keep_their_differences():
    values = (np.arange(256, dtype=np.uint32) + 4_000_000_000)[None].repeat(2, 0)
    assert (row(make(values)) == np.arange(256)).all()


# Padding


@pytest.mark.parametrize(
    ("dtype", "padding", "limit"),
    [
        (np.int16, -2000, None),
        (np.int16, 63536, None),
        (np.uint16, 63536, None),
        (np.uint16, -2000, None),
        (np.int16, -2000, -1990),
        (np.uint16, 63536, 63546),
    ],
)
@pytest.mark.parametrize("window", [None, "full", "500,1000"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_no_part_of_the_stretch(dtype, padding, limit, window, photometric):
    values = np.arange(1001, dtype=dtype)[None].repeat(2, 0)
    values[:, :5] = np.int64(padding % 65536).astype(np.uint16).astype(dtype)
    if limit is not None:
        values[:, 2] += 7
    dataset = make(values, PhotometricInterpretation=photometric)
    dataset.add_new("PixelPaddingValue", "SS" if padding < 0 else "US", padding)
    if limit is not None:
        dataset.add_new("PixelPaddingRangeLimit", "SS" if padding < 0 else "US", limit)
    got = row(dataset, window=window)
    assert (got[:5] == 0).all()
    assert got[5:].min() <= 1 and got[5:].max() >= 254
    assert (got[6] > got[1000]) == (photometric == "MONOCHROME1")


def test_padding_may_stand_above_the_bits_that_count():
    cells = np.arange(1001, dtype=np.uint16)[None].repeat(2, 0)
    cells[:, :5] = 63536
    got = row(make(cells, BitsStored=12, HighBit=11, PixelPaddingValue=63536))
    assert (got[:5] == 0).all() and got[5] == 0 and got[1000] == 255


def test_padding_of_8_bits_and_of_floats():
    values = np.arange(256, dtype=np.uint8)[None].repeat(2, 0)
    got = row(make(values, PixelPaddingValue=255))
    assert got[255] == 0 and got[254] == 255
    got = row(_floats(np.array([[1.0, -999, 2, 3]]), FloatPixelPaddingValue=-999.0))
    assert got.tolist() == [0, 0, 128, 255]


def test_nothing_but_padding_is_an_error():
    with pytest.raises(ImcError, match="PixelPaddingValue"):
        row(make(np.full((3, 3), 7, np.uint16), PixelPaddingValue=7))


def _floats(values: np.ndarray, double: bool = False, **elements) -> Dataset:
    dataset = make(np.zeros(values.shape, np.uint8))
    for key in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(dataset, key)
    dataset.BitsAllocated = 64 if double else 32
    data = values.astype("<f8" if double else "<f4").tobytes()
    setattr(dataset, "DoubleFloatPixelData" if double else "FloatPixelData", data)
    for key, value in elements.items():
        setattr(dataset, key, value)
    return dataset


@pytest.mark.parametrize("double", [False, True])
def test_floats_that_are_no_numbers_are_black(double):
    values = np.array([[-2, np.nan, -1.5, -1, np.inf, -np.inf]])
    assert row(_floats(values, double)).tolist() == [0, 0, 128, 255, 255, 0]
    inverted = row(_floats(values, double, PhotometricInterpretation="MONOCHROME1"))
    assert inverted.tolist() == [255, 0, 127, 0, 0, 255]
    with pytest.raises(ImcError, match="not a number"):
        row(_floats(np.full((2, 2), np.nan), double))


# Rescale and window


@pytest.mark.parametrize("slope", ["0", "nan", "inf", "-inf"])
def test_a_slope_that_is_none_changes_nothing(slope):
    dataset = make(ramp(), RescaleSlope=slope, RescaleIntercept=5)
    assert (row(dataset) == linear(ramp()[0])).all()
    with pytest.raises(ImcError, match="no usable RescaleSlope"):
        row(dataset, window="lung")


def test_text_where_numbers_should_be_is_named():
    for key in ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"):
        data = written(make(ramp(), **{"RescaleSlope": 2, "WindowCenter": 9, "WindowWidth": 9, key: "12345678"}))
        with pytest.raises(ImcError, match=key):
            load_image(data.replace(b"12345678", b"text  1x"))


def test_a_slope_that_leaves_one_grey_is_named():
    with pytest.raises(ImcError, match="one grey by its RescaleSlope"):
        row(make(ramp(), RescaleSlope="1e-300", RescaleIntercept=1000))
    with pytest.raises(ImcError, match="one grey by its ModalityLUTSequence"):
        row(make(COUNTED, ModalityLUTSequence=[table(np.full(4096, 9))]))
    with pytest.raises(ImcError, match="one grey by VOILUTSequence"):
        row(make(COUNTED, VOILUTSequence=[table(np.full(4096, 9))]))


def test_a_window_that_shows_one_grey_is_an_error_when_asked_for():
    with pytest.raises(ImcError, match=r"--window 9000,2.*from -1000 to 1000"):
        row(make(ramp()), window="9000,2")
    for centre, width in (("nan", 5), (5, "nan"), (5, 0), (5, -3), ("inf", 5)):
        dataset = make(ramp(), WindowCenter=centre, WindowWidth=width)
        assert (row(dataset) == linear(ramp()[0])).all()


@pytest.mark.parametrize("kind", ["12.1", "12.2", "12.3"])
def test_what_leads_back_to_the_intensity_of_rays_is_no_part_of_what_is_shown(kind):
    """Angiography of logarithmic values carries the table that undoes the logarithm."""
    window = {"SOPClassUID": f"1.2.840.10008.5.1.4.1.1.{kind}", "WindowCenter": 0, "WindowWidth": 1000}
    wanted = row(make(ramp(), **window))
    for step in ({"ModalityLUTSequence": [table(CURVE)]}, {"RescaleSlope": 3, "RescaleIntercept": -50}):
        assert (row(make(ramp(), Modality="XA", PixelIntensityRelationship="LOG", **window, **step)) == wanted).all()
    of_ct = {**window, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}
    assert (row(make(ramp(), RescaleSlope=3, RescaleIntercept=-50, **of_ct)) != wanted).any()


def test_a_window_of_fractions_is_meant_exactly():
    """A map of diffusion in fractions of its unit, and one of floats (C.11.2.1.3.2)."""
    stored = np.arange(0, 3001, 300, dtype=np.uint16)[None].repeat(2, 0)
    wanted = np.rint(255 * np.clip((stored[0] / 1000 - 1.5) / 0.9 + 0.5, 0, 1))
    thousandth = {"RescaleSlope": "0.001", "RescaleIntercept": "0", "Modality": "MR"}
    window = {"WindowCenter": "1.5", "WindowWidth": "0.9"}
    for dataset, options in (
        (make(stored, **thousandth, **window), {}),
        (make(stored, **thousandth), {"window": "1.5,0.9"}),
    ):
        assert np.abs(row(dataset, **options) - wanted).max() <= 1
    wider = np.rint(255 * np.clip((stored[0] / 1000 - 1.5) / 1.8 + 0.5, 0, 1))
    assert np.abs(row(make(stored, **thousandth), window="1.5,1.8") - wider).max() <= 1
    floats = make((stored / 1000).astype(np.float32))
    floats.FloatPixelData = floats.PixelData
    for key in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(floats, key)
    assert np.abs(row(floats, window="1.5,1.8") - wider).max() <= 1
    # Whole numbers have the window of half units that the standard gives them.
    assert (row(make(ramp()), window="40,400") == windowed(ramp()[0], 40, 400)).all()


@pytest.mark.parametrize("shape", [(3, 5), (7, 9), (8, 8), (181, 217)])
def test_frames_of_single_bits_follow_each_other_without_padding(shape):
    bits = np.random.default_rng(0).integers(0, 2, (5, *shape)).astype(np.uint8)
    dataset = make(bits[0], BitsAllocated=1, BitsStored=1, HighBit=0, NumberOfFrames=5, Modality="SEG")
    packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
    dataset.PixelData = packed + bytes(len(packed) % 2)
    for index, frame in enumerate(bits):
        assert ((load_image(written(dataset), frame=index + 1)[..., 0] > 0) == frame).all()


@pytest.mark.parametrize(
    ("elements", "why"),
    [
        ({}, "it has no RescaleSlope and RescaleIntercept, and lung is"),
        ({"RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "Z_EFF"}, "its RescaleType names other units"),
    ],
)
def test_windows_with_names_are_for_hounsfield_units(elements, why):
    """A screen saved from a CT, and a map of effective atomic numbers."""
    with pytest.raises(ImcError, match=why):
        row(make(ramp(), **elements), window="lung")
    assert (row(make(ramp(), **elements), window="-600,1500") == windowed(ramp()[0], -600, 1500)).all()


def test_the_frames_own_window_does_not_mix_with_the_files_table():
    item, group = Dataset(), Dataset()
    item.WindowCenter, item.WindowWidth = 0, 1000
    group.FrameVOILUTSequence = [item]
    dataset = make(ramp(), VOILUTSequence=[table(CURVE)], PerFrameFunctionalGroupsSequence=[group])
    assert (row(dataset) == row(make(ramp(), WindowCenter=0, WindowWidth=1000))).all()


@pytest.mark.parametrize("shape", [None, "IDENTITY", "INVERSE", "LIN OD"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_the_presentation_shape_decides_as_in_dcmtk(shape, photometric):
    elements = {} if shape is None else {"PresentationLUTShape": shape}
    got = row(make(ramp(), PhotometricInterpretation=photometric, **elements))
    inverted = shape == "INVERSE" or (shape != "IDENTITY" and photometric == "MONOCHROME1")
    assert (got[0] > got[-1]) == inverted


# Missing and odd elements


@pytest.mark.parametrize("key", ["PixelRepresentation", "HighBit", "BitsStored", "SamplesPerPixel"])
def test_elements_that_may_be_missing(key):
    values = np.arange(512, dtype=np.uint16)[None].repeat(2, 0)
    assert (row(make(values, **{key: None})) == row(make(values))).all()


def test_colours_without_planar_configuration_or_number_of_samples():
    values = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    for key in ("PlanarConfiguration", "SamplesPerPixel"):
        assert (load_image(written(make(values, **{key: None}))) == values).all()
    planes = make(values, PlanarConfiguration=1, PixelData=np.moveaxis(values, 2, 0).tobytes())
    assert (load_image(written(planes)) == values).all()


@pytest.mark.parametrize("key", ["Rows", "Columns", "BitsAllocated", "PhotometricInterpretation"])
def test_elements_that_may_not_be_missing_are_named(key):
    with pytest.raises(ImcError, match=f"lacks {key}"):
        dataset = make(COUNTED, **{key: None})
        dataset["PixelData"].VR = "OW"  # pydicom would infer it
        row(dataset)


def test_elements_that_contradict_each_other_are_named():
    colours = np.zeros((4, 4, 3), np.uint8)
    for dataset, key in (
        (make(COUNTED, PhotometricInterpretation="RGB"), "PhotometricInterpretation"),
        (make(COUNTED, PhotometricInterpretation="HSV"), "PhotometricInterpretation"),
        (make(colours, PhotometricInterpretation="MONOCHROME2"), "PhotometricInterpretation"),
        (make(colours, PhotometricInterpretation="YBR_PARTIAL_422"), "PhotometricInterpretation"),
        (make(colours, PhotometricInterpretation="YBR_ICT"), "PhotometricInterpretation"),
        (make(colours, PhotometricInterpretation="YBR_FULL_422"), "PhotometricInterpretation"),
        (make(colours, SamplesPerPixel=4), "4 samples"),
        (make(COUNTED, Rows=3), "needs 1536"),
        (make(COUNTED, NumberOfFrames=2), "needs 2048"),
        (make(COUNTED, FloatPixelData=bytes(4)), "both PixelData and FloatPixelData"),
    ):
        with pytest.raises(ImcError, match=key):
            load_image(written(dataset))


def test_photometric_interpretation_in_small_letters():
    assert (row(make(ramp(), PhotometricInterpretation="monochrome1")) == 255 - row(make(ramp()))).all()


def test_deep_colours_that_come_out_in_one_are_named():
    values = np.arange(60, dtype=np.uint16).reshape(4, 5, 3)
    with pytest.raises(ImcError, match="one colour by BitsStored"):
        load_image(written(make(values)))
    assert (load_image(written(make(values, BitsStored=8, HighBit=7))) == values).all()


# Palettes


def palette(values: np.ndarray, colours: np.ndarray, bits: int = 16, syntax=None, **elements) -> Dataset:
    """`colours` [N, 3] as three tables."""
    dataset = make(values, PhotometricInterpretation="PALETTE COLOR", **elements)
    for i, name in enumerate(("Red", "Green", "Blue")):
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [len(colours), 0, bits])
        width = "<u2" if bits > 8 or syntax is None else "u1"
        setattr(dataset, f"{name}PaletteColorLookupTableData", colours[:, i].astype(width).tobytes())
    return dataset


def test_palettes_have_the_bits_of_their_descriptor():
    indices = np.arange(128, dtype=np.uint8)[None].repeat(2, 0)
    colours = np.stack([np.arange(128) * 2, 255 - np.arange(128), np.full(128, 7)], axis=1)
    for factor, bits in ((1, 8), (257, 16)):
        assert (load_image(written(palette(indices, colours * factor, bits)))[0] == colours).all()
    # One byte an entry is 8 bits, whatever the descriptor says.
    octets = palette(indices, colours)
    for i, name in enumerate(("Red", "Green", "Blue")):
        setattr(octets, f"{name}PaletteColorLookupTableData", colours[:, i].astype(np.uint8).tobytes())
    assert (load_image(written(octets))[0] == colours).all()
    big = palette(indices, colours)
    for i, name in enumerate(("Red", "Green", "Blue")):
        setattr(big, f"{name}PaletteColorLookupTableData", (colours[:, i] * 257).astype(">u2").tobytes())
    assert (load_image(as_file(big, little=False))[0] == colours).all()


def segmented(*segments: list[int]) -> Dataset:
    dataset = palette(np.arange(16, dtype=np.uint8)[None].repeat(2, 0), np.zeros((16, 3), int))
    for name in ("Red", "Green", "Blue"):
        delattr(dataset, f"{name}PaletteColorLookupTableData")
        words = [word for segment in segments for word in segment]
        setattr(dataset, f"Segmented{name}PaletteColorLookupTableData", np.array(words, "<u2").tobytes())
    return dataset


def test_palettes_in_segments():
    dataset = segmented([0, 2, 0, 257], [1, 4, 5 * 257], [2, 1, 0, 0], [1, 8, 9 * 257])
    #                   0 1         2 3 4 5        0 1 again        2 to 9
    assert row(dataset).tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    for broken in ([[0, 2, 0, 257]], [[1, 16, 5]], [[3, 1, 1]], [[0, 0]], [[2, 1, 0, 0]], [[]]):
        with pytest.raises(ImcError, match="palette"):
            row(segmented(*broken))


def test_segments_that_ask_for_billions_stop_at_the_palettes_size():
    dataset = segmented([0, 2, 0, 65535], *[[1, 65535, 0]] * 3, *[[2, 65535, 0, 0]] * 20_000)
    assert row(dataset).tolist() == [0, *[255] * 15]


def test_no_more_of_a_segmented_palette_is_read_than_its_entries_need():
    """The rest may be hundreds of megabytes, of which each word would become an object."""
    dataset = segmented([0, 2, 0, 257], [1, 14, 15 * 257])
    for name in ("Red", "Green", "Blue"):
        keyword = f"Segmented{name}PaletteColorLookupTableData"
        setattr(dataset, keyword, getattr(dataset, keyword) + bytes(1 << 24))
    data = written(dataset)
    tracemalloc.start()
    assert line(data).tolist() == list(range(16))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * len(data)


def test_numbers_that_are_not_whole_and_bits_that_are_told_by_the_highest():
    values = np.arange(16, dtype=np.uint16)[None].repeat(2, 0)
    with pytest.raises(ImcError, match="NumberOfFrames that is not one whole number"):
        load_image(written(make(values, NumberOfFrames=1)).replace(b"IS\x02\x001 ", b"IS\x04\x001.5 "))
    told = make(COUNTED, BitsStored=None, HighBit=11, WindowCenter=2048, WindowWidth=4096)
    assert (
        row(told).tolist()
        == row(make(COUNTED, BitsStored=12, HighBit=11, WindowCenter=2048, WindowWidth=4096)).tolist()
    )


def test_palettes_that_are_missing_or_make_one_colour_are_named():
    indices = np.arange(128, dtype=np.uint8)[None].repeat(2, 0)
    with pytest.raises(ImcError, match="RedPaletteColorLookupTableDescriptor"):
        load_image(written(make(indices, PhotometricInterpretation="PALETTE COLOR")))
    with pytest.raises(ImcError, match="one colour by its palette"):
        load_image(written(palette(indices, np.full((128, 3), 999))))


# The header and the stream


def encoded(array: np.ndarray, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def in_stream(array: np.ndarray, code: bytes, syntax, **elements) -> bytes:
    pytest.importorskip("gdcm", reason="JPEG and JPEG 2000 are read with imc-lite[dicom]")
    return written(make(array, syntax, PixelData=encapsulate([code]), **elements))


def test_a_stream_that_is_not_what_the_header_says_is_refused():
    grey, colours = np.zeros((20, 30), np.uint8), np.zeros((20, 30, 3), np.uint8)
    deep = np.arange(600, dtype=np.uint16).reshape(20, 30)
    for kind, syntax in (("JPEG", JPEGBaseline8Bit), ("JPEG2000", JPEG2000Lossless)):
        code = encoded(grey, kind)
        for elements, why in (
            ({"Rows": 10}, "larger picture than its header says"),
            ({"Rows": 40}, "smaller picture than its header says"),
            ({"Rows": 30, "Columns": 20}, "another picture than its header says"),
        ):
            with pytest.raises(ImcError, match=why):
                load_image(in_stream(grey, code, syntax, **elements))
        with pytest.raises(ImcError, match=r"3 samples and says 1 \(SamplesPerPixel"):
            load_image(in_stream(grey, encoded(colours, kind), syntax))
        with pytest.raises(ImcError, match=r"1 samples and says 3 \(SamplesPerPixel"):
            load_image(in_stream(colours, code, syntax))
    with pytest.raises(ImcError, match=r"16 bits and says 8 \(BitsAllocated"):
        load_image(in_stream(grey, encoded(deep, "JPEG2000"), JPEG2000Lossless))
    with pytest.raises(ImcError, match="damaged"):
        load_image(in_stream(grey, b"\xff\xd8 no stream", JPEGBaseline8Bit))


def test_unsigned_streams_may_hold_signed_values():
    values = (np.arange(600).reshape(20, 30) * 100 - 30000).astype(np.int16)
    code = encoded(values.view(np.uint16), "JPEG2000", irreversible=False)
    got = load_image(in_stream(values, code, JPEG2000Lossless))
    assert np.abs(got[..., 0].astype(int) - linear(values)).max() <= 1


COLOUR_STRIPES = np.repeat(np.array([[[200, 30, 60]], [[20, 180, 90]]], np.uint8), [16, 16], axis=0).repeat(32, axis=1)


def without_markers(code: bytes) -> bytes:
    """The stream without JFIF's marker, which says YCbCr."""
    assert code[2:4] == b"\xff\xe0"
    return code[:2] + code[4 + struct.unpack(">H", code[4:6])[0] :]


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("marker", ["JFIF", "Adobe", ""])
def test_coarse_chroma_or_a_marker_means_ybr(photometric, subsampling, marker):
    code = encoded(COLOUR_STRIPES, "JPEG", quality=95, subsampling=subsampling)
    if marker != "JFIF":
        code = without_markers(code)
    if marker == "Adobe":
        code = code[:2] + b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x01" + code[2:]
    got = load_image(in_stream(COLOUR_STRIPES, code, JPEGBaseline8Bit, PhotometricInterpretation=photometric))
    away = np.abs(got.astype(int) - COLOUR_STRIPES).mean()
    # Without a marker, and with chroma as fine as luma, nothing but the header says what the samples are.
    assert (away < 4) == (photometric != "RGB" or subsampling > 0 or marker != "")


def test_components_named_rgb_are():
    code = encoded(COLOUR_STRIPES, "JPEG", quality=95, keep_rgb=True)
    for photometric in ("RGB", "YBR_FULL_422"):
        got = load_image(in_stream(COLOUR_STRIPES, code, JPEGBaseline8Bit, PhotometricInterpretation=photometric))
        assert np.abs(got.astype(int) - COLOUR_STRIPES).mean() < 4


def test_jpeg_2000_colours():
    code = encoded(COLOUR_STRIPES, "JPEG2000", irreversible=False)
    for photometric in ("YBR_RCT", "RGB"):
        got = load_image(in_stream(COLOUR_STRIPES, code, JPEG2000Lossless, PhotometricInterpretation=photometric))
        assert (got == COLOUR_STRIPES).all()
    code = encoded(COLOUR_STRIPES, "JPEG2000", irreversible=True, quality_layers=[2])
    got = load_image(in_stream(COLOUR_STRIPES, code, JPEG2000, PhotometricInterpretation="YBR_ICT"))
    assert np.abs(got.astype(int) - COLOUR_STRIPES).mean() < 4


# Transfer syntaxes


def test_deflated_files_are_read_by_their_transfer_syntax():
    dataset = make(ramp(), DeflatedExplicitVRLittleEndian)
    whole = written(dataset)
    assert (load_image(whole) == load_image(written(make(ramp())))).all()
    assert (load_image(whole[128 + 4 :]) == load_image(whole)).all()
    with pytest.raises(ImcError, match="damaged or incomplete"):
        load_image(whole[:-50])


def test_unknown_transfer_syntaxes_are_named():
    dataset = make(ramp())
    data = written(dataset).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.9.9.9\0")
    with pytest.raises(ImcError, match="TransferSyntaxUID"):
        load_image(data)
    video = make(np.zeros((4, 4, 3), np.uint8), "1.2.840.10008.1.2.4.102", PixelData=encapsulate([b"\0\0\0\1"]))
    with pytest.raises(ImcError, match="MPEG-4"):
        load_image(written(video))
