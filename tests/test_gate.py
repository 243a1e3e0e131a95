"""The gate: folders of pictures found, judged in order, held to rules, counted and written down."""

import csv
import io
import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from imc_lite import IMC, ImcError, load_image
from imc_lite.bundle.store import Bundle
from imc_lite.cli.main import cli
from imc_lite.gate.baseline import Baseline, Origin, load_baseline
from imc_lite.gate.drift import Drift, compare
from imc_lite.gate.find import Candidate, find_pictures
from imc_lite.gate.judge import AHEAD, Judged, judge
from imc_lite.gate.page import page
from imc_lite.gate.rows import harmless
from imc_lite.gate.rules import parse_rules
from imc_lite.gate.statistics import Distribution, fisher, holm, kolmogorov, kolmogorov_smirnov, newcombe, wilson
from imc_lite.gate.tally import Tally
from imc_lite.models.default.onnx import OrtMLLM
from imc_lite.models.picture_shape import check_sides
from imc_lite.noise import apply_to_image
from imc_lite.pdc import load_prototypes
from imc_lite.results import ImageReport, Noise

IMAGES = sorted((Path(__file__).parent / "images").glob("*.jpg"))
CHEST, PELVIS = IMAGES[1], IMAGES[0]


def small(path: Path, kind: str = "clean", severity: int = 0, source: Path = PELVIS) -> None:
    pixels = load_image(source)
    if severity:
        pixels = apply_to_image(pixels, kind, severity, seed=severity)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def imc(default_model):
    return IMC(default_model, load_prototypes(default_model.prototypes_file(), default_model.identity))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Six pictures of which one cannot be read, and what lies about in folders."""
    top = tmp_path_factory.mktemp("incoming")
    small(top / "a.png", "gaussian", 5)
    small(top / "b" / "2.png", "impulse", 4)
    small(top / "b" / "10.png")
    small(top / "c.png", "gaussian", 2)
    small(top / "=1+1.png")
    (top / "broken.png").write_bytes((top / "c.png").read_bytes()[:1000])
    (top / "notes.txt").write_text("no picture")
    (top / ".hidden").mkdir()
    shutil.copy(top / "a.png", top / ".hidden" / "a.png")
    return top


def inspect(*args: object):
    return CliRunner().invoke(cli, ["inspect", *map(str, args)])


def paths(*given: object) -> list[str]:
    return [candidate.path for candidate in find_pictures([str(g) for g in given]).candidates]


def test_a_folders_pictures_are_found_in_order(folder):
    found = find_pictures([str(folder)])
    relative = [Path(c.path).relative_to(folder).as_posix() for c in found.candidates]
    assert relative == ["=1+1.png", "a.png", "b/10.png", "b/2.png", "broken.png", "c.png"]
    assert found.folders and found.passed_over == {".txt": 1}
    assert paths(folder / "c.png", folder / "none", folder / "b") == [
        *(str(folder / n) for n in ("c.png", "none")),
        *(str(folder / "b" / n) for n in ("10.png", "2.png")),
    ]


def test_content_decides_where_the_name_does_not(tmp_path):
    picture = CHEST.read_bytes()
    taken = {
        "1.2.840.113619.2": bytes(128) + b"DICM\x02\0\0\0UL\x04\0",
        "IM000001": b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100" + bytes(200),  # DICOM without a preamble
        "archive.txt": bytes(128) + b"DICM\x02\0\0\0UL\x04\0",
        "download": picture,
        "empty.png": b"",
        "report.pdf": picture,
        "webp": b"RIFF\x10\0\0\0WEBPVP8 ",
    }
    passed = {
        "DICOMDIR": bytes(128) + b"DICM\x02\0\0\0UL\x04\0",
        "cache.bin": b"\x08\x00\x05\x00CS\x0a\x00" + bytes(200),
        "data.json": b"{}",
        "empty": b"",
        "sound": b"RIFF\x10\0\0\0WAVEfmt ",
    }
    for name, data in {**taken, **passed}.items():
        (tmp_path / name).write_bytes(data)
    assert [os.path.basename(p) for p in paths(tmp_path)] == sorted(taken)
    assert find_pictures([str(tmp_path)]).passed_over == {".bin": 1, ".json": 1, "no suffix": 3}


def test_links_lead_in_circles_and_nowhere(tmp_path):
    top, elsewhere = tmp_path / "top", tmp_path / "elsewhere"
    small(top / "a.png"), small(elsewhere / "b.png")
    for name, target in {"again": "..", "gone": "nowhere", "itself": "itself", "there": str(elsewhere)}.items():
        (top / "sub").mkdir(exist_ok=True)
        (top / "sub" / name).symlink_to(target)
    (top / "sub" / "lost.png").symlink_to("nowhere.png")
    os.mkfifo(top / "pipe.png")
    found = find_pictures([str(top)]).candidates
    assert [os.path.relpath(c.path, top) for c in found] == ["a.png", "sub/lost.png", "sub/there/b.png"]
    assert [c.error is not None for c in found] == [False, True, False]


def test_a_folder_within_another_is_looked_through_once(tmp_path):
    small(tmp_path / "a.png"), small(tmp_path / "sub" / "b.png")
    for given in ((tmp_path, tmp_path / "sub"), (tmp_path / "sub", tmp_path), (tmp_path, tmp_path)):
        found = find_pictures([str(path) for path in given])
        assert sorted(os.path.relpath(c.path, tmp_path) for c in found.candidates) == ["a.png", "sub/b.png"]
        assert not any(c.error for c in found.candidates)


class Scaling:
    """A model of somebody's that scales the shorter side, as CLIP's do, and encodes as another one."""

    def __init__(self, model) -> None:
        self.model = model

    def __getattr__(self, name: str):
        return getattr(self.model, name)

    def perceive(self, image):
        check_sides(image)
        return self.model.perceive(image)


def test_a_picture_that_a_model_cannot_take_is_a_verdict_of_its_own(imc, tmp_path):
    """The others are judged."""
    thin = tmp_path / "thin.png"
    Image.new("RGB", (3000, 1)).save(thin)
    scaling = IMC(Scaling(imc.model), imc.prototypes, sms=False)
    found = list(judge(scaling, [Candidate(str(path)) for path in (PELVIS, thin, PELVIS)]))
    assert [one.error is None for one in found] == [True, False, True]
    assert found[1].error.startswith(str(thin)) and "too thin" in found[1].error


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anywhere")
def test_a_folder_that_may_not_be_read_is_said(tmp_path):
    small(tmp_path / "a.png")
    (tmp_path / "locked").mkdir(mode=0)
    locked = find_pictures([str(tmp_path)]).candidates[1]
    assert "Permission denied" in locked.error


def test_an_empty_folder_is_an_error_of_its_own(tmp_path):
    (candidate,) = find_pictures([str(tmp_path)]).candidates
    assert "holds no picture" in candidate.error


def test_verdicts_are_those_of_inspect_in_order(imc, folder):
    found = find_pictures([str(folder)]).candidates
    judged = list(judge(imc, found))
    assert [j.path for j in judged] == [c.path for c in found]
    for j in judged:
        if j.error is None:
            assert j.report == imc.inspect(j.path)
        else:
            with pytest.raises(ImcError) as error:
                imc.inspect(j.path)
            assert str(error.value) == j.error
    assert [j.report.noise.kind for j in judged if j.report] == ["clean", "gaussian", "clean", "impulse", "gaussian"]


def test_threads_judge_side_by_side_and_alike(imc, default_bundle, folder):
    found = find_pictures([str(folder)]).candidates
    both = IMC(OrtMLLM(default_bundle, threads=2), imc.prototypes)
    assert list(judge(both, found)) == list(judge(imc, found))
    assert not both.model.sessions._made, "each thread has a session of its own"
    (one,) = judge(both, found[:1])
    assert one == next(judge(imc, found[:1])) and both.model.sessions._made, "a picture alone gets both threads"


def test_nothing_is_fetched_or_written_to_inspect(default_bundle, folder, tmp_path):
    """The default model's encoder is in the package: before its bundle is built, verdicts are those after it."""
    given = ["inspect", str(folder), "--json", "--offline"]
    kept = {name: str(tmp_path / name) for name in ("with", "without")}
    there = CliRunner().invoke(cli, [*given, "--save-baseline", kept["with"]])
    cache = {"IMC_LITE_CACHE": str(tmp_path / "cache")}
    for threads in ("1", "2"):
        options = ["--threads", threads, "--save-baseline", kept["without"]]
        alone = CliRunner().invoke(cli, [*given, *options], env=cache)
        assert (alone.exit_code, alone.stdout) == (there.exit_code, there.stdout) and there.stdout.count("\n") == 6
        assert Path(kept["without"]).read_text() == Path(kept["with"]).read_text()
    pictures = CliRunner().invoke(
        cli, ["inspect", str(CHEST), "--html", str(tmp_path / "page"), "--offline"], env=cache
    )
    version = Bundle(default_bundle).version
    assert pictures.exit_code == 0 and f"encoder of default, version {version};" in (tmp_path / "page").read_text()
    assert not (tmp_path / "cache").exists()


