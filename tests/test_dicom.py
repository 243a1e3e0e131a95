"""DICOM: every file that pydicom ships loads or gives one line, shown as a viewer would, and nobody is named."""

import io
import json
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

from imc_lite import ImcError, load_image
from imc_lite.images.decoder_output import no_warnings
from imc_lite.images.dicom.codestream import read_codestream
from imc_lite.images.dicom.file import is_dicom

pydicom = pytest.importorskip("pydicom", reason="DICOM is read with imc-lite[dicom]")
from dicom_files import NAME, make, ramp, row, written  # noqa: E402
from pydicom.dataset import Dataset  # noqa: E402
from pydicom.uid import JPEG2000, DeflatedExplicitVRLittleEndian  # noqa: E402

ROOT = Path(__file__).parent.parent
SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"
sys.path.insert(0, str(ROOT / "recipes"))

import check_dicom  # noqa: E402

COMMITTED = json.loads((ROOT / "recipes" / "results" / "dicom.json").read_text(encoding="utf-8"))


def test_every_shipped_file_loads_or_gives_its_line():
    seen = 0
    for name, path in check_dicom.test_files().items():
        if not path.is_relative_to(SHIPPED) or name not in COMMITTED["files"]:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found, expected = check_dicom.check(path), COMMITTED["files"][name]
        seen += 1
        if "refused" in expected:
            assert found == {"refused": expected["refused"]}, name
            assert "\n" not in found["refused"]
        else:
            assert found["size"] == expected["size"], name
            # Lossy decoders may differ by a grey level from version to version.
            assert abs(found["mean"] - expected["mean"]) < 1 and abs(found["spread"] - expected["spread"]) < 1, name
    assert seen > 100


def test_the_page_holds_the_committed_table():
    text = check_dicom.PAGE.read_text(encoding="utf-8")
    assert check_dicom.fill(text, COMMITTED) == text


@pytest.mark.parametrize(
    "same",
    [
        ("MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm"),
        ("MR_small.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"),
        ("SC_rgb_rle.dcm", "SC_rgb_jpeg_gdcm.dcm", "SC_rgb_rle_16bit.dcm", "SC_rgb_rle_32bit.dcm"),
    ],
)
def test_lossless_encodings_show_the_same_picture(same):
    first, *others = (load_image(SHIPPED / name).astype(int) for name in same)
    for other in others:
        assert np.abs(other - first).max() <= 1


def test_colour_spaces_become_rgb():
    stripes = load_image(SHIPPED / "SC_rgb_rle.dcm").astype(int)
    assert stripes[5, 50].tolist() == [255, 0, 0]
    for name in ("SC_ybr_full_422_uncompressed.dcm", "SC_rgb_dcmtk_+eb+cy+s4.dcm", "SC_rgb_jls_lossy_line.dcm"):
        assert np.abs(load_image(SHIPPED / name).astype(int) - stripes).mean() < 6, name
    palette = load_image(SHIPPED / "examples_palette.dcm")
    assert (palette[..., 0] != palette[..., 2]).any()


def test_rescale_and_the_files_window():
    dataset = make(ramp(0, 2000), RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=[0, 9], WindowWidth=[1001, 9])
    got = row(dataset)
    # Stored 0..2000 is -1000..3000; the window shows -500.5 to 499.5.
    assert got[0] == 0 and got[249] == 0 and got[750] == 255 and abs(got[500] - 127.5) < 1
    assert (np.diff(got) >= 0).all()


def test_windows_in_place_of_the_files():
    dataset = make(ramp(), RescaleSlope=1, RescaleIntercept=0, WindowCenter=0, WindowWidth=10)
    lung, given, whole = (row(dataset, window=w) for w in ("lung", "-600,1500", "full"))
    assert (lung == given).all() and lung[1150] == 255 and lung[600] > 0
    assert whole[0] == 0 and whole[-1] == 255 and abs(whole[1000] - 127.5) < 1
    for bad in ("liver", "40", "40,0", "40,-5", "a,b", "1e9,1", "nan,5", ""):
        with pytest.raises(ImcError, match="is no window"):
            row(dataset, window=bad)
    with pytest.raises(ImcError, match="is no CT"):
        row(make(ramp(), Modality="MR"), window="lung")
    with pytest.raises(ImcError, match="colour picture"):
        load_image(SHIPPED / "SC_rgb_rle.dcm", window="full")


