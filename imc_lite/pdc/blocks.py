"""Do the pixels of a picture stand in blocks, of copies or of JPEG? Told at the picture's own size.

Blocks of a few pixels of a large picture are averaged away before an encoder sees them. What it is shown is clean then,
and nothing is to be done; but the picture is not what it was, and who keeps pictures wants to know. Of colours, green
alone is looked at: whatever makes blocks of a picture makes them of that one too.
"""

from __future__ import annotations

import numpy as np

SIDE = 512  # pixels of the middle of a picture, which is looked at
EVERY = 4  # lines of it that are looked along
BLOCK = 8  # pixels of JPEG's blocks, which begin at a picture's corner
FEWEST = 64  # pixels a side; smaller pictures are not judged
# A step between two columns counts where it is as high in more of the lines; a column is still where it is nowhere.
STEP, STIRRED, SOME = 4, 1, 0.02
# Of the columns between the first and the last step. 675 clean training pictures, at three sizes each, stay below 0.17;
# blocks of two pixels make a half.
STILL = 0.3
# Of the columns that are not still, so many have still ones on both sides. Cells that lie far apart on black leave many
# columns still too, but the others stand together: in packaged pictures at most an eighth are alone.
ALONE = 0.5
# Times that steps at the borders of JPEG's blocks are as high as within: clean training pictures stay below 1.9, and
# packaged ones, which are JPEG, below 2.1. Most blocks have to show it, or a frame that begins at a multiple of 8 would
# be blocks.
EDGES = 2.2
FAINT = 0.3  # grey levels that are added to both; a block in which less changes is flat
FEWEST_BLOCKS = 4


def find_blocks(image: np.ndarray) -> str | None:
    """ "pixelation" or "jpeg", or None where neither is seen.

    Args:
        image: uint8 [H, W, 3], of its own size.
    """
    if min(image.shape[:2]) < FEWEST:
        return None
    top, left = (max(0, n - SIDE) // 2 // BLOCK * BLOCK for n in image.shape[:2])
    middle = image[top : top + SIDE, left : left + SIDE, 1]
    # Most pictures show that they have none along their rows already.
    along = _steps(middle[::EVERY])
    still, edged = _still(along) >= STILL, _edges(along) >= EDGES
    if not (still or edged):
        return None
    down = _steps(middle[:, ::EVERY].T)
    if still and _still(down) >= STILL:
        return "pixelation"
    return "jpeg" if edged and _edges(down) >= EDGES else None


def _steps(lines: np.ndarray) -> np.ndarray:
    """How far pixels beside each other are apart: uint8 [lines, n] -> int16 [lines, n - 1]."""
    wide = lines.astype(np.int16, "C")
    return np.abs(wide[:, 1:] - wide[:, :-1])


def _still(steps: np.ndarray) -> float:
    """The share of columns in which nothing changes, of steps [lines, columns], flat borders left out; 0 where fewer
    than `ALONE` of the others stand between two of them."""
    live = np.flatnonzero(_share(steps > STEP) > SOME)
    if len(live) < BLOCK:
        return 0.0
    stirred = _share(steps[:, live[0] : live[-1] + 1] > STIRRED) > SOME
    beside = np.pad(stirred, 1)
    alone = stirred & ~beside[:-2] & ~beside[2:]
    return float((~stirred).mean()) if alone.sum() >= ALONE * stirred.sum() else 0.0


def _share(found: np.ndarray) -> np.ndarray:
    """Of at most 128 lines, bool [lines, columns], in which something was found: counted in bytes, which is quicker
    than a mean."""
    count: np.ndarray = np.add.reduce(found.view(np.uint8), axis=0, dtype=np.uint8)
    return count / len(found)


def _edges(steps: np.ndarray) -> float:
    """How much higher steps at the borders of most blocks are than those within, blocks of one grey left out."""
    count = steps.shape[1] // BLOCK
    # 128 lines of at most 255 stay below 32,768.
    sums = np.add.reduce(steps[:, : BLOCK * count], axis=0, dtype=np.int16)
    found = (sums / len(steps)).reshape(count, BLOCK)
    live = found[found.max(1) > FAINT]
    if len(live) < FEWEST_BLOCKS:
        return 0.0
    usual = np.median(live, 0)
    return float((usual[-1] + FAINT) / (usual[:-1].mean() + FAINT))
