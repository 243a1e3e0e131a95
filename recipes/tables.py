"""Write the tables and the plot of README.md, docs/ and the model card from the committed result files.

python recipes/tables.py
"""

from __future__ import annotations

import argparse
import re

import committed
import tables_confidence as trust
import tables_generality as others
import tables_noise as noises
import tables_robustness as robustness
import tables_runtime as runtime

from imc_lite.bench.plots import accuracy_plot

PAGES = (
    *("README.md", "docs/deploying.md", "docs/measured.md", "docs/models.md", "docs/noise.md", "docs/ray.md"),
    *("docs/serve.md", "docs/trust.md", "recipes/MODEL_CARD.md"),
)
# Each is named as the part of a page that it fills.
MAKERS = (
    *(robustness.result, robustness.figures, robustness.answers, robustness.findings, robustness.headline),
    *(
        robustness.noise,
        robustness.questions,
        robustness.controls,
        robustness.ablation,
        robustness.foreign,
        robustness.perception,
        robustness.upstream,
        robustness.llama_server,
    ),
    *(
        trust.confidence,
        trust.max_risk,
        trust.estimates,
        trust.strangers,
        trust.reliance,
        trust.promise,
        trust.sureness,
    ),
    *(
        others.generality,
        others.generality_sets,
        others.generality_questions,
        others.unseen,
        others.left_out,
        others.vit,
        others.vit_own,
        others.restorers,
    ),
    *(
        robustness.repair,
        runtime.runtime,
        runtime.encoder,
        runtime.hf,
        runtime.wide,
        runtime.portability,
        runtime.export,
    ),
    *(runtime.server, runtime.proxy, runtime.proxy_pictures, runtime.archive, runtime.kernels),
    *(
        noises.image_noises,
        noises.further_image_noises,
        noises.unseen_image_noises,
        noises.artefacts,
        noises.text_noises,
    ),
    noises.unseen_text_noises,
)


def plots() -> dict[str, str]:
    """SVG text by its file's name below the root."""
    return {"docs/bench.svg": accuracy_plot(committed.robustness())}


def fill(text: str) -> str:
    """A page's text with the generated parts between `<!-- name -->` and `<!-- /name -->` renewed."""
    for make in MAKERS:
        pattern = rf"(<!-- {make.__name__} -->\n).*?(<!-- /{make.__name__} -->)"
        if re.search(pattern, text, flags=re.S):
            table = make()
            text = re.sub(pattern, lambda m, table=table: f"{m[1]}{table}\n{m[2]}", text, flags=re.S)
    return text


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # it takes none
    for name in PAGES:
        page = committed.ROOT / name
        page.write_text(fill(page.read_text(encoding="utf-8")), encoding="utf-8")
    for name, svg in plots().items():
        (committed.ROOT / name).write_text(svg, encoding="utf-8")