@pytest.mark.parametrize(("function", "at_centre_plus_quarter"), [("LINEAR_EXACT", 191), ("SIGMOID", 186)])
def test_other_window_shapes(function, at_centre_plus_quarter):
    dataset = make(ramp(), WindowCenter=0, WindowWidth=1000, VOILUTFunction=function)
    assert abs(row(dataset)[1250] - at_centre_plus_quarter) <= 1


def test_without_a_window_padding_is_left_out():
    values = ramp(0, 1000)
    values[:, :5] = -2000
    got = row(make(values, PixelPaddingValue=-2000))
    assert got[0] == 0 and got[6] < 3 and got[-1] == 255 and abs(got[1000] - 127) < 3
    # A window that shows one grey is a slip; a picture of one grey is what it is.
    assert len(set(row(make(ramp(), WindowCenter=9000, WindowWidth=2)))) > 200
    assert set(row(make(np.full((3, 3), 7, np.uint16)))) == {0}


def test_monochrome1_is_inverted():
    one = row(make(ramp(), PhotometricInterpretation="MONOCHROME1"))
    assert (one == 255 - row(make(ramp()))).all()


def test_frames_count_from_one_and_bring_their_own_values():
    stack = np.stack([ramp(), ramp() // 2])
    dataset = make(stack[0], PixelData=stack.tobytes(), NumberOfFrames=2)
    groups = []
    for centre in (-500, 0):
        voi, group = Dataset(), Dataset()
        voi.WindowCenter, voi.WindowWidth = centre, 100
        group.FrameVOILUTSequence = [voi]
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = groups
    first, second = row(dataset, frame=1), row(dataset, frame=2)
    assert (row(dataset) == first).all()
    assert abs(first[500] - 127) < 3 and abs(second[1000] - 127) < 3
    with pytest.raises(ImcError, match="no frame 3; give one of 1 to 2"):
        row(dataset, frame=3)
    with pytest.raises(ImcError, match="not DICOM"):
        load_image(ROOT / "tests" / "images" / "synpic28602.jpg", frame=1)


def test_recognised_by_content():
    data = written(make(ramp()))
    assert is_dicom(data[:132]) and is_dicom(data[132:264]) and not is_dicom(b"")
    assert (load_image(data) == load_image(io.BytesIO(data))).all()
    assert not is_dicom(b"\x89PNG" + bytes(128), "picture.dcm") and is_dicom(b"??" * 66, "x.DCM")


def test_prototypes_find_files_without_a_suffix(tmp_path):
    from imc_lite.pdc.fit.build import find_images

    for name in ("IM0001", "a.dcm", "DICOMDIR"):
        (tmp_path / name).write_bytes(written(make(ramp())))
    (tmp_path / "notes").write_text("no picture")
    assert [p.name for p in find_images(tmp_path)] == ["IM0001", "a.dcm"]


def test_hostile_files_give_one_line(monkeypatch):
    huge = make(np.zeros((2, 2), np.uint8), Rows=65000, Columns=65000)
    with pytest.raises(ImcError, match="100 million pixels"):
        row(huge)
    bomb = make(np.zeros((4, 4), np.uint8), DeflatedExplicitVRLittleEndian)
    bomb.PixelData = bytes(4 << 20)
    monkeypatch.setattr("imc_lite.images.dicom.file.MAX_INFLATED", 1 << 20)
    with pytest.raises(ImcError, match="unpacks to over"):
        row(bomb)
    monkeypatch.undo()
    crowded = make(np.zeros((4, 4), np.uint8), DeflatedExplicitVRLittleEndian)
    crowded.PerFrameFunctionalGroupsSequence = [Dataset() for _ in range(1000)]
    monkeypatch.setattr("imc_lite.images.dicom.file.MOST_ITEMS", 999)
    with pytest.raises(ImcError, match="over 999 sequence items"):
        row(crowded)
    monkeypatch.undo()
    assert (row(crowded) == 0).all()
    size = (41, 0, 60000, 60000, 0, 0, 60000, 60000, 0, 0, 1, 7, 1, 1)
    stream = b"\xff\x4f\xff\x51" + struct.pack(">HH8IH3B", *size) + bytes(64)
    found = read_codestream(stream)
    assert found.rows * found.columns == 3_600_000_000
    found = read_codestream(b"\xff\xd8\xff\xc3" + struct.pack(">HBHHB", 11, 8, 500, 400, 1) + b"\1\x11\0")
    assert found.rows * found.columns == 200_000
    fake = make(np.zeros((4, 4), np.uint8), JPEG2000)
    fake.PixelData = pydicom.encaps.encapsulate([stream])
    with pytest.raises(ImcError, match="larger picture"):
        row(fake)


def test_damaged_bytes_give_one_line(capfd):
    """Every eighth of a file cut off, and bytes turned, in all encodings: a picture or one line, nothing else."""
    rng = np.random.default_rng(0)
    for name in (
        "MR_small_jp2klossless.dcm",
        "SC_rgb_jpeg_gdcm.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_RLE.dcm",
    ):
        whole = (SHIPPED / name).read_bytes()
        for part in range(16):
            data = bytearray(whole[: len(whole) * (part % 8 + 1) // 8])
            if part >= 8:
                for at in rng.integers(132, len(data), 12):
                    data[at] = rng.integers(256)
            try:
                load_image(bytes(data))
            except ImcError as error:
                assert "\n" not in str(error)
    assert capfd.readouterr() == ("", "")


def test_nobody_is_named(tmp_path, chest, default_bundle, caplog):
    """Values that pydicom warns about by quoting them, and errors that it words with them."""
    good, bad = tmp_path / "good.dcm", tmp_path / "bad.dcm"
    with no_warnings:
        dataset = make(ramp(), StudyDate=NAME, PatientBirthDate=NAME, PatientAge=NAME, SOPInstanceUID=NAME)
        good.write_bytes(written(dataset))
        dataset.Rows = 3
        bad.write_bytes(written(dataset))
    caplog.clear()
    load_image(good)
    with pytest.raises(ImcError) as caught:
        load_image(bad)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    command = [sys.executable, "-m", "imc_lite", "inspect", "--json", str(good), str(bad)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stdout.count("\n") == 2
    for text in (done.stdout, done.stderr, caplog.text, str(caught.value)):
        assert "Doe" not in text and "4711" not in text


def test_warnings_of_overlapping_threads_stay_held(recwarn):
    gate = threading.Barrier(2)

    def late() -> None:
        with no_warnings:
            gate.wait()
            gate.wait()
            warnings.warn("quoted", UserWarning, stacklevel=1)

    thread = threading.Thread(target=late)
    with no_warnings:
        thread.start()
        gate.wait()
    gate.wait()
    thread.join()
    assert not list(recwarn)
    with pytest.warns(UserWarning, match="seen"):
        warnings.warn("seen", UserWarning, stacklevel=1)


@pytest.mark.slow
def test_commands_of_the_page_run(default_bundle, tmp_path):
    for name, source in (("scan", "CT_small"), ("thorax", "CT_small"), ("cine", "examples_ybr_color")):
        shutil.copy(SHIPPED / f"{source}.dcm", tmp_path / f"{name}.dcm")
    text = check_dicom.PAGE.read_text(encoding="utf-8")
    commands = re.findall(r"^\$ imc-lite (.*)$", text, flags=re.M)
    assert len(commands) == 4
    for command in commands:
        line = [sys.executable, "-m", "imc_lite", *shlex.split(command)]
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, env=os.environ, check=False)
        # A slice of 128 pixels with nothing around it is no kind of picture that the model knows, and that is said.
        told = [line for line in done.stderr.splitlines() if not line.startswith(b"imc-lite: be careful: ")]
        assert done.returncode == 0 and told == [] and done.stdout.count(b"\n") == 1, command


@pytest.mark.slow
def test_batch_rows_may_name_window_and_frame(default_bundle, tmp_path):
    shutil.copy(SHIPPED / "CT_small.dcm", tmp_path / "ct")
    base = {"image": "ct", "question": "What modality is this?"}
    rows = [base, base | {"window": "lung"}, base | {"frame": 2}, base | {"window": 5}, base | {"frame": True}]
    (tmp_path / "cases.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    command = [sys.executable, "-m", "imc_lite", "answer", "--batch", "cases.jsonl", "--window", "bone"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert ["error" in a for a in answers] == [False, False, True, True, True]
    assert "no frame 2" in answers[2]["error"] and '"window"' in answers[3]["error"]
