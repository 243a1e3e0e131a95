"""Questions for the learning curves: about the validation part, with the right picture and with another of its set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from data import WITH_TEMPLATES, Pack
from elsewhere import ask_elsewhere, clinicians
from sets import Row
from views import plain_view, view_labels
from wordings import TOPICS

from imc_lite.bench.findings import ask_closed, ask_open, facts
from imc_lite.bench.templates import ask, cell_questions, truths

Asked = list[tuple[str, str, str]]  # group, question, answer


def questions_about(row: Row, number: int, own: Mapping[str, tuple[str, ...]], rng: np.random.Generator) -> Asked:
    """Every kind of question that the row's labels can answer, once or twice; `own` as `ask_elsewhere` takes it."""
    labels = view_labels(plain_view(number), row)
    found = [("vqa_rad closed" if q["closed"] else "vqa_rad open", q["question"], q["answer"]) for q in row.questions]
    if row.source in WITH_TEMPLATES:
        found += [(f"template {k}", *ask(k, v, rng)) for k, v in truths(row.source, labels).items()]
    if row.source == "bccd":
        found += [("template cells", *pair) for pair in cell_questions(labels["cells"], rng, 3)]
    for topic, value in facts(row.source, labels).items():
        name = f"{topic} {row.source}" if topic == "pneumonia" else topic
        found += [(f"{name} open", *ask_open(TOPICS[topic], value, rng))]
        found += [(f"{name} closed", *ask_closed(TOPICS[topic], value, rng))]
    organ = facts(row.source, labels)["organ"]
    return [*found, ("elsewhere", *ask_elsewhere(row.source, organ, own, rng))]


def watch(
    rows: Sequence[Row], held: Sequence[int], answer: Callable[[list[Pack]], list[bool]], batch: int
) -> dict[str, dict[str, float]]:
    """Balanced accuracy by group, with the right picture ("own") and with another one of the same set ("other").

    Args:
        rows: all rows.
        held: indices of those of the validation part.
        answer: for packs, whether each pair would be answered word for word.
        batch: packs that are answered at once.
    """
    rng = np.random.default_rng(0)
    own = clinicians(q["question"] for i in held for q in rows[i].questions)
    asked = [questions_about(rows[i], i, own, rng) for i in held]
    by_set: dict[str, list[int]] = defaultdict(list)
    for place, i in enumerate(held):
        by_set[rows[i].source].append(place)
    other = list(range(len(held)))
    for places in by_set.values():
        for k, place in enumerate(places):
            other[place] = places[(k + len(places) // 2) % len(places)]
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for name, shown in (("own", range(len(held))), ("other", other)):
        hits: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
        packs = [
            Pack(plain_view(held[j]), tuple((q, a) for _, q, a in mine)) for j, mine in zip(shown, asked, strict=True)
        ]
        flat = [triple for mine in asked for triple in mine]
        right = [hit for start in range(0, len(packs), batch) for hit in answer(packs[start : start + batch])]
        for (group, _, wanted), hit in zip(flat, right, strict=True):
            hits[group][wanted if not group.startswith("vqa_rad") else ""].append(hit)
        for group, by_answer in sorted(hits.items()):
            found[group][name] = round(float(np.mean([np.mean(v) for v in by_answer.values()])), 4)
    return dict(found)
