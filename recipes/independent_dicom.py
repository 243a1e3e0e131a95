"""Two readers of DICOM pictures that share no code with imc-lite, to compare it with.

`by_pydicom` takes pydicom's own functions as they are, and plain arithmetic for what these are known to get wrong or
leave out (named in the code). `by_dcmtk` asks the command-line tools of DCMTK, where they are installed
(`apt install dcmtk`); these read no JPEG 2000, draw overlays and know no values of single frames.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom import pixels
from pydicom.dataset import Dataset

DCMTK = ("dcmj2pnm", "dcml2pnm", "dcm2pnm")  # with JPEG, with JPEG-LS, with neither


def by_pydicom(path: Path) -> np.ndarray:
    """The first frame as uint8 [H, W, 3].

    Raises:
        Exception: whatever pydicom raises.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path, force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:  # as pydicom asks for
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        if str(dataset.PhotometricInterpretation).strip().startswith(("MONOCHROME", "monochrome")):
            return np.repeat(_grey(dataset)[..., None], 3, axis=2)
        return _colour(dataset)


def _colour(dataset: Dataset) -> np.ndarray:
    values = pixels.pixel_array(dataset, index=0)
    top = (1 << dataset.BitsStored) - 1
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        # pydicom reads the tables of big-endian files in the machine's order.
        if dataset.original_encoding[1] is False:
            for colour in ("Red", "Green", "Blue"):
                key = f"{colour}PaletteColorLookupTableData"
                if key in dataset:
                    dataset[key].value = np.frombuffer(dataset[key].value, ">u2").astype("<u2").tobytes()
        values = pixels.apply_color_lut(values, dataset)[..., :3]
        top = (1 << dataset.RedPaletteColorLookupTableDescriptor[2]) - 1
    return np.rint(values.astype(float) * (255 / top)).astype(np.uint8)


def _grey(dataset: Dataset) -> np.ndarray:
    # pydicom knows no functional groups: take what they hold to where it looks.
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for key in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            for item in (dataset.get(groups) or [Dataset()])[0].get(key, [])[:1]:
                dataset.update(item)
    stored = pixels.pixel_array(dataset, index=0)
    values = pixels.apply_modality_lut(stored, dataset)
    left_out = ~np.isfinite(values)
    if (padding := dataset.get("PixelPaddingValue")) is not None:  # pydicom leaves padding to its user
        left_out |= stored == padding
    if dataset.get("VOILUTSequence"):
        top = (1 << dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1
        shown = pixels.apply_voi(np.rint(values).astype(int), dataset) * (255 / top)
    elif "WindowCenter" in dataset and dataset.WindowCenter is not None:
        window = Dataset()
        window.PhotometricInterpretation, window.BitsStored, window.PixelRepresentation = "MONOCHROME2", 8, 0
        for key in ("WindowCenter", "WindowWidth", "VOILUTFunction"):
            if key in dataset:
                window[key] = dataset[key]
        shown = pixels.apply_windowing(values, window)
    else:
        kept = values[~left_out]
        low, high = float(kept.min()), float(kept.max())
        shown = (values - low) * (255 / (high - low) if high > low else 0)
    grey = np.clip(np.rint(np.nan_to_num(np.asarray(shown, float))), 0, 255).astype(np.uint8)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        grey = 255 - grey
    grey[left_out] = 0
    return grey


def by_dcmtk(path: Path) -> np.ndarray | None:
    """The first frame as uint8 [H, W, 3]; None where DCMTK does not show it, or is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path, force=True)
    window: list[str] = []
    if str(dataset.get("PhotometricInterpretation", "")).strip().upper().startswith("MONOCHROME"):
        window = ["+Wl", "1"] if "VOILUTSequence" in dataset else ["+Wi", "1"] if "WindowCenter" in dataset else ["+Wm"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.png"
        for tool in DCMTK:
            if shutil.which(tool):
                subprocess.run([tool, "+on", "-O", *window, str(path), str(out)], capture_output=True, check=False)
            if out.exists() and out.stat().st_size:
                return np.asarray(Image.open(out).convert("RGB"))
    return None


def dcmtk_version() -> str | None:
    """Of the installed tools, None where there are none."""
    if not shutil.which(DCMTK[0]):
        return None
    text = subprocess.run([DCMTK[0], "--version"], capture_output=True, text=True, check=False).stdout
    return text.split()[2] if len(text.split()) > 2 else None
