"""Load every test file that pydicom ships and write which load and why the others do not.

    pip install -e '.[dicom]' pydicom-data
    python recipes/check_dicom.py -o recipes/results/dicom.json

Writes the table of docs/dicom.md too. Nothing is downloaded: files that pydicom would fetch are left out.
"""

from __future__ import annotations

import argparse
import json
import re
from importlib import metadata
from pathlib import Path

from pydicom.data import get_testdata_files

from imc_lite.errors import ImcError
from imc_lite.images.load import load_image

PAGE = Path(__file__).resolve().parent.parent / "docs" / "dicom.md"
PACKAGES = ("pydicom", "pydicom-data", "python-gdcm")


def test_files() -> dict[str, Path]:
    """Every file of the installed packages by a name that is the same on every machine."""
    found = {}
    for text in get_testdata_files():
        path = Path(text)
        name = re.sub(r"^.*/(?:test_files|data_store/data)/", "", path.as_posix())
        if path.is_file():
            found[name] = path
    return dict(sorted(found.items()))


def check(path: Path) -> dict:
    """The loaded picture's size, mean and spread, or the line that refuses it."""
    try:
        picture = load_image(path)
    except ImcError as error:
        return {"refused": str(error).replace(str(path), "FILE")}
    return {
        "size": [*picture.shape[:2]],
        "mean": round(float(picture.mean()), 1),
        "spread": round(float(picture.std()), 1),
    }


def table(found: dict) -> str:
    """Refusals by reason, with the files; folders of many files are counted."""
    reasons: dict[str, list[str]] = {}
    for name, row in found["files"].items():
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


def fill(text: str, found: dict) -> str:
    """The page with its generated part renewed."""
    return re.sub(
        r"(<!-- dicom -->\n).*?(<!-- /dicom -->)", lambda m: f"{m[1]}{table(found)}\n{m[2]}", text, flags=re.S
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    files = {name: check(path) for name, path in test_files().items()}
    refused = sum("refused" in row for row in files.values())
    report = {
        "command": "python recipes/check_dicom.py -o recipes/results/dicom.json",
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "loaded": len(files) - refused,
        "refused": refused,
        "files": files,
    }
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in files.items())
    head = json.dumps({k: v for k, v in report.items() if k != "files"}, indent=1)
    args.out.write_text(f'{head[:-2]},\n "files": {{\n{rows}\n }}\n}}\n')
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), report), encoding="utf-8")


if __name__ == "__main__":
    main()
