"""Which code a run's answers depend on: parts do not outlive a change of it."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
JUDGES = "imc_lite.bench.conditions"
WORDS = PACKAGE / "assets" / "words.txt"  # what a repair knows; no import leads to it


def code_digest(model: object, judges: str = JUDGES) -> str:
    """SHA-256 of the modules that decide what is asked and answered: what the judging module and the model's class
    import, directly or through others, and the word list."""
    return _digest(type(model).__module__, judges)


@cache  # a report states it again, and reading all modules takes a second
def _digest(module: str, judges: str) -> str:
    digest = hashlib.sha256(WORDS.read_bytes())
    for name, path in sorted(closure({judges, module}).items()):
        digest.update(name.encode() + path.read_bytes())
    return digest.hexdigest()


def closure(names: set[str]) -> dict[str, Path]:
    """The modules of this package among `names`, and all that they import, by name; what is imported for type checks
    alone does not count."""
    found: dict[str, Path] = {}
    left = set(names)
    while left:
        name = left.pop()
        path = _source(name)
        if name in found or path is None:
            continue
        found[name] = path
        tree = ast.parse(path.read_bytes())
        left |= _imports(tree)
        if "pkgutil.iter_modules" in ast.unparse(tree):  # a package that takes in whatever stands in its folder
            left |= {f"{name}.{beside.stem}" for beside in path.parent.glob("*.py")} - {f"{name}.__init__"}
    return found


def _source(name: str) -> Path | None:
    first, *rest = name.split(".")
    if first != "imc_lite":
        return None
    # `kernels/` and `export/` stand inside an installed package, and beside it in a checkout.
    for place in (PACKAGE.joinpath(*rest), PACKAGE.parent.joinpath(*rest)):
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.is_file():
                return path
    return None


def _imports(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    left: list[ast.AST] = [tree]
    while left:
        node = left.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # Of a package either a module or a name is taken.
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            left += node.orelse
            continue
        left += ast.iter_child_nodes(node)
    return found
