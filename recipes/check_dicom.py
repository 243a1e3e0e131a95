"""Load every test file that pydicom ships and every case of the tests, and compare with two other readers.

    pip install -e '.[dicom]' pydicom-data && apt install dcmtk
    python recipes/check_dicom.py -o recipes/results/dicom.json

Writes which files load, why the others do not, and how far each picture is from what pydicom and DCMTK make of the file
(`independent_dicom.py`). Writes the tables of docs/dicom.md too. Nothing is downloaded: files that pydicom would fetch
are left out.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
from importlib import metadata
from pathlib import Path

import independent_dicom
import numpy as np
from pydicom.data import get_testdata_files

from imc_lite.errors import ImcError, shown
from imc_lite.images.load import load_image

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "dicom.md"
PACKAGES = ("pydicom", "pydicom-data", "python-gdcm")
CASES = "tests/pictures/"
# Grey levels: DCMTK rounds down, and so is half a level darker, or one where it does so twice.
SAME = 1.0
WHY = {
    "dicomdirtests/77654033/CT2/17166": "the file's window shows one grey of many: imc-lite stretches",
    "dicomdirtests/77654033/CT2/17196": "the file's window shows one grey of many: imc-lite stretches",
    "eCT_Supplemental.dcm": "DCMTK does not look for a window of the frame's own",
    "rtdose_expb.dcm": "DCMTK exchanges the halves of 32-bit big-endian values",
    "rtdose_expb_1frame.dcm": "DCMTK exchanges the halves of 32-bit big-endian values",
    CASES + "j2k_s16_u.dcm": "the stream is signed, the header is not: pydicom believes the header",
    CASES + "jpg_ycc_nomarker_pirgb.dcm": "RGB by the header, but coarse chroma: both believe the header",
    CASES + "pad_US63536.dcm": "padding of -2000 is written as 63536: neither knows it",
    CASES + "pad_above_unsigned.dcm": "DCMTK takes padding for values",
    CASES + "pad_above_window.dcm": "DCMTK shows padding white",
    CASES + "pad_mono1.dcm": "DCMTK takes padding for values",
    CASES
    + "plut_inverse_m2.dcm": "pydicom leaves PresentationLUTShape to its user; DCMTK inverts, and so does imc-lite",
    CASES + "sigmoid_lower.dcm": "DCMTK does not know `sigmoid` in small letters",
    CASES + "voilut_8bit_us.dcm": "pydicom looks 4096 values up with 8 bits",
    CASES + "voilut_signed_us64512.dcm": "the table begins at -1024, written as 64512: pydicom believes 64512",
}


def test_files() -> dict[str, Path]:
    """Every file of the installed packages by a name that is the same on every machine."""
    found = {}
    for text in get_testdata_files():
        path = Path(text)
        name = re.sub(r"^.*/(?:test_files|data_store/data)/", "", path.as_posix())
        if path.is_file():
            found[name] = path
    return dict(sorted(found.items()))


def cases() -> dict[str, Path]:
    """The DICOM files of the tests."""
    return {f"{CASES}{path.name}": path for path in sorted((ROOT / CASES).glob("*.dcm"))}


def check(path: Path) -> dict:
    """The loaded picture's size, mean and spread, or the line that refuses it."""
    try:
        picture = load_image(path)
    except ImcError as error:
        return {"refused": str(error).replace(shown(path), "FILE")}
    return {
        "size": [*picture.shape[:2]],
        "mean": round(float(picture.mean()), 1),
        "spread": round(float(picture.std()), 1),
    }


def compare(path: Path) -> dict[str, float | str]:
    """Mean difference from each reader's picture; "none" where it has none, "shown" where only it has one."""
    try:
        ours = load_image(path).astype(int)
    except ImcError:
        ours = None
    found: dict[str, float | str] = {}
    for name, read in (("pydicom", independent_dicom.by_pydicom), ("dcmtk", independent_dicom.by_dcmtk)):
        try:
            theirs = read(path)
        except Exception:  # pydicom raises what it likes
            theirs = None
        if theirs is None:
            found[name] = "none"
        elif ours is None:
            found[name] = "shown"
        else:
            found[name] = round(float(np.abs(ours - theirs).mean()), 2) if ours.shape == theirs.shape else "other size"
    return found


