"""Draw what `imc_lite.kernels.bench` measured."""

from __future__ import annotations

import csv
from pathlib import Path

NOT_KERNELS = ("copy", "tower")


def plot(source: Path, target: Path) -> None:
    """Median time of each kernel by provider over the batch size, one panel a tower and dtype.

    Args:
        source: CSV of `imc_lite.kernels.bench`.
        target: picture to write; its suffix says in which format.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with open(source, newline="", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["op"] not in NOT_KERNELS]
    panels = sorted({(r["tower"], r["dtype"]) for r in rows})
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4 * len(panels), 4), squeeze=False, sharey=True)
    for axis, (tower, dtype) in zip(axes[0], panels, strict=True):
        mine = [r for r in rows if (r["tower"], r["dtype"]) == (tower, dtype)]
        for op, provider in sorted({(r["op"], r["provider"]) for r in mine}):
            line = sorted(
                (int(r["batch"]), float(r["p50_us"])) for r in mine if (r["op"], r["provider"]) == (op, provider)
            )
            axis.plot(*zip(*line, strict=True), marker="o", label=f"{op}, {provider}")
        axis.set(title=f"{tower}, {dtype}", xlabel="batch", xscale="log", yscale="log")
    axes[0][0].set_ylabel("microseconds, median")
    axes[0][-1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(target)