def test_no_more_pictures_are_in_memory_than_said(imc):
    class Counting(list):
        asked = 0

        def __iter__(self):
            for candidate in super().__iter__():
                self.asked += 1
                yield candidate

    candidates = Counting([Candidate(str(PELVIS))] * 9)
    for done, _ in enumerate(judge(imc, candidates), 1):
        assert candidates.asked - done <= AHEAD
    assert candidates.asked == 9


def test_reports_and_directories_are_passed_over_and_lost_pixels_are_not(imc, tmp_path):
    pytest.importorskip("pydicom")
    from dicom_files import make, ramp, written

    pixels = ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored")
    no_image = dict.fromkeys((*pixels, "HighBit", "PixelRepresentation", "PixelData"))
    report = make(ramp(), SOPClassUID="1.2.840.10008.5.1.4.1.1.88.22", **no_image)
    (tmp_path / "report.dcm").write_bytes(written(report))
    (tmp_path / "lost.dcm").write_bytes(written(make(ramp(), **no_image)))
    (tmp_path / "no_pixels.dcm").write_bytes(written(make(ramp(), PixelData=None)))
    spectra = make(ramp(), SOPClassUID="1.2.840.10008.5.1.4.1.1.4.2", PixelData=None)
    spectra.SpectroscopyData = bytes(8)
    (tmp_path / "spectra.dcm").write_bytes(written(spectra))
    (tmp_path / "private.dcm").write_bytes(written(make(ramp(), SOPClassUID="1.3.12.2.1107.5.9.1", **no_image)))
    judged = {os.path.basename(j.path): j for j in judge(imc, find_pictures([str(tmp_path)]).candidates)}
    assert all(judged[n].no_picture for n in ("report.dcm", "spectra.dcm", "private.dcm"))
    assert all("without a picture" in judged[n].error for n in ("lost.dcm", "no_pixels.dcm"))
    (named,) = judge(imc, [Candidate(str(tmp_path / "report.dcm"))])
    assert "without a picture (Enhanced SR Storage)" in named.error
    # Where nothing else was there, a table of before stays.
    for name in ("lost.dcm", "no_pixels.dcm"):
        (tmp_path / name).unlink()
    (tmp_path / "verdicts.csv").write_text("of last month")
    done = inspect(tmp_path, "--csv", tmp_path / "verdicts.csv")
    assert isinstance(done.exception, ImcError) and (tmp_path / "verdicts.csv").read_text() == "of last month"


