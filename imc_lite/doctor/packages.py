"""Python and the installed packages against what this package's own metadata asks for."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import TYPE_CHECKING

from imc_lite.doctor.check import Check, ok, problem, warning
from imc_lite.doctor.machine import version

if TYPE_CHECKING:
    from packaging.requirements import Requirement

DISTRIBUTION = "imc-lite"
NO_METADATA = "imc-lite runs from its source and is not installed, so what it asks for is unknown"
# Of every extra the package that shows that it is wanted: it comes with no other package of ours.
WANTED_BY = {
    "dicom": "pydicom",
    "serve": "fastapi",
    "ray": "ray",
    "export": "onnxscript",
    "gpu": "onnxruntime-gpu",
    "lmms-eval": "lmms-eval",
}
RUNTIMES = ("onnxruntime", "onnxruntime-gpu")


def check_python() -> Check:
    from packaging.specifiers import SpecifierSet

    try:
        wanted = metadata.metadata(DISTRIBUTION)["Requires-Python"]
    except metadata.PackageNotFoundError:
        return warning("python", f"{platform.python_version()}; {NO_METADATA}", "pip install -e .")
    said = f"{platform.python_version()}, {wanted} is supported"
    if SpecifierSet(wanted).contains(platform.python_version(), prereleases=True):
        return ok("python", said)
    return problem("python", said, "install a Python that is supported")


def check_packages() -> list[Check]:
    """Those that every installation needs, and the versions of those that some need."""
    needed, optional = _requirements()
    if not needed:
        return [warning("packages", NO_METADATA, "pip install -e .")]
    found = []
    for requirement in needed:
        installed = version(requirement.name)
        if installed is None:
            found.append(problem("packages", f"{requirement.name} is not installed", "pip install imc-lite"))
        elif not _fits(requirement, installed):
            found.append(
                problem(
                    "packages",
                    f"{requirement.name} {installed} is installed, {requirement.specifier} is needed",
                    f"pip install '{requirement}'",
                )
            )
    for name, asked in optional.items():
        installed = version(name)
        # Several extras may ask for different versions of one package: any of them will do.
        if installed is not None and not any(_fits(r, installed) for r in asked):
            ranges = " or ".join(dict.fromkeys(str(r.specifier) for r in asked))
            found.append(
                warning(
                    "packages",
                    f"{name} {installed} is installed, {ranges} was tested",
                    f"pip install '{name}{asked[0].specifier}'",
                )
            )
    return found or [ok("packages", f"all {len(needed)} that are needed are there, in versions that are supported")]


def check_extras() -> list[Check]:
    """Extras of which a part is installed; those of which nothing is are nobody's trouble."""
    extras = _extras()
    whole, found = [], []
    for extra, sign in WANTED_BY.items():
        if extra not in extras or version(sign) is None:
            continue
        missing = [r.name for r in extras[extra] if version(r.name) is None]
        if extra == "gpu":  # what an optional package of its own is for is said when it is asked for
            missing = [name for name in missing if name in ("torch", "triton", "transformers")]
        if missing:
            detail = f"[{extra}] is half installed: {sign} is there, {', '.join(missing)} not"
            found.append(warning("extras", detail, f"pip install 'imc-lite[{extra}]'"))
        else:
            whole.append(extra)
    return found or [ok("extras", f"whole: {', '.join(whole) or 'none is installed'}")]


def check_runtimes() -> Check:
    """Whether exactly one of the two ONNX Runtime packages is installed."""
    installed = [name for name in RUNTIMES if version(name) is not None]
    if not installed:
        return problem("onnxruntime", "is not installed", "pip install 'imc-lite[cpu]', or with a GPU 'imc-lite[gpu]'")
    if len(installed) == 2:
        return problem(
            "onnxruntime",
            "onnxruntime and onnxruntime-gpu are both installed and share a folder, so one breaks the other",
            "pip uninstall both, then install one",
        )
    return ok("onnxruntime", f"{installed[0]} {version(installed[0])}")


def _requirements() -> tuple[list[Requirement], dict[str, list[Requirement]]]:
    """What every installation needs, and by name what extras for users ask for."""
    extras = _extras()
    optional: dict[str, list[Requirement]] = {}
    for extra, asked in extras.items():
        for requirement in asked if extra not in ("", "test") else ():
            optional.setdefault(requirement.name, []).append(requirement)
    return extras.get("", []), optional


def _extras() -> dict[str, list[Requirement]]:
    """What each extra asks for; under "" what is asked for without one."""
    from packaging.requirements import Requirement

    try:
        asked = [Requirement(text) for text in metadata.requires(DISTRIBUTION) or ()]
        names = ["", *(metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or ())]
    except metadata.PackageNotFoundError:
        return {}
    always = [r for r in asked if r.marker is None or r.marker.evaluate({"extra": ""})]
    own = {
        name: [r for r in asked if r not in always and r.marker and r.marker.evaluate({"extra": name})]
        for name in names
        if name
    }
    return {"": always, **own}


def _fits(requirement: Requirement, installed: str) -> bool:
    return requirement.specifier.contains(installed, prereleases=True)
