"""What PDC gives back under noise of other projects: how it is counted, and that their functions stay theirs."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from imc_lite.bench.data import load_edition
from imc_lite.pdc.prototypes import load_prototypes

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes"))
import measure_generality as generality
import others_noise
from measure_generality import Row, Table


def row(picture: int, noise: str, verdict: str, clean: str, plain: str, pdc: str, source: str = "bccd") -> Row:
    arms = (tuple(c == "1" for c in arm) for arm in (clean, plain, pdc))
    return Row(picture, source, noise, 3, 500, verdict, plain != pdc, *arms)


def test_a_share_of_what_was_lost_is_counted_over_pictures():
    rows = [row(i, "torchio noise", "gaussian", "1111", "1000", "1110") for i in range(8)]
    rows += [row(i, "torchio spike", "clean", "1111", "1111", "1111", "nuclei") for i in range(8)]
    table = Table(rows, 8, seed=0)
    found = table.figures(rows[:8])
    assert (found["clean"], found["noisy"], found["pdc"]) == (1.0, 0.25, 0.75)
    assert found["recovered"] == 0.6667 and found["recovered_95ci"] == [0.6667, 0.6667]
    assert table.figures(rows)["recovered"] == 0.6667 and table.figures(rows)["answers"] == 64
    unharmed = table.of("noise")["torchio spike"]
    assert "recovered" not in unharmed and unharmed["gain_95ci"] == [0.0, 0.0]
    assert list(table.of("source")) == ["bccd", "nuclei"]


def test_what_is_made_worse_is_named():
    rows = [row(i, "torchio noise", "gaussian", "11", "11", "10") for i in range(6)]
    rows += [row(i, "clean", "clean", "11", "11", "11") for i in range(6)]
    asked = {i: [generality.Question(i, topic, "", "?", "x") for topic in ("kind", "lesion")] for i in range(6)}
    found = generality.report(rows, asked, seed=0)
    assert found["significantly_worse"] == ["torchio noise", "bccd"]
    assert found["by_question"]["kind"]["gain"] == 0 and found["by_question"]["lesion"]["gain"] == -1
    assert found["clean"]["pdc"] == 1 and found["named"]["clean_called_clean"] == 1


def test_names_count_alone_and_by_family():
    rows = [row(0, "skimage s&p", verdict, "1", "0", "1") for verdict in ("impulse", "gaussian", "clean", "clean")]
    rows += [row(0, "torchio ghosting", "unknown", "1", "0", "0"), row(0, "clean", "clean", "1", "1", "1")]
    found = generality.named(rows)
    assert (found["right"], found["right_or_of_its_family"], found["clean_called_clean"]) == (0.25, 0.5, 1.0)
    assert found["verdicts"]["torchio ghosting"] == {"unknown": 1}


def test_their_noises_are_named_and_need_none_of_their_libraries_to_be_listed():
    names = others_noise.generators()
    assert set(others_noise.KINDS) < set(names) and len(names) == 19
    assert not {"skimage", "torchio", "imagecorruptions"} & set(sys.modules)


@pytest.mark.slow
def test_a_picture_is_looked_at_clean_and_noisy_at_sizes_that_are_drawn(default_model):
    def struck(picture, severity, seed):
        draw = np.random.default_rng(seed).random(picture.shape[:2])[..., None]
        return np.where(draw < 0.04 * severity, np.uint8(255), picture)

    prototypes = load_prototypes(default_model.prototypes_file(), default_model.identity)
    cases = [c for c in load_edition() if c.source == "child_cxr"]
    some = generality.some_of_each(cases + load_edition(), 3)
    assert set(Counter(c.source for c in some).values()) == {3}
    asked = generality.ask_about(0, cases[0], seed=0)
    assert 3 < len(asked) <= generality.QUESTIONS and asked == generality.ask_about(0, cases[0], seed=0)
    rows = [
        r
        for seed in range(2)
        for r in generality.look(default_model, prototypes, 0, cases[0], asked, {"struck": struck}, seed)
    ]
    assert [r.noise for r in rows] == ["clean", "struck"] * 2
    assert len({r.side for r in rows}) == 4 and all(224 <= r.side <= 1500 and 2 <= r.severity <= 5 for r in rows)
    assert all(r.verdict == "impulse" and r.touched for r in rows[1::2])
    assert all(len(r.clean) == len(r.plain) == len(r.pdc) == len(asked) for r in rows)
    again = generality.look(default_model, prototypes, 0, cases[0], asked, {"struck": struck}, 0)
    assert list(again) == rows[:2]
