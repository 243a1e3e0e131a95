"""`imc-lite plan`: what it says a model takes is what an export writes and what opening it takes."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("onnx", reason="models are exported with onnx; it comes with imc-lite[export]")
sys.path.insert(0, str(Path(__file__).parent))

import onnx  # noqa: E402
import tiny_models  # noqa: E402
from imc_lite.export.hf import export_checkpoint  # noqa: E402

from imc_lite import ImcError  # noqa: E402
from imc_lite.bundle.manifest import read_manifest  # noqa: E402
from imc_lite.cli.main import cli  # noqa: E402
from imc_lite.models.hf.families import FAMILIES, family_of  # noqa: E402
from imc_lite.plan.estimate import GRAPHS, PRECISIONS, exported_weights, plan_bundle, plan_checkpoint  # noqa: E402
from imc_lite.plan.headers import read_checkpoint  # noqa: E402

TOLERANCE = 0.02  # of the weights; and GRAPHS for everything else: docs/models.md
OPEN = r"""
import re, sys
from imc_lite.models.open import open_mllm
model = open_mllm(sys.argv[1], device="cpu", quant="none", offline=True)
for graph in ("encoder", "projector", "embed", "decoder", "calibrate"):
    getattr(model, "sessions", {graph: None})[graph]
# Not ru_maxrss: a process that was just started has that of the one that started it.
print(int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) * 1024)
"""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def saved(family: str, folder: Path) -> Path:
    for part in tiny_models.tiny(family):
        part.save_pretrained(folder)
    return folder


def written_weights(bundle: Path) -> int:
    """Bytes of all floating and quantized constants in the graphs, external or not."""
    total = 0
    for file in bundle.glob("*.onnx"):
        if file.name == "calibrate.onnx":
            continue
        for tensor in onnx.load(str(file)).graph.initializer:
            array = onnx.numpy_helper.to_array(tensor)
            total += array.nbytes if array.dtype.kind == "f" or array.dtype == np.uint8 else 0
    return total


def peak(model: Path) -> int:
    done = subprocess.run([sys.executable, "-c", OPEN, str(model)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_split_into_its_parts(family, tmp_path):
    model, _ = tiny_models.tiny(family)
    model.save_pretrained(tmp_path)
    found = plan_checkpoint(str(tmp_path))
    parts = found.parameters
    tower = sum(p.numel() for p in model.get_submodule(FAMILIES[family].tower).parameters())
    held = {p for path in FAMILIES[family].projectors for p in model.get_submodule(path).parameters()}
    projector = sum(p.numel() for p in held)
    inside = all(path.startswith(FAMILIES[family].tower) for path in FAMILIES[family].projectors)
    assert parts["projector"] == projector and parts["vision tower"] == tower - (projector if inside else 0)
    assert sum(parts.values()) == sum(p.numel() for p in model.parameters())
    assert found.family == FAMILIES[family].name


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_what_an_export_writes(family, checkpoint, exported):
    planned = exported_weights(read_checkpoint(str(checkpoint(family))), family_of(family), "fp32")
    written = written_weights(exported(family))
    # In models this small the constants of a grid (masks, rotary tables) weigh something: 32 KiB.
    assert abs(planned - written) <= TOLERANCE * written + (32 << 10)


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_disk_and_memory_of_each_precision(precision, tmp_path, monkeypatch):
    """A language model of 25 million parameters, so that weights outweigh what is beside them."""
    for name, value in (("hidden_size", 512), ("intermediate_size", 2048), ("num_hidden_layers", 6), ("head_dim", 128)):
        monkeypatch.setitem(tiny_models.LANGUAGE, name, value)
    source = saved("llava", tmp_path / "checkpoint")
    bundle = tmp_path / "bundle"
    export_checkpoint(str(source), bundle, precision=precision, offline=True)
    found = plan_checkpoint(str(source))
    (way,) = (w for w in found.ways if w.command == f"export --precision {precision}")
    size = sum(file.stat().st_size for file in bundle.iterdir())
    planned = exported_weights(read_checkpoint(str(source)), family_of("llava"), precision)
    assert abs(planned - written_weights(bundle)) <= TOLERANCE * planned + (32 << 10)
    assert size <= way.disk * (1 + TOLERANCE) and way.disk - size <= TOLERANCE * planned + GRAPHS
    ours = plan_bundle(str(bundle))
    assert ours.ways[0].disk + (bundle / "manifest.json").stat().st_size == size
    measured = peak(bundle)
    assert measured <= way.memory and measured <= ours.ways[0].memory
    if precision == "fp32":
        (loaded,) = (w for w in found.ways if w.command == "--device cpu --quant none")
        assert loaded.disk == pytest.approx((source / "model.safetensors").stat().st_size, rel=0.01)
        assert peak(source) <= loaded.memory


def test_the_default_model_built_and_not_yet(default_bundle, tmp_path, monkeypatch):
    built = plan_bundle("default")
    assert built.ways[0].disk == sum(f["size"] for f in read_manifest(default_bundle)["files"].values())
    done = subprocess.run(
        [sys.executable, "-c", OPEN.replace(', "embed"', ""), "default"], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) <= built.ways[0].memory
    monkeypatch.setenv("IMC_LITE_CACHE", str(tmp_path / "none"))
    fresh = plan_bundle("default")
    assert fresh.ways[0].disk == pytest.approx(built.ways[0].disk, rel=TOLERANCE)
    assert fresh.parameters["vision tower"] == pytest.approx(built.parameters["vision tower"], rel=TOLERANCE)
    assert not (tmp_path / "none").exists()


def test_the_command(llava_checkpoint, documented_fields):
    done = CliRunner().invoke(cli, ["plan", str(llava_checkpoint)])
    assert done.exit_code == 0 and done.stderr == ""
    assert done.stdout.count("\n") == 3 + 8 and "export --precision int4" in done.stdout
    row = json.loads(CliRunner().invoke(cli, ["plan", str(llava_checkpoint), "--json"]).stdout)
    fields = {"kind", "family", *(f"ways[].{key}" for way in row["ways"] for key in way)}
    fields |= {f"{key}.{part}" for key in ("parameters", "free") for part in row[key]}
    assert fields == documented_fields["plan"]
    free = row["free"]
    for way in row["ways"]:
        assert way["fits"] is (way["disk"] <= free["disk"] and way["memory"] <= free["memory"])


def test_what_cannot_be_planned_is_one_line(tmp_path, llava_checkpoint):
    def refused(config: dict | None, weights: bytes | None, why: str) -> None:
        folder = tmp_path / why.split()[0]
        folder.mkdir()
        for name, data in (("config.json", config and json.dumps(config).encode()), ("model.safetensors", weights)):
            if data is not None:
                (folder / name).write_bytes(data)
        with pytest.raises(ImcError, match=why):
            plan_checkpoint(str(folder))

    whole = (llava_checkpoint / "model.safetensors").read_bytes()
    config = json.loads((llava_checkpoint / "config.json").read_text())
    refused(config, None, "only safetensors are read")
    refused(config, whole[:5000], "no safetensors; fetch")
    refused(config, (1 << 62).to_bytes(8, "little") + whole[8:], "is missing or no safetensors")
    refused(None, whole, "config.json is missing")
    refused({"model_type": "bert"}, whole, "'bert' are not supported")
    assert plan_checkpoint(str(llava_checkpoint))
    for name in ("a--b/c", "org/name.git"):
        with pytest.raises(ImcError, match="is no name on the hub"):
            plan_checkpoint(name, offline=True)
    refused(config | {"quantization_config": {"quant_method": "awq"}}, whole, "quantized already")
    outside = {"weight_map": {"a": "../../model.safetensors"}}
    folder = tmp_path / "index"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors.index.json").write_text(json.dumps(outside))
    with pytest.raises(ImcError, match="names no files of its folder"):
        plan_checkpoint(str(folder))
    with pytest.raises(ImcError, match="not a bundle"):
        plan_bundle(str(tmp_path))


# The hub


class Hub(BaseHTTPRequestHandler):
    """Serves a folder as the hub serves a repository; counts the bytes of weights that leave it."""

    folder: Path
    sent = 0

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        name = self.path.partition("?")[0].rpartition("/")[2]
        file = type(self).folder / name
        if "/resolve/" not in self.path or not file.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data, status = file.read_bytes(), 200
        whole = len(data)
        if asked := self.headers.get("Range"):
            first, last = asked.removeprefix("bytes=").split("-")
            data, status = data[int(first) : int(last or whole) + 1], 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Range", f"bytes 0-{len(data) - 1}/{whole}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{name}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if body:
            self.wfile.write(data)
            type(self).sent += len(data) if name.endswith(".safetensors") else 0

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(llava_checkpoint):
    class Of(Hub):
        folder, sent = llava_checkpoint, 0

    server = ThreadingHTTPServer(("127.0.0.1", 0), Of)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", Of
    server.shutdown()
    server.server_close()


def test_of_a_model_on_the_hub_only_headers_are_asked_for(hub, llava_checkpoint, tmp_path):
    address, served = hub
    variables = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    variables |= {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf")}

    def ask(*options: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "imc_lite", "plan", "somebody/llava", "--json", *options]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=variables)

    offline = ask("--offline")
    assert offline.returncode == 2 and "not in the hub's cache" in offline.stderr and served.sent == 0
    done = ask()
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("imc-lite: asking the hub") and done.stderr.count("\n") == 1
    assert 0 < served.sent <= 101_000 < (llava_checkpoint / "model.safetensors").stat().st_size
    here = plan_checkpoint(str(llava_checkpoint))
    assert json.loads(done.stdout)["parameters"] == here.parameters
    assert not [p for p in (tmp_path / "hf").rglob("*") if p.suffix == ".safetensors"]
    served.folder = tmp_path  # nothing there
    command = [sys.executable, "-m", "imc_lite", "plan", "somebody/other"]
    gone = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    assert gone.returncode == 2 and "says nothing of somebody/other" in gone.stderr.splitlines()[-1]
