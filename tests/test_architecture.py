"""The house keeps to docs/architecture.md: imports go down, never in a circle; heavy packages stay in their rooms."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Folders of the repository and what they are once installed.
PACKAGES = {"imc_lite": "imc_lite", "kernels": "imc_lite.kernels", "export": "imc_lite.export"}
NO_ROOMS = {"imc_lite", "imc_lite.__main__", "imc_lite.assets"}  # table of contents, the command, files
DATA = {"imc_lite/noise/shorthand.py", "recipes/wordings.py"}  # tables, however long
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def rooms() -> dict[str, tuple[set[str], set[str]]]:
    """What each room may import: other rooms, and heavy packages."""
    table = re.search(r"<!-- rooms -->\n(.*?)<!-- /rooms -->", PAGE, flags=re.S).group(1)
    rows = [line.split("|")[1:-1] for line in table.splitlines()[2:]]
    names = [[set(re.findall(r"`([\w.]+)`", cell)) for cell in row] for row in rows]
    return {room.pop(): (below, heavy) for room, _, below, heavy in names}


def modules() -> dict[str, Path]:
    """Every module of the installed package, and its file here."""
    found = {}
    for folder, package in PACKAGES.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((package, *(p for p in parts if p != "__init__")))] = path
    return found


ROOMS, MODULES = rooms(), modules()
HEAVY = {package for _, heavy in ROOMS.values() for package in heavy}


def room_of(module: str) -> str:
    """The room that holds a module: the longest name in the table that it begins with."""
    inside = module.removeprefix("imc_lite.")
    return max((r for r in ROOMS if inside == r or inside.startswith(f"{r}.")), key=len, default="")


def imports(node: ast.AST) -> Iterator[str]:
    """Names imported anywhere in a module, inside functions too, but not for types alone."""
    if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        for child in node.orelse:
            yield from imports(child)
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"relative import of {node.module}"
        for alias in node.names:
            whole = f"{node.module}.{alias.name}"
            yield whole if whole in MODULES else str(node.module)
    for child in ast.iter_child_nodes(node):
        yield from imports(child)


IMPORTS = {name: set(imports(ast.parse(path.read_text(encoding="utf-8")))) for name, path in MODULES.items()}


def test_every_module_has_a_room_and_every_room_modules():
    assert {name for name in MODULES if not room_of(name)} == NO_ROOMS
    assert {room_of(name) for name in MODULES} - {""} == set(ROOMS)


def test_no_circle_of_modules():
    assert not circle({name: found & MODULES.keys() for name, found in IMPORTS.items()})


def test_no_circle_of_rooms():
    graph: dict[str, set[str]] = {}
    for name, found in IMPORTS.items():
        if not name.endswith(".__main__"):  # a command's entry point may go through the command line
            whole = room_of(name).split(".")[0]
            graph.setdefault(whole, set()).update({room_of(other).split(".")[0] for other in found} - {whole})
    assert not circle(graph)


def circle(graph: dict[str, set[str]]) -> str:
    """The first circle of a graph, "" where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " <- ".join(error.args[1])
    return ""


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_only_what_it_may(room):
    below, heavy = ROOMS[room]
    for name in (n for n in MODULES if room_of(n) == room):
        for other in IMPORTS[name]:
            if other in MODULES and other not in NO_ROOMS:
                assert room_of(other) in below | {room, "errors"}, f"{name} imports {other}"
            elif (package := other.split(".")[0]) in HEAVY:
                assert package in heavy, f"{name} imports {package}"


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_the_table_allows_no_more_than_there_is(room):
    below, heavy = ROOMS[room]
    used = {other for name in MODULES if room_of(name) == room for other in IMPORTS[name]}
    assert not below - {room_of(other) for other in used if other in MODULES}
    assert not heavy - {other.split(".")[0] for other in used}


def test_the_top_is_small_and_files_are_short():
    assert len(list((ROOT / "imc_lite").glob("*.py"))) <= 7
    files = [*MODULES.values(), *(ROOT / "recipes").glob("*.py"), ROOT / "setup.py", ROOT / "cli.py"]
    lines = {str(f.relative_to(ROOT)): len(f.read_text(encoding="utf-8").splitlines()) for f in files}
    assert not {name: n for name, n in lines.items() if n > 300 and name not in DATA}
    assert statistics.median(lines.values()) <= 120


@pytest.mark.parametrize(
    "code",
    [
        "import imc_lite; imc_lite.load_image",
        "import imc_lite.cli.main",
        "from click.testing import CliRunner; from imc_lite.cli.main import cli; CliRunner().invoke(cli, ['--help'])",
        "import imc_lite.kernels, imc_lite.export, imc_lite.models, imc_lite.pdc, imc_lite.sms, imc_lite.noise",
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(code):
    command = [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"]
    loaded = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert "imc_lite" in loaded and not HEAVY & loaded
