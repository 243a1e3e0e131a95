"""One command makes again what is not current: which steps run, in which order, and what a failure leaves behind."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes"))
import all as everything
import history
import inputs
import steps
from committed import RESULTS, ROOT
from steps import Step

FIRST = Step("first", "python recipes/one.py -o imc_lite/assets/prototypes.safetensors", ("words",),
             ("imc_lite/assets/prototypes.safetensors",))  # fmt: skip
SECOND = Step("second", "python recipes/two.py --data DATA -o recipes/results/two.json", ("prototypes", "slake"),
              ("recipes/results/two.json",))  # fmt: skip
THIRD = Step("third", "python recipes/three.py", ("results",))
WRITES = '"""A recipe."""\nimport sys, shared\nopen(sys.argv[-1], "w").write(shared.text())  # as told\n'


@pytest.fixture
def root(tmp_path):
    """A repository of three tiny recipes, each of which notes that it ran."""
    files = {
        "imc_lite/assets/words.txt": "words",
        "recipes/shared.py": '"""Shared."""\ndef text():\n    open("log", "a").write("x")\n    return "made"\n',
        "recipes/one.py": WRITES,
        "recipes/two.py": WRITES,
        "recipes/three.py": "open('table', 'w').write(open('recipes/results/two.json').read())\n",
        "recipes/results/two.json": "before",
        "data/slake_text/train.json": "[]",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def maker(root: Path, *some: Step, jobs: int = 1) -> everything.Maker:
    return everything.Maker(some or (FIRST, SECOND, THIRD), root, root / "data", root / "lm.whl", jobs)


def states(root: Path) -> dict[str, str]:
    lines = maker(root).listing().splitlines()
    return {line.split(": ", 1)[0]: line.split(": ", 1)[1].rsplit(" (", 1)[0] for line in lines}


def ran(root: Path) -> int:
    return len((root / "log").read_text())


def test_all_run_once_each_after_what_it_reads(root):
    maker(root, jobs=2).run()
    assert (root / "table").read_text() == "made" and ran(root) == 2
    assert set(states(root).values()) == {"current"}
    maker(root).run()
    assert ran(root) == 2
    record = json.loads((root / inputs.RECORD).read_text())
    assert set(record) == {"first", "second", "third"}
    assert record["second"]["seconds"] > 0 and record["second"]["machine"] and record["second"]["date"]
    assert not list((root / "runs" / "all").iterdir())


def test_what_changed_is_named_and_what_hangs_on_it_waits(root):
    assert states(root)["first"] == "never run"
    maker(root).run()
    (root / "imc_lite/assets/words.txt").write_text("others")
    assert states(root) == {"first": "words changed", "second": "after first", "third": "after second"}
    maker(root).run()
    assert ran(root) == 3  # it came out the same, so what reads it stays
    (root / "data/slake_text/train.json").write_text("[1]")
    assert states(root)["second"] == "slake changed"
    maker(root).run()
    (root / "recipes/results/two.json").write_text("by hand")
    assert states(root)["second"] == "recipes/results/two.json is not the one that was made"


def test_sources_count_without_their_comments(root):
    maker(root).run()
    shared = root / "recipes/shared.py"
    shared.write_text('"""Other words."""\n\n\n' + shared.read_text().split("\n", 1)[1].replace('"x")', '"x")  # why'))
    assert set(states(root).values()) == {"current"}
    shared.write_text(shared.read_text().replace("made", "other"))
    assert states(root) == {
        "first": "recipes/shared.py changed",
        "second": "recipes/shared.py changed",
        "third": "after second",
    }


def test_what_reads_the_encoder_alone_stays_when_other_weights_change(root):
    step = Step("noise", "python recipes/one.py -o out", ("encoder",))
    weights = root / "imc_lite/assets/default.safetensors"

    def digest(**tensors: float) -> str:
        save_file({f"{k}.weight": np.float32([v]) for k, v in tensors.items()}, weights)
        return inputs.inputs_of(step, root, root / "data")["encoder"]

    first = digest(encoder=1.0, lora=1.0)
    assert digest(encoder=1.0, lora=2.0) == first != digest(encoder=2.0, lora=1.0)


def test_a_failure_names_the_step_and_leaves_the_result(root):
    (root / "recipes/two.py").write_text(
        "import sys\nopen(sys.argv[-1], 'w').write('half')\nraise OSError('no luck')\n"
    )
    with pytest.raises(
        SystemExit, match=r"^all: step second failed \(OSError: no luck\); its output is in runs/all/.*"
    ):
        maker(root).run()
    assert (root / "recipes/results/two.json").read_text() == "before" and not (root / "table").exists()
    assert states(root) == {"first": "current", "second": "never run", "third": "never run"}
    (root / "recipes/two.py").write_text(WRITES)
    maker(root).run()
    assert ran(root) == 2 and (root / "table").read_text() == "made"


def test_another_folder_than_the_data_is_refused(root):
    with pytest.raises(SystemExit, match=r"holds no lists of slake, which step second reads; check --data"):
        everything.Maker([SECOND], root, root / "recipes", root / "lm.whl").listing()


def test_a_step_that_writes_nothing_has_failed(root):
    (root / "recipes/one.py").write_text("pass\n")
    with pytest.raises(SystemExit, match="first ended without writing imc_lite/assets/prototypes"):
        maker(root).run()


def test_named_steps_run_though_they_are_current(root):
    maker(root).run()
    maker(root).run(only=["second"])
    assert ran(root) == 3
    with pytest.raises(SystemExit, match="no step 'fourth'"):
        maker(root).run(only=["fourth"])


@pytest.mark.parametrize("alone", [False, True])
def test_steps_run_side_by_side_unless_they_measure_time(root, alone):
    (root / "recipes/meet.py").write_text(
        "import sys, time, pathlib\npathlib.Path(sys.argv[1]).touch()\nuntil = time.time() + float(sys.argv[3])\n"
        "while not (met := pathlib.Path(sys.argv[2]).exists()) and time.time() < until:\n    time.sleep(0.02)\n"
        "sys.exit(0 if met else 'alone')\n"
    )
    wait = 1 if alone else 30
    pair = [
        Step("a", f"python recipes/meet.py a b {wait}", ("words",), alone=alone),
        Step("b", f"python recipes/meet.py b a {wait}", ("words",)),
    ]
    if alone:
        with pytest.raises(SystemExit, match=r"step a failed \(alone\)"):
            maker(root, *pair, jobs=2).run()
    else:
        maker(root, *pair, jobs=2).run()
        assert (root / "a").exists() and (root / "b").exists()


def test_a_failure_lets_finish_what_runs_beside_it(root):
    (root / "recipes/fail.py").write_text("import time\ntime.sleep(0.3)\nraise SystemExit('no')\n")
    (root / "recipes/late.py").write_text("import time, sys\ntime.sleep(1)\nopen('late', 'w')\n")
    both = [Step("fail", "python recipes/fail.py", ("words",)), Step("late", "python recipes/late.py", ("words",))]
    began = time.monotonic()
    with pytest.raises(SystemExit, match="step fail failed"):
        maker(root, *both, jobs=2).run()
    assert (root / "late").exists() and time.monotonic() - began > 1
    assert set(inputs.read_record(root)) == {"late"}


def test_work_is_taken_up_only_for_the_same_inputs(root):
    (root / "recipes/two.py").write_text(
        "import sys, pathlib\npart = pathlib.Path(sys.argv[-1] + '.part')\nif not part.exists():\n"
        "    part.touch()\n    sys.exit('cut off')\npathlib.Path(sys.argv[-1]).write_text('taken up')\n"
    )
    for _ in range(2):
        with pytest.raises(SystemExit, match="cut off"):
            maker(root).run()
        (root / "data/slake_text/train.json").write_text("[2]")
    maker(root).run()
    assert (root / "recipes/results/two.json").read_text() == "taken up"


def test_every_row_of_the_table_is_a_step_or_apart_for_a_reason():
    rows = steps.commands()
    assert not steps.PLAN.keys() & steps.APART.keys()
    assert set(rows) - {"step"} == steps.PLAN.keys() | steps.APART.keys()
    linked = {line for line in steps.TABLE.read_text().splitlines() if line.startswith("| ")}
    assert len(linked) == len(rows) + 1  # each row has a name of its own; the first is the heading


def test_every_committed_result_stands_in_the_table():
    table = steps.TABLE.read_text()
    for path in RESULTS.rglob("*.*"):
        name = path.relative_to(RESULTS)
        wanted = f"results/{name.parent}/" if name.parent.name else f"results/{name}"
        assert wanted in table, f"no row of recipes/README.md makes {name}"


def test_steps_come_after_what_they_read_and_read_what_is_there():
    plan = steps.steps()
    for i, step in enumerate(plan):
        assert not any(everything.feeds(later, step) for later in plan[i:]), step.name
        for name in step.reads:
            there = [pattern for pattern in steps.FILES[name] if not pattern.startswith("DATA/")]
            assert all(list(ROOT.glob(pattern)) for pattern in there), name
        recipe = step.command.startswith("python recipes/")
        assert recipe == bool(inputs.sources(step.command, ROOT)), step.name
    tables = {path.name for path in inputs.sources("python recipes/tables.py", ROOT)}
    parts = ("confidence", "generality", "noise", "robustness", "runtime")
    assert tables == {"tables.py", "committed.py", *(f"tables_{part}.py" for part in parts)}


def test_the_commands_are_the_tables_with_their_results_kept_apart(tmp_path):
    made = everything.Maker(steps.steps(), ROOT, tmp_path / "a set", tmp_path / "lm.whl")
    made.bundle = lambda: "/the/bundle"
    by_name = {step.name: made.command(step, Path("/w")) for step in made.steps}
    python = everything.PYTHON
    assert by_name["answers"] == (
        f"{python} recipes/evaluate.py --data '{tmp_path}/a set' --bundle /the/bundle -o /w/answers.json"
    )
    assert by_name["benchmark"] == (
        f"{python} -m imc_lite bench -o /w/bench && cp /w/bench/results.json /w/bench/table.md recipes/results/bench/"
    )
    assert f" --lm {tmp_path}/lm.whl --weights imc_lite/assets/default.safetensors " in by_name["quantization"]


def test_what_became_slower_is_named(tmp_path, monkeypatch):
    """Within one kind of processor, a commit is held against the last other one."""
    at = {"commit": "one", "processor": "a box"}
    for name in at:
        monkeypatch.setattr(history, name, lambda name=name: at[name])
    file = tmp_path / "history.jsonl"

    def added(pace: float, seconds: float) -> list[str]:
        return history.append(file, "runtime", {"pace": pace, f"only {at['commit']}": 1}, {"answer": seconds})

    assert added(10, 1.0) == added(5, 2.0) == [], "a commit is not held against itself"
    assert added(10, 1.0) == [] and len(file.read_text().splitlines()) == 1, "the last run of it counts"
    at["commit"] = "two"
    assert added(9.5, 1.05) == []
    assert added(8.9, 1.0) == ["pace: 10 at one, 8.9 now"]
    assert added(20, 1.2) == ["answer: 1 at one, 1.2 now"]
    assert history.append(file, "server", {"pace": 1}, {}) == [], "another measurement"
    at["processor"] = "another box"
    assert added(1, 9) == []
    at |= {"commit": "three", "processor": "a box"}
    assert added(18.1, 1.3) == [] and len(file.read_text().splitlines()) == 5