def test_rules(imc, folder):
    judged = {os.path.basename(j.path): j for j in judge(imc, find_pictures([str(folder)]).candidates)}

    def meeting(*words: str) -> list[str]:
        return sorted(name for name, j in judged.items() if any(rule.met_by(j) for rule in parse_rules(words)))

    assert meeting("gaussian") == ["a.png", "c.png"] and meeting("gaussian:4") == ["a.png"]
    assert meeting("noisy") == ["2.png", "a.png", "c.png"] and meeting("noisy:3") == ["2.png", "a.png"]
    assert meeting("not-gradable, unreadable") == sorted(
        {n for n, j in judged.items() if j.report and j.report.gradable is False} | {"broken.png"}
    )
    assert meeting("unknown", "drift") == []
    assert [str(r) for r in parse_rules(["impulse:2,unknown", "unknown"])] == ["impulse:2", "unknown"]
    assert [str(r) for r in parse_rules(["defocus", "spike:3,jpeg:1"])] == ["defocus", "spike:3", "jpeg:1"]


@pytest.mark.parametrize("words", ["", "blurry", "gaussian:0", "gaussian:6", "gaussian:", "unknown:2", "clean", "a,"])
def test_what_is_no_rule_is_refused(words):
    with pytest.raises(ImcError, match="is no rule; give not-gradable"):
        parse_rules([words])


