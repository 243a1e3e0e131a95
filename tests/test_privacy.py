"""Nothing is looked up, sent, or written where it was not asked for: processes watched from outside for a minute.

The libraries that report to their makers do so from C++ threads, which no Python hook sees; strace sees all they do.
"""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest
from serving import ask, data_uri

SECONDS = 60
CONTROL = "telemetry on"
KEPT_VARIABLES = ("PATH", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH")
WAYS = ("Python API", "repair", "serve", "Hugging Face", "Ray")
SYSCALLS = "connect,sendto,sendmsg,sendmmsg,creat,open,openat,mkdir,mkdirat"
NAME = re.compile(r"[a-z][\w-]*(?:\.[a-z][\w-]*)+")
ADDRESS = re.compile(r'inet_addr\("(.*?)"|AF_INET6, "(?:::ffff:)?(.*?)"')
OWN = {"::1", *re.findall(r"-- (\S+)\n\s+/32 host LOCAL", Path("/proc/net/fib_trie").read_text())}
PYTHON_API = """
import sys, time
{first}
from imc_lite import IMC
imc = IMC.from_pretrained({model!r}, offline=True, device="cpu")
assert imc.answer({picture!r}, "What is tihs?", max_new_tokens=2)
imc.repair("Is teh heart enlargd?")
print("answered", flush=True)
time.sleep({seconds})
"""


@dataclass
class Watched:
    """A process under strace, with a home folder and a folder for temporary files of its own."""

    process: subprocess.Popen
    folder: Path

    def said(self) -> str:
        return (self.folder / "said").read_text(encoding="utf-8")

    def network(self) -> set[str]:
        """Names that were looked up, and addresses outside this machine that something was sent to.

        A datagram socket that is connected sends nothing: that is how a program learns its own address.
        """
        found = set()
        for line in self._trace():
            if " send" in line and "<UDP" in line:
                # In a lookup a byte of length stands before each part of the name.
                found |= set(NAME.findall(re.sub(r"\\\d+|\\.", ".", line.partition(">")[2].partition('"')[2])))
            elif " connect(" in line and "<TCP" in line:
                found |= {address for match in ADDRESS.findall(line) for address in match if address}
            elif " connect(" in line and "/systemd/resolve" in line:
                found.add("a name, by systemd-resolved")
        return {name for name in found if not name.startswith("127.")} - OWN

    def written(self) -> set[str]:
        """What was made or opened to be written outside the folder for temporary files."""
        found = {str(path.relative_to(self.folder / "home")) for path in (self.folder / "home").rglob("*")}
        for line in self._trace():
            if re.search(r"O_WRONLY|O_RDWR|O_CREAT|mkdir|creat\(", line) and " = -1 " not in line:
                path = re.search(r'"(/.*?)"', line)
                if path and not path[1].startswith((str(self.folder), "/dev/", "/proc/self/")):
                    found.add(path[1])
        return found

    def _trace(self) -> list[str]:
        return (self.folder / "trace").read_text(encoding="utf-8", errors="replace").splitlines()


def watch(folder: Path, *command: str, **env: str) -> Watched:
    for name in ("home", "tmp"):
        (folder / name).mkdir(parents=True)
    # Nothing else of this environment: where ONNX Runtime finds a build server's variables, it sends nothing by itself.
    own = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    own |= {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "PYTHONDONTWRITEBYTECODE": "1", **env}
    tracer = [
        "strace",
        "-f",
        "-qq",
        "--seccomp-bpf",
        "-yy",
        "-s",
        "256",
        "-e",
        f"trace={SYSCALLS}",
        "-o",
        str(folder / "trace"),
    ]
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(
            [*tracer, *command],
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            env=own,
            cwd=folder / "tmp",
            start_new_session=True,
        )
    return Watched(process, folder)


def python(folder: Path, model: str, picture: Path, first: str = "", **env: str) -> Watched:
    code = PYTHON_API.format(first=first, model=model, picture=str(picture), seconds=SECONDS)
    return watch(folder, sys.executable, "-c", code, **env)


def command_line(folder: Path, *arguments: str, **env: str) -> Watched:
    return watch(folder, sys.executable, "-m", "imc_lite", *arguments, **env)


def hub(folder: Path) -> Path:
    """A Hugging Face checkpoint in the hub's cache, as if it had been fetched."""
    from tiny_models import tiny

    home, revision = folder / "hub", "0123456789abcdef0123456789abcdef01234567"
    checkpoint = home / "hub" / "models--tiny--llava"
    (checkpoint / "refs").mkdir(parents=True)
    (checkpoint / "refs" / "main").write_text(revision)
    for part in tiny("llava"):
        part.save_pretrained(checkpoint / "snapshots" / revision)
    return home


@pytest.fixture(scope="module")
def watched(default_bundle, chest, tmp_path_factory):
    """All ways in at the same time, each for a minute; and one with ONNX Runtime's telemetry switched on."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    folder = tmp_path_factory.mktemp("watched")
    cache = {"IMC_LITE_CACHE": str(default_bundle.parent)}
    batch = folder / "batch.jsonl"
    batch.write_text(json.dumps({"id": "1", "image": str(chest), "question": "What modality is this?"}) + "\n")
    ways = {
        CONTROL: python(folder / "on", "default", chest, ORT_DISABLE_TELEMETRY="0", **cache),
        "Python API": python(folder / "python", "default", chest, **cache),
        "repair": command_line(folder / "repair", "repair", "-", "--offline", **cache),
        "serve": command_line(folder / "serve", "serve", "--port", "0", "--offline", **cache),
    }
    if importlib.util.find_spec("torch"):
        ways["Hugging Face"] = python(folder / "hf", "tiny/llava", chest, HF_HOME=str(hub(folder)), **cache)
    short = tempfile.mkdtemp(prefix="ray-")  # the paths of its sockets may have a hundred characters
    if importlib.util.find_spec("ray"):
        arguments = ["answer", "--batch", str(batch), "--ray", "--offline"]
        ways["Ray"] = command_line(folder / "ray", *arguments, RAY_TMPDIR=short, **cache)
    until = time.monotonic() + 300
    try:
        ways["repair"].process.stdin.write(b"Is teh heart enlargd?\n")
        ways["repair"].process.stdin.flush()
        while (found := re.search(r"serving on (http://\S+)", ways["serve"].said())) is None:
            assert time.monotonic() < until, ways["serve"].said()
            time.sleep(0.1)
        ask_server(found[1], chest)
        time.sleep(SECONDS)
        os.killpg(ways["serve"].process.pid, signal.SIGTERM)  # strace itself takes no notice
        for way in ways.values():
            way.process.communicate(timeout=until - time.monotonic())
        yield ways
    finally:
        for way in ways.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(way.process.pid, signal.SIGKILL)
            way.process.wait()
        shutil.rmtree(short, ignore_errors=True)


def ask_server(url: str, picture: Path) -> None:
    body = {"messages": ask(data_uri(picture.read_bytes()), "What is tihs?"), "max_tokens": 2}
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(
        urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode(), headers)
    ):
        pass


@pytest.mark.slow
def test_the_watch_sees_telemetry_that_is_on(watched):
    way = watched[CONTROL]
    assert way.process.returncode == 0 and "answered" in way.said()
    assert any("microsoft" in name for name in way.network()), "no lookup was seen"
    assert any("onnxruntime" in path for path in way.written()), "no file was seen"


@pytest.mark.slow
@pytest.mark.parametrize("name", WAYS)
def test_nothing_is_looked_up_sent_or_left_behind(name, watched):
    if name not in watched:
        pytest.skip(f"{name} needs packages that are not installed")
    way = watched[name]
    assert way.process.returncode == 0, way.said()
    assert any(word in way.said() for word in ("answered", "Is the heart enlarged?", "serving on", '"answer"'))
    # Ray asks which cloud it runs in, also with its usage reports switched off, and makes a key for its own processes.
    ray = name == "Ray"
    assert way.network() - ({"metadata.google.internal", "169.254.169.254"} if ray else set()) == set()
    left = {path for path in way.written() if not (ray and path.startswith((".ray", "/tmp/ray-", "/proc/")))}
    assert left == set()


@pytest.mark.slow
@pytest.mark.parametrize("module", ["imc_lite", "imc_lite.cli.main", "imc_lite.server.run", "imc_lite.batch.ray"])
def test_telemetry_is_off_before_anything_is_imported(module):
    code = f"import sys, {module}, os; print(os.environ['ORT_DISABLE_TELEMETRY'], 'onnxruntime' in sys.modules)"
    env = {name: value for name, value in os.environ.items() if not name.startswith("ORT_")}
    for given, expected in ({}, "1 False"), ({"ORT_DISABLE_TELEMETRY": ""}, "1 False"), (KEPT, "0 False"):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={**env, **given}, check=True
        )
        assert done.stdout.strip() == expected, "what the user chose stays"


KEPT = {"ORT_DISABLE_TELEMETRY": "0"}


def test_a_tracing_library_of_the_host_learns_nothing_of_requests():
    """FastAPI reports bad requests and faults to OpenTelemetry where that is set up, with what they held."""
    pytest.importorskip("fastapi.telemetry", reason="this FastAPI has no telemetry")
    code = """
import asyncio
from opentelemetry import trace
class Recorder(trace.TracerProvider):
    seen = 0
    def get_tracer(self, *args, **kwargs):
        Recorder.seen += 1
        return trace.NoOpTracer()
trace.set_tracer_provider(Recorder())
from imc_lite.server.app import create_app
from imc_lite.server.pool import Pool
from imc_lite.server.settings import Settings
app = create_app(Pool(lambda: None, 1, 1), Settings(), lambda line: None)
async def main():
    got, parts = [], [{"type": "http.request", "body": b'{"question": 5}', "more_body": False}]
    async def receive():
        return parts.pop() if parts else await asyncio.Event().wait()
    async def send(message):
        got.append(message)
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    await app({"type": "http", "method": "POST", "path": "/v1/repair", "headers": headers, "query_string": b"",
               "root_path": "", "scheme": "http", "http_version": "1.1", "raw_path": b"/v1/repair"}, receive, send)
    return got[0]["status"]
print(asyncio.run(main()), Recorder.seen)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "400 0\n"
