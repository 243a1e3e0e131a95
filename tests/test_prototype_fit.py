"""Fitting a matcher: how many clusters of pictures it gets, and from which pictures the packaged prototypes come."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from imc_lite.bench.data import Case
from imc_lite.pdc.familiarity import fit_clusters
from imc_lite.pdc.fit import leading
from imc_lite.pdc.fit.discriminant import CONDITIONS, NAMED, cross_fit, fit, fit_matcher, second_moment, simplest
from imc_lite.pdc.fit.low_rank_map import RESTORED, RIDGE, Sums, fit_low_rank_map, fit_remedies
from imc_lite.pdc.prototypes import MAP_ARRAYS
from imc_lite.pdc.remedies import LowRankMap

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes"))
import build_prototypes


def table(kinds: int, pictures: int = 160, features: int = 24) -> np.ndarray:
    """Features [N, 52, F] of so many kinds of picture, each of which noise moves another way."""
    rng = np.random.default_rng(0)
    kind = np.arange(pictures) % kinds
    base = 8 * rng.normal(size=(kinds, 1, features))
    moved = rng.normal(size=(kinds, len(CONDITIONS), features))
    own = 0.5 * rng.normal(size=(pictures, 1, features))
    return (base + moved)[kind] + own + 0.5 * rng.normal(size=(pictures, len(CONDITIONS), features))


@pytest.mark.parametrize("kinds", [1, 2, 3])
def test_as_many_clusters_as_there_are_kinds_of_picture(kinds):
    matcher, _ = fit_matcher(table(kinds), np.random.default_rng(0))
    assert len(matcher.kinds) == len(CONDITIONS) * kinds


def test_a_number_of_clusters_is_never_forced_on_few_pictures():
    few = table(3, pictures=60)
    assert len(fit_matcher(few, np.random.default_rng(1))[0].kinds) == len(CONDITIONS)
    assert len(fit_matcher(table(3), np.random.default_rng(1), most=1)[0].kinds) == len(CONDITIONS)


def test_the_fewest_clusters_within_one_standard_error_are_taken():
    rng = np.random.default_rng(0)
    picture = rng.normal(3, 2, 100)  # pictures differ far more than the candidates do
    spread = np.tile([-1.0, 1.0], 50)
    losses = np.stack([picture + 0.3 + spread, picture + 0.05 + spread, picture, picture + 0.001 * spread])
    assert simplest(losses) == 1
    losses[1] += 0.1
    assert simplest(losses) == 2


def test_second_moments_known_beforehand_change_nothing():
    values = table(2, features=120)
    known, direct = fit(values, 0, 2, second_moment(values)), fit(values, 0, 2)
    assert np.allclose(np.abs(known.points), np.abs(direct.points)) and np.allclose(known.precision, direct.precision)
    owner = np.arange(len(values)) % 2
    means = np.stack([values[owner == k].mean(0) for k in range(2)])
    within = (values - means[owner]).reshape(-1, 120)
    left = within - within @ direct.whiten @ direct.reconstruct
    assert np.allclose(1 / direct.precision, (left**2).mean(0))


def test_no_picture_is_judged_by_a_fit_that_saw_it():
    nothing_to_tell = np.random.default_rng(0).normal(size=(8, len(CONDITIONS), 60))
    logits, scores = cross_fit(nothing_to_tell, np.arange(8) % 4, 0, (1,))
    assert (logits[0].argmax(-1) == np.arange(len(CONDITIONS))).mean() < 0.06
    assert logits.shape == (1, 8, len(CONDITIONS), len(CONDITIONS)) and scores.shape == (1, 8, len(CONDITIONS))


def test_the_packaged_prototypes_come_from_all_sets_their_classes_in_balance():
    cases = [Case(Path(f"v{i}"), "vqa_rad", {"organ": "chest"}, ()) for i in range(7)]
    cases += [Case(Path(f"a{i}"), "a", {"label": "rare" if i < 3 else "common"}, ()) for i in range(50)]
    cases += [Case(Path(f"b{i}"), "b", {"projection": "ap" if i % 9 else "pa"}, ()) for i in range(50)]
    cases += [Case(Path(f"c{i}"), "c", {}, ()) for i in range(4)]
    cases += [Case(Path(f"n{i}"), "nuclei", {}, ()) for i in range(50)]
    source = {c.path: (c.source, c.labels.get("label", c.labels.get("projection"))) for c in cases}
    chosen = build_prototypes.pictures(cases, 10, seed=0)
    wanted = {
        ("vqa_rad", None): 7,
        ("a", "rare"): 3,
        ("a", "common"): 7,
        ("b", "ap"): 5,
        ("b", "pa"): 5,
        ("c", None): 4,
        ("nuclei", None): 30,  # which differ most
    }
    assert Counter(source[path] for path in chosen) == wanted
    assert chosen == build_prototypes.pictures(cases, 10, seed=0) != build_prototypes.pictures(cases, 10, seed=1)


@pytest.mark.parametrize("tokens", [300, 23, 5])
def test_the_map_of_few_tokens_is_the_ridge_regression_on_its_widest_directions(tokens, rank=16):
    rng = np.random.default_rng(0)
    y = rng.normal(size=(tokens, 40)) @ rng.normal(size=(40, 320))
    x = y + rng.normal(size=(tokens, 8)) @ rng.normal(size=(8, 320)) + 0.1 * rng.normal(size=y.shape)
    centred, wanted = x - x.mean(0), (y - x) - (y - x).mean(0)
    gram = centred.T @ centred
    weights = np.linalg.solve(gram + RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram)), centred.T @ wanted)
    widest = np.linalg.svd(centred @ weights, full_matrices=False)[2][:rank]
    found = fit_low_rank_map(x.astype(np.float32), y.astype(np.float32), rank)
    assert found.down.shape == (320, rank) and found.up.shape == (rank, 320)
    change = centred @ weights @ widest.T @ widest + (y - x).mean(0)
    assert np.abs(found.apply(x.astype(np.float32)) - x - change).max() < 2e-3 * np.abs(change).max()


def test_a_map_is_fitted_from_sums_as_from_the_tokens_themselves():
    rng = np.random.default_rng(0)
    y = (rng.normal(3, 1, (700, 12)) @ rng.normal(size=(12, 48))).astype(np.float32)
    x = y + (rng.normal(size=(700, 4)) @ rng.normal(size=(4, 48))).astype(np.float32) + 2
    parts = [Sums(48) for _ in range(3)]
    for part, at in zip(parts, np.split(np.arange(700), (100, 450)), strict=True):
        part.add(x[at].reshape(-1, 10, 48), y[at].reshape(-1, 10, 48))
    parts[0] += parts[1]
    parts[0] += parts[2]
    whole, found = fit_low_rank_map(x, y, 6), parts[0].fit(6)
    assert parts[0].count == 700 and found.down.dtype == found.shift.dtype == np.float32
    assert np.abs(found.apply(x) - whole.apply(x)).max() < 0.01 * np.abs(whole.apply(x) - x).max()


def test_remedies_share_a_map_and_each_severity_keeps_what_pays():
    rng = np.random.default_rng(0)
    pictures, places, width = 24, 20, 40
    clean = rng.normal(size=(pictures, places, 8)) @ rng.normal(size=(8, width))
    turned = {kind: rng.normal(size=(width, width)) / np.sqrt(width) for kind in ("gaussian", "motion_blur")}
    turned["speckle"] = turned["gaussian"]  # a kind of the same family
    views = []
    for kind, severity in NAMED:
        if kind in turned:
            views.append(clean + 0.2 * severity * (clean @ turned[kind]))
        elif kind == "impulse":
            views.append(clean + severity * rng.normal(size=clean.shape))  # nothing that a map could undo
        else:
            views.append(clean)
    restored = [clean if NAMED[i][0] == "impulse" else views[i] for i in RESTORED]
    tokens = np.stack([clean, *views, *restored], 1).astype(np.float16)
    remedies, maps, _ = fit_remedies(tokens, np.arange(pictures) % 4, rank=16)
    assert [(r.kind, r.severity) for r in remedies] == list(NAMED[1:])
    by = {(r.kind, r.severity): r for r in remedies}
    for severity in range(1, 6):
        assert by["impulse", severity].restore and by["impulse", severity].map_index is None
        assert by["impulse", severity].after < 0.01 < 0.1 * by["impulse", severity].before
        assert not by["low_contrast", severity].restore and by["low_contrast", severity].map_index is None
    used = {kind: {by[kind, s].map_index for s in (3, 4, 5)} for kind in ("gaussian", "speckle", "motion_blur")}
    assert used["gaussian"] == used["speckle"] != used["motion_blur"] and all(len(u) == 1 for u in used.values())
    assert len(maps["down"]) == 2 and maps["down"].shape[1:] == (width, 16)
    assert all(by[kind, 4].after < 0.3 * by[kind, 4].before for kind in turned)


def test_maps_of_a_wide_tower_are_found_in_its_leading_directions(monkeypatch):
    rng = np.random.default_rng(0)
    pictures, places, width = 24, 20, 80
    clean = 2 + rng.normal(size=(pictures, places, 8)) @ rng.normal(size=(8, width))
    turned = rng.normal(size=(width, width)) / np.sqrt(width)
    views = [clean + 0.2 * s * (clean @ turned - 1) if kind == "defocus" else clean for kind, s in NAMED]
    tokens = np.stack([clean, *views, *(views[i] for i in RESTORED)], 1)
    tokens = (tokens + 0.01 * rng.normal(size=tokens.shape)).astype(np.float16)
    whole, whole_maps, _ = fit_remedies(tokens, np.arange(pictures) % 4, rank=16)
    monkeypatch.setattr(leading, "COLUMNS", 24)
    monkeypatch.setattr(leading, "SAMPLE", 512)
    found, maps, _ = fit_remedies(tokens, np.arange(pictures) % 4, rank=16)
    assert [(r.kind, r.restore, r.map_index) for r in found] == [(r.kind, r.restore, r.map_index) for r in whole]
    assert maps["down"].shape == whole_maps["down"].shape == (1, width, 16)
    seen = tokens[:, 1 + NAMED.index(("defocus", 4))].astype(np.float32)
    moved, wanted = (
        LowRankMap(**{name: m[name][0].astype(np.float32) for name in MAP_ARRAYS}).apply(seen)
        for m in (maps, whole_maps)
    )
    assert np.abs(moved - wanted).max() < 0.05 * np.abs(wanted - seen).max() > 0
    directions = leading.leading_directions(tokens, 0)
    assert directions.shape == (width, 24) and np.abs(directions.T @ directions - np.eye(24)).max() < 1e-4
    # All of what varies is among them, the mean too.
    rest = tokens.astype(np.float32) - tokens.astype(np.float32) @ directions @ directions.T
    assert (rest**2).mean() < 2e-4


def test_a_map_is_for_pictures_whose_tokens_it_leads_back():
    """It is fitted to two kinds of picture; what it makes of a third is not like any clean picture."""
    rng = np.random.default_rng(0)
    places, width = 20, 40
    centres = 3 * rng.normal(size=(3, 1, 1, width))
    spread = rng.normal(size=(3, 8, width)) / np.sqrt(8)
    turned = rng.normal(size=(width, width)) / np.sqrt(width)

    def draw(kind, count):
        return centres[kind] + rng.normal(size=(count, places, 8)) @ spread[kind]

    def blurred(clean, severity):
        return clean + 0.1 * severity * (clean @ turned)

    clean = np.concatenate([draw(0, 32), draw(1, 32)])
    views = [blurred(clean, severity) if kind == "motion_blur" else clean for kind, severity in NAMED]
    tokens = np.stack([clean, *views, *(views[i] for i in RESTORED)], 1).astype(np.float16)
    remedies, maps, familiarity = fit_remedies(tokens, np.arange(64) % 4, rank=16)
    for severity in (3, 5):
        remedy = next(r for r in remedies if (r.kind, r.severity) == ("motion_blur", severity))
        fitted = LowRankMap(**{name: maps[name][remedy.map_index].astype(np.float32) for name in MAP_ARRAYS})
        near, far = (
            familiarity.distance(fitted.apply(blurred(some, severity)))
            for some in (np.concatenate([draw(0, 50), draw(1, 50)]), draw(2, 50))
        )
        assert (near <= remedy.farthest).mean() > 0.85 and (far > remedy.farthest).mean() > 0.95
    assert all(r.farthest is None for r in remedies if r.map_index is None)


def test_clusters_of_copies_of_one_picture_have_distances():
    copies = np.repeat(np.eye(1, 40), 16, 0)
    found = fit_clusters(copies, np.zeros(16, int))
    distances = found.of_pooled(np.stack([copies[0], copies[0] + 0.1]))
    assert np.isfinite(distances).all() and distances[0] < 1 < distances[1]