def test_exit_codes_and_failed_rules(default_bundle, folder):
    done = inspect(folder, "--json", "--fail-on", "gaussian:4,noisy:3")
    rows = {os.path.basename(row["path"]): row for row in map(json.loads, done.stdout.splitlines())}
    assert done.exit_code == 2, "a picture could not be read, so not all were judged"
    assert {name: row["failed"] for name, row in rows.items()} == {
        **{"=1+1.png": [], "a.png": ["gaussian:4", "noisy:3"], "10.png": [], "2.png": ["noisy:3"]},
        **{"broken.png": [], "c.png": []},
    }
    done = inspect(folder, "--fail-on", "unreadable")
    assert done.exit_code == 3 and "met a rule: 1 (unreadable 1)" in done.stderr
    done = inspect(folder / "b", "--fail-on", "impulse")
    assert done.exit_code == 3 and done.stdout.splitlines()[1].endswith("\tfails impulse")
    assert inspect(folder / "b", "--fail-on", "impulse:5,unreadable,unknown").exit_code == 0
    assert inspect(folder / "b").exit_code == 0
    assert inspect(folder).exit_code == 2


def test_json_is_as_it_was_without_rules(default_bundle, imc, folder):
    done = inspect(folder / "b" / "2.png", "--json")
    report = asdict(imc.inspect(folder / "b" / "2.png"))
    assert done.stdout == json.dumps({**report, "path": str(folder / "b" / "2.png")}) + "\n"
    assert done.stderr == ""


def test_the_summary_counts(default_bundle, folder):
    done = inspect(folder, folder / "b" / "10.png")
    assert done.stdout.count("\n") == 6
    lines = [line.split() for line in done.stderr.splitlines()]
    assert lines[1:-2] == [
        ["6", "pictures", "all", "share", "1", "2", "3", "4", "5"],
        ["clean", "3", "50.0", "%"],
        ["gaussian", "2", "33.3", "%", "1", "1"],
        ["impulse", "1", "16.7", "%", "1"],
    ]
    assert done.stderr.splitlines()[-2].endswith(", left alone 0, unreadable 1")
    assert done.stderr.splitlines()[-1] == "passed over as no pictures: 1 (.txt 1)"


def test_csv(default_bundle, folder, tmp_path, monkeypatch):
    out = tmp_path / "verdicts.csv"
    monkeypatch.chdir(folder)
    done = inspect("=1+1.png", "broken.png", "a.png", "--csv", out, "--fail-on", "noisy,unreadable")
    assert done.exit_code == 3
    data = out.read_bytes()
    assert data.count(b"\r\n") == data.count(b"\n") == 4
    assert data.splitlines()[0].startswith(b'"path","kind","severity","probability","out_of_distribution_score"')
    rows = list(csv.DictReader(io.StringIO(data.decode(), newline="")))
    assert [row["path"] for row in rows] == ["'=1+1.png", "broken.png", "a.png"]
    assert [row["failed"] for row in rows] == ["", "unreadable", "noisy"]
    assert (rows[2]["kind"], rows[2]["severity"], rows[1]["kind"]) == ("gaussian", "4", "")
    assert float(rows[0]["out_of_distribution_score"]) > 0 and "broken.png" in rows[1]["error"]
    inspect("=1+1.png", "broken.png", "a.png", "--csv", tmp_path / "again.csv", "--fail-on", "noisy,unreadable")
    assert (tmp_path / "again.csv").read_bytes() == data


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "＋1", "－1", "＠1"])
def test_cells_that_spreadsheets_would_run(cell):
    assert harmless(cell) == "'" + cell
    assert harmless(f"x{cell}") == f"x{cell}"


def test_outputs_are_checked_before_anything_is_judged(folder, tmp_path):
    picture = tmp_path / "a.png"
    shutil.copy(folder / "a.png", picture)
    for out, why in ((picture, "is the name of a picture"), (tmp_path / "none" / "x.csv", "cannot write")):
        done = inspect(folder, "--csv", out, "--model", "nothing of that name")
        assert isinstance(done.exception, ImcError) and why in str(done.exception)
    assert picture.read_bytes() == (folder / "a.png").read_bytes()


