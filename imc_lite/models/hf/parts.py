"""The parts of a loaded model: its vision tower, the tower's blocks, its projectors."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from imc_lite.errors import ImcError
from imc_lite.models.hf.families import Family

EARLY = 4  # hidden states that statistics are read from


@dataclass(frozen=True)
class Parts:
    """Modules of one model.

    Attributes:
        tower: the vision tower.
        blocks: its transformer blocks.
        early: the blocks whose inputs are the hidden states that noise is read from.
        projectors: what leads from the tower to the language model, and, with some families, to its deeper layers.
    """

    tower: nn.Module
    blocks: nn.ModuleList
    early: list[nn.Module]
    projectors: list[nn.Module]


def parts_of(model: nn.Module, family: Family) -> Parts:
    """Find the parts where the family says they are.

    Raises:
        ImcError: the model has other parts, or a tower of too few blocks.
    """
    tower, *found = (_need(model, path) for path in (family.tower, *family.projectors))
    projectors = [p for part in found for p in (part if isinstance(part, nn.ModuleList) else [part])]
    blocks = _blocks(tower, family)
    return Parts(tower, blocks, _early(blocks), projectors)


def find(root: nn.Module, path: str) -> nn.Module | None:
    """The module at a dotted path below `root`, or None."""
    found: nn.Module | None = root
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


def drop(model: nn.Module, path: str) -> None:
    """Put a module without weights where the language model stands, and where its output layer does."""
    above, _, name = path.rpartition(".")
    setattr(model.get_submodule(above), name, nn.Identity())
    if hasattr(model, "lm_head"):
        model.lm_head = nn.Identity()


def _need(model: nn.Module, path: str) -> nn.Module:
    found = find(model, path)
    if found is None:
        raise ImcError(f"{type(model).__name__} has no {path}; load it for image-text-to-text")
    return found


def _blocks(tower: nn.Module, family: Family) -> nn.ModuleList:
    found = (find(tower, path) for path in family.blocks)
    blocks = next((b for b in found if isinstance(b, nn.ModuleList)), None)
    if blocks is None or len(blocks) < EARLY:
        raise ImcError(f"the vision tower {type(tower).__name__} of this {family.name} model is not supported")
    return blocks


def _early(blocks: nn.ModuleList) -> list[nn.Module]:
    """The first two, and two more from the first third: their inputs are the embeddings and three early states."""
    depths = [0, 1]
    for share in (6, 3):
        depths.append(max(depths[-1] + 1, len(blocks) // share))
    return [blocks[i] for i in depths]