def refusals(found: dict) -> str:
    """Refusals by reason, with the files; folders of many files are counted."""
    files = {name: row for name, row in found["files"].items() if not name.startswith(CASES)}
    reasons: dict[str, list[str]] = {}
    for name, row in files.items():
        if "refused" in row:
            reasons.setdefault(row["refused"], []).append(name)
    lines = [
        f"{found['loaded']} of {found['loaded'] + found['refused']} files load. The others, with the line each gives:",
        "",
        "| files | the line |",
        "|---|---|",
    ]
    for reason, names in sorted(reasons.items(), key=lambda item: item[1][0]):
        folders: dict[str, list[str]] = {}
        for name in names:
            folders.setdefault(str(Path(name).parent), []).append(name)
        cells = []
        for folder, inside in folders.items():
            cells += [f"{len(inside)} in `{folder}`"] if len(inside) > 9 else [f"`{name}`" for name in inside]
        lines.append(f"| {', '.join(cells)} | {reason} |")
    return "\n".join(lines)


def agreement(found: dict) -> str:
    """How many pictures two other readers have as well, and why the others differ."""
    loaded = {name: row for name, row in found["files"].items() if "size" in row}
    lines = [f"Of the {len(loaded)} that load, with the cases of `{CASES}`:", "", "| reader | same | other | none |"]
    lines.append("|---|---|---|---|")
    for reader, title in (("pydicom", f"pydicom {found['packages']['pydicom']}"), ("dcmtk", f"DCMTK {found['dcmtk']}")):
        answers = [row[reader] for row in loaded.values()]
        same, none = sum(_same(answer) for answer in answers), sum(answer == "none" for answer in answers)
        lines.append(f"| {title} | {same} | {len(answers) - same - none} | {none} |")
    lines += ["", "Where one of them differs (mean difference in grey levels):", ""]
    lines += ["| file | from pydicom | from DCMTK | why |", "|---|---|---|---|"]
    for name, row in loaded.items():
        if name in WHY:
            lines.append(f"| `{name}` | {_cell(row['pydicom'])} | {_cell(row['dcmtk'])} | {WHY[name]} |")
    return "\n".join(lines)


def _same(answer: float | str) -> bool:
    return not isinstance(answer, str) and answer <= SAME


def _cell(answer: float | str) -> str:
    return "same" if _same(answer) else str(answer)


def fill(text: str, found: dict) -> str:
    """The page with its generated parts renewed."""
    for mark, part in (("dicom", refusals(found)), ("agreement", agreement(found))):
        text = re.sub(
            rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", lambda m, part=part: f"{m[1]}{part}\n{m[2]}", text, flags=re.S
        )
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    version = independent_dicom.dcmtk_version()
    if version is None:
        parser.error("DCMTK's dcmj2pnm is not on the PATH; apt install dcmtk")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    files = {name: check(path) | compare(path) for name, path in (test_files() | cases()).items()}
    for name, row in files.items():
        differs = [k for k in ("pydicom", "dcmtk") if not (_same(row[k]) or row[k] == "none")]
        if "size" in row and bool(differs) != (name in WHY):
            print(f"{name}: {row}: WHY says otherwise")
    shipped = [row for name, row in files.items() if not name.startswith(CASES)]
    refused = sum("refused" in row for row in shipped)
    report = {
        "command": "python recipes/check_dicom.py -o recipes/results/dicom.json",
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "dcmtk": version,
        "loaded": len(shipped) - refused,
        "refused": refused,
        "files": files,
    }
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in files.items())
    head = json.dumps({k: v for k, v in report.items() if k != "files"}, indent=1)
    args.out.write_text(f'{head[:-2]},\n "files": {{\n{rows}\n }}\n}}\n')
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), report), encoding="utf-8")


if __name__ == "__main__":
    main()