def test_a_picture_that_is_judged_is_no_output(folder, tmp_path):
    names = [tmp_path / name for name in ("IM1", "IM2", "link")]
    for name in names[:2]:
        shutil.copy(folder / "a.png", name)
    names[2].symlink_to(folder / "c.png")
    both, picture = "is both input and output", "is the name of a picture"
    for given, out, why in ((tmp_path, names[1], both), (names[0], names[0], both), (names[0], names[2], picture)):
        done = inspect(given, "--csv", out, "--model", "nothing of that name")
        assert isinstance(done.exception, ImcError) and why in str(done.exception)
    assert names[0].read_bytes() == names[1].read_bytes() == (folder / "a.png").read_bytes()
    (tmp_path / "same").symlink_to(tmp_path / "out")
    done = inspect(folder, "--csv", tmp_path / "same", "--html", tmp_path / "out", "--model", "nothing of that name")
    assert isinstance(done.exception, ImcError) and "is given for two outputs" in str(done.exception)


def test_names_that_are_no_text(default_bundle, tmp_path):
    name = os.fsdecode(b"bad\xff\n\x1b[31m.jpg")
    shutil.copy(PELVIS, tmp_path / name)
    done = inspect(tmp_path, "--csv", tmp_path / "out.csv")
    assert done.exit_code == 0 and done.stdout.count("\n") == 1 and "\x1b" not in done.stdout
    assert json.loads(inspect(tmp_path, "--json").stdout)["path"].endswith("bad?\n\x1b[31m.jpg")
    assert "bad?" in (tmp_path / "out.csv").read_text(encoding="utf-8")


def test_scores_are_those_of_the_matcher(imc):
    (judged,) = judge(imc, [Candidate(str(CHEST))])
    stats = imc.model.perceive(load_image(CHEST)).stats
    from imc_lite.pdc.features import features

    _, score = imc.prototypes.matcher.evidence(features(stats)[None])
    assert judged.score == pytest.approx(float(score[0]), rel=1e-6)
    assert np.isfinite(judged.score)


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 20), -0.1611, 0.2775),
        ((10, 10), (0, 20), 0.6791, 1.0),
    ],
)
def test_newcombes_own_examples(first, second, low, high):
    """Statistics in Medicine 17:873 (1998), table II, method 10."""
    assert newcombe(*first, *second) == pytest.approx((low, high), abs=5e-5)


