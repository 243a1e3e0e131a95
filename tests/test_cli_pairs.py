"""Every pair of `answer`'s options, on every kind of model that --model takes."""

import itertools
import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")
pydicom_data = pytest.importorskip("pydicom.data")
sys.path.insert(0, str(Path(__file__).parent))

from imc_lite.cli.main import cli  # noqa: E402

pytestmark = pytest.mark.slow

SCAN = pydicom_data.get_testdata_file("CT_small.dcm")
OPTIONS = {
    "--json": [],
    "--no-pdc": [],
    "--no-sms": [],
    "--prototypes": ["OWN"],
    "--window": ["full"],
    "--frame": ["1"],
    "--threads": ["2"],
    "--device": ["cpu"],
    "--quant": ["none"],
    "--offline": [],
}
KINDS = ("default", "bundle", "checkpoint", "exported")


@pytest.fixture(scope="module")
def models(default_bundle, llava_checkpoint, llava_prototypes, exported) -> dict[str, tuple[str, str]]:
    """Of every kind its name for --model, and a file of prototypes that are its own."""
    own, theirs = str(default_bundle / "prototypes.safetensors"), str(llava_prototypes)
    return {
        "default": ("default", own),
        "bundle": (str(default_bundle), own),
        "checkpoint": (str(llava_checkpoint), theirs),
        "exported": (str(exported("llava")), theirs),
    }


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def sets() -> list[tuple[str, ...]]:
    """Each option alone; then sets that hold every pair, for the only two that exclude each other apart."""
    excluding = ("--no-pdc", "--prototypes")
    whole = [tuple(name for name in OPTIONS if name != left_out) for left_out in excluding]
    pairs = {pair for options in (*whole, excluding) for pair in itertools.combinations(options, 2)}
    assert pairs == set(itertools.combinations(OPTIONS, 2))
    return [*((name,) for name in OPTIONS), *whole, excluding]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", sets(), ids=" ".join)
def test_options_together(options, kind, models):
    model, own = models[kind]
    given = [part for name in options for part in (name, *(own if p == "OWN" else p for p in OPTIONS[name]))]
    done = CliRunner().invoke(cli, ["answer", "-m", model, *given, SCAN, "Is this a ct?"])
    if options == ("--no-pdc", "--prototypes"):
        assert done.exit_code == 2 and "--no-pdc" in done.output
        return
    assert done.exit_code == 0, (done.output, done.exception)
    assert done.stdout.count("\n") == 1
    if "--json" in options:
        row = json.loads(done.stdout)
        assert (row["image"]["noise"] is not None) == ("--no-pdc" not in options)
        assert "--no-sms" not in options or row["question"]["edits"] == []
