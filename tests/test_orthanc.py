"""The script of docs/gate.md in a real Orthanc: what is stored gets its verdict as metadata."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom")
sys.path.insert(0, str(Path(__file__).parent))

from dicom_files import make, ramp, written

from imc_lite import load_image
from imc_lite.noise import apply_to_image

ORTHANC = shutil.which("Orthanc")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(ORTHANC is None, reason="Orthanc is not installed"),
]
PAGE = (Path(__file__).parent.parent / "docs" / "gate.md").read_text(encoding="utf-8")
IMAGES = sorted((Path(__file__).parent / "images").glob("*.jpg"))


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def orthanc(default_bundle, tmp_path_factory):
    """Its address."""
    folder, port = tmp_path_factory.mktemp("orthanc"), free_port()
    (folder / "gate.lua").write_text(re.search(r"```lua\n(.*?)```", PAGE, flags=re.S).group(1))
    config = json.loads(re.search(r"```json\n(.*?)```", PAGE, flags=re.S).group(1))
    config |= {"LuaScripts": [str(folder / "gate.lua")], "StorageDirectory": str(folder), "HttpPort": port}
    config |= {"DicomServerEnabled": False, "AuthenticationEnabled": False, "Plugins": []}
    (folder / "orthanc.json").write_text(json.dumps(config))
    command = folder / "imc-lite"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m imc_lite "$@"\n')
    command.chmod(0o755)
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "IMC_LITE_CACHE": str(default_bundle.parent)}
    log = (folder / "log").open("wb")
    process = subprocess.Popen([ORTHANC, str(folder / "orthanc.json")], env=env, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, (folder / "log").read_text()
            try:
                urllib.request.urlopen(f"{url}/system", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()
        log.close()


def verdict(url: str, data: bytes) -> str:
    """Store a file, and wait for what the script says of it."""
    with urllib.request.urlopen(urllib.request.Request(f"{url}/instances", data), timeout=60) as reply:
        instance = json.load(reply)["ID"]
    for _ in range(1200):
        try:
            with urllib.request.urlopen(f"{url}/instances/{instance}/metadata/ImcLite", timeout=60) as reply:
                return reply.read().decode()
        except urllib.error.HTTPError as error:
            assert error.code == 404
            time.sleep(0.1)
    raise AssertionError("no verdict within two minutes")


def stored(values: np.ndarray, number: int, **elements: object) -> bytes:
    """A file with what Orthanc files it under."""
    ids = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.0", "SOPInstanceUID": f"1.2.3.0.{number}"}
    dataset = make(np.ascontiguousarray(values), **ids, **elements)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return written(dataset)


def test_every_stored_instance_gets_a_verdict(orthanc):
    pixels = load_image(IMAGES[1])
    noisy = apply_to_image(pixels, "gaussian", 5, seed=0)
    assert verdict(orthanc, stored(pixels[..., 0], 1)).startswith("clean\tseverity 0\t")
    said = verdict(orthanc, stored(noisy[..., 0], 2))
    assert re.fullmatch(r"gaussian\tseverity 5\tprobability \d\.\d\d\tnot gradable\tfails not-gradable", said)
    assert verdict(orthanc, stored(ramp(), 3, PixelData=None)) == "unreadable"