def test_wilsons_interval():
    """Newcombe, Statistics in Medicine 17:857 (1998), table I, method 3."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)


def test_fishers_tea_and_holms_correction():
    assert fisher(3, 4, 1, 4) == pytest.approx(34 / 70)
    assert fisher(4, 4, 0, 4) == pytest.approx(2 / 70)
    assert fisher(3, 100, 0, 1000) == pytest.approx(7.309178e-4, rel=1e-6)  # R: fisher.test
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_kolmogorov_smirnov_by_hand():
    # Up to 2 lies half of the first and none of the second.
    first, second = Distribution.of([1, 2, 3, 4]), Distribution.of([3, 4, 5, 6])
    assert kolmogorov_smirnov(first, second)[0] == kolmogorov_smirnov(second, first)[0] == 0.5
    # Up to 1 lie three quarters of the first and a quarter of the second: ties count together.
    assert kolmogorov_smirnov(Distribution.of([1, 1, 1, 2]), Distribution.of([1, 2, 2, 2]))[0] == 0.5
    assert kolmogorov_smirnov(first, first) == (0, 1)
    # The limiting distribution's tabulated 5 % and 1 % points.
    assert kolmogorov(1.3581) == pytest.approx(0.05, abs=1e-5) and kolmogorov(1.6276) == pytest.approx(0.01, abs=1e-5)


def test_what_is_kept_of_a_large_sample_is_never_farther_apart_than_all_of_it():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 1, 5000).round(6), rng.normal(0.1, 1, 3000).round(6)
    pooled = np.sort(np.concatenate([first, second]))
    shares = [np.searchsorted(np.sort(s), pooled, "right") / len(s) for s in (first, second)]
    exact = np.abs(shares[0] - shares[1]).max()
    kept = [Distribution.of(s) for s in (first, second)]
    assert [len(d.values) for d in kept] == [200, 200]
    assert exact - 2 / 200 <= kolmogorov_smirnov(*kept)[0] <= exact + 1e-3  # values are rounded to four digits


def test_no_number_is_the_greatest():
    odd = Distribution.of([1.0, float("nan"), float("inf")])
    assert odd.values[-1] == 3e38 and odd.at_most[-1] == 3
    json.loads(json.dumps(odd.values), parse_constant=pytest.fail)


ORIGIN = Origin("e", "p", "x")


def counted(score: float = 0.0, unreadable: int = 0, seed: int = 0, **kinds: int) -> Baseline:
    """As many pictures of each kind, severity 3, with scores drawn around 1 + `score`."""
    rng, tally = np.random.default_rng(seed), Tally()
    for kind, count in kinds.items():
        for _ in range(count):
            severity = 0 if kind in ("clean", "unknown") else 3
            noise = Noise(kind, severity, float(rng.beta(20, 1)), float(severity))
            gradable = None if kind == "unknown" else kind != "speckle"
            tally.add(Judged("x", ImageReport("x", noise, gradable), float(1 + score + rng.normal(0, 0.1))), ())
    for _ in range(unreadable):
        tally.add(Judged("x", error="broken"), ())
    return Baseline.of(tally, ORIGIN)


def moved(drift: Drift) -> set[str]:
    return {c.name for c in (*drift.shares, *drift.shifts) if c.moved}


def test_drift_names_what_moved():
    then = counted(clean=900, gaussian=60, unknown=40)
    assert moved(compare(counted(seed=1, clean=90, gaussian=6, unknown=4), then)) == set()
    assert not list(compare(then, then).lines()) and not compare(then, then).moved
    noisy = compare(counted(seed=1, clean=60, gaussian=6, unknown=4, speckle=30), then)
    assert moved(noisy) == {"clean", "speckle", "not gradable"}
    (speckle,) = (s for s in noisy.shares if s.name == "speckle")
    assert speckle.now == (30, 100) and speckle.then == (0, 1000)
    assert speckle.interval == newcombe(30, 100, 0, 1000) and 0 < speckle.interval[0] < 0.3 < speckle.interval[1]
    assert any(line.startswith("speckle 30.0% of 100, was 0.0% of 1,000: +30.0 points") for line in noisy.lines())
    other = compare(counted(score=0.1, seed=1, clean=90, gaussian=6, unknown=4), then)
    assert moved(other) == {"out_of_distribution_score"}
    assert moved(compare(counted(unreadable=20, seed=1, clean=90, gaussian=6, unknown=4), then)) == {"unreadable"}


def test_kinds_that_nobody_saw_are_not_asked_about_and_all_others_are_corrected():
    drift = compare(counted(seed=1, clean=95, gaussian=5), counted(clean=99, gaussian=1))
    assert [s.name for s in drift.shares] == ["clean", "gaussian"]
    p_values = [c.p for c in (*drift.shares, *drift.shifts)]
    assert [c.p_holm for c in (*drift.shares, *drift.shifts)] == holm(p_values)


def test_a_baseline_reads_and_writes_the_same(tmp_path):
    baseline, file = counted(clean=900, gaussian=60, unknown=40, unreadable=3), tmp_path / "usual.json"
    baseline.save(file)
    assert load_baseline(file) == baseline
    assert file.stat().st_size < 20_000
    data = json.loads(file.read_text())
    damaged = {
        "another format": data | {"format": 2},
        "holds no baseline": data | {"pictures": 999},
        "holds no baseline ": data | {"kinds": {"clean": {"0": -1}}},
        "holds no baseline  ": data | {"probability": data["probability"] | {"values": [2, 1]}},
        "holds no baseline   ": {k: v for k, v in data.items() if k != "origin"},
        "holds no baseline    ": [data],
    }
    for why, content in damaged.items():
        file.write_text(json.dumps(content))
        with pytest.raises(ImcError, match=why.strip()):
            load_baseline(file)
    file.write_bytes(b"[" * 100_000)
    with pytest.raises(ImcError, match="holds no baseline"):
        load_baseline(file)
    with pytest.raises(ImcError, match="cannot read"):
        load_baseline(tmp_path / "none.json")


def test_baseline_drift_and_report_on_the_command_line(default_bundle, tmp_path):
    usual, noisy, file = tmp_path / "usual", tmp_path / "noisy", tmp_path / "usual.json"
    pixels = load_image(PELVIS)[::2, ::2]
    for i in range(6):
        for folder, picture in ((usual, pixels[i:]), (noisy, apply_to_image(pixels[i:], "gaussian", 5, seed=i))):
            folder.mkdir(exist_ok=True)
            Image.fromarray(picture).save(folder / f"<b>{i}.png")
    assert inspect(usual, "--save-baseline", file).exit_code == 0
    kept = file.read_bytes()
    same = inspect(usual, "--baseline", file, "--save-baseline", file, "--fail-on", "drift")
    assert same.exit_code == 0 and "no drift from" in same.stderr and file.read_bytes() == kept
    outputs = ("--report", tmp_path / "drift.json", "--html", tmp_path / "report.html")
    done = inspect(noisy, "--baseline", file, "--fail-on", "drift,gaussian", *outputs)
    assert done.exit_code == 3
    assert "imc-lite: drift: gaussian 100.0% of 6, was 0.0% of 6: +100.0 points" in done.stderr
    report = json.loads((tmp_path / "drift.json").read_text())
    assert report["moved"] and list(report["now"]["kinds"]) == ["gaussian"] and report["then"]["pictures"] == 6
    severities = report["now"]["kinds"]["gaussian"]
    assert sum(severities.values()) == 6 and min(severities) >= "4"
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;3.png" in html and "<b>" not in html and html.count("<svg") == 3
    assert not any(part in html.replace("http://www.w3.org/2000/svg", "") for part in ("://", "src=", "href", "url("))
    file.write_text(kept.decode().replace('"prototypes": "', '"prototypes": "0'))
    refused = inspect(usual, "--baseline", file)
    assert isinstance(refused.exception, ImcError) and "made with another prototypes" in str(refused.exception)
    assert refused.stdout == ""


def test_a_baseline_knows_a_window_by_every_spelling(default_bundle, tmp_path):
    pytest.importorskip("pydicom")
    from dicom_files import make, written

    values = np.random.default_rng(0).integers(-900, 900, (64, 64)).astype(np.int16)
    scan, usual = tmp_path / "scan.dcm", tmp_path / "usual.json"
    scan.write_bytes(written(make(values, RescaleSlope=1, RescaleIntercept=0)))
    assert inspect(scan, "--window", "lung", "--frame", 1, "--save-baseline", usual).exit_code == 0
    assert inspect(scan, "--window=-600,1500", "--baseline", usual).exit_code == 0
    assert "another window" in str(inspect(scan, "--window", "bone", "--baseline", usual).exception)


def test_a_night_in_which_nothing_can_be_read(default_bundle, folder, tmp_path):
    """The rule holds where nothing can be compared, and what is kept of other nights stays as it was."""
    usual, report, html = (tmp_path / name for name in ("usual.json", "drift.json", "report.html"))
    assert inspect(folder / "a.png", "--save-baseline", usual).exit_code == 0
    report.write_text("yesterday's")
    kept = usual.read_bytes()
    outputs = ("--save-baseline", usual, "--report", report, "--html", html, "--csv", tmp_path / "rows.csv")
    for rules, code in ((["--fail-on", "drift,unreadable"], 3), (["--fail-on", "drift"], 2)):
        done = inspect(folder / "broken.png", "--baseline", usual, *outputs, *rules)
        assert done.exit_code == code and "no picture could be judged, so nothing is compared" in done.stderr
        assert usual.read_bytes() == kept and report.read_text() == "yesterday's" and "broken.png" in html.read_text()


@pytest.mark.parametrize("options", [["--fail-on", "drift"], ["--report", "x.json"], ["--csv", "x", "--html", "x"]])
def test_options_that_make_no_sense_together(options, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = inspect(folder, *options, "--model", "nothing of that name")
    assert done.exit_code and ("--baseline" in done.output or "two outputs" in str(done.exception))
    assert not list(tmp_path.iterdir())


def test_the_page_shows_names_as_text(imc):
    tally = Tally()
    name = "<script>alert(1)</script>\u202e.png"
    tally.add(
        Judged(name, ImageReport(name, Noise("gaussian", 5, 1.0, 5.0), False, "<i>"), 1.2), parse_rules(["noisy"])
    )
    tally.add(Judged("&.png", error="cannot read <x>"), ())
    text = page(tally, imc, ruled=True)
    assert "<script" not in text and "<i>" not in text and "<x>" not in text and "\u202e" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\N{REPLACEMENT CHARACTER}.png" in text and "&amp;.png" in text
    assert page(tally, imc, ruled=True) == text
