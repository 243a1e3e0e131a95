"""60 ordinary calls of OpenAI's client to another server, and the same calls through `imc-lite serve --upstream`.

    pip install openai "llama-cpp-python[server]"
    python recipes/measure_proxy.py --lm WHEEL --image tests/images/synpic28602.jpg -o recipes/results/proxy.json

The server holds the base language model, which takes no pictures: what it answers to one has to come through as well.
`--command` starts another server, such as llama.cpp's own: "llama-server -m {gguf} --port {port}". A reply has to be
the same field by field, but for its id and its times, and for the report that is added. Where a question is damaged, it
has to be the reply to the question as it is repaired. By turns, so that other load on the machine meets both alike.

With `--pictures` the server is one whose model takes pictures, such as the checkpoint of recipes/distil_vit.py in vLLM
("python -m vllm.entrypoints.openai.api_server --model CHECKPOINT --served-model-name base --port {port}"), and 60 calls
with pictures are compared. Where a picture is noisy, the reply has to be the one to the picture as it is restored.
"""

from __future__ import annotations

import argparse
import io
import json
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import history
import numpy as np
import openai
from measure_server import Server
from PIL import Image

from imc_lite import IMC, load_image
from imc_lite.images.data_uri import data_uri, file_uri
from imc_lite.noise import apply_to_image

Call = dict[str, Any]
QUESTIONS = (
    "What does a chest x-ray show?", "Is an MRI slower than a CT?", "What is a fracture?", "Where is the liver?",
    "What is contrast used for?", "Name three organs of the abdomen.", "What is a pneumothorax?",
    "How is the heart seen best?", "What does the spleen do?", "Why is a lateral view taken?",
)  # fmt: skip
# A damaged question, and what question repair makes of it.
DAMAGED = {
    "What modlity is this?": "What modality is this?",
    "Is teh heart enlargd?": "Is the heart enlarged?",
    "Whcih organ is shown?": "Which organ is shown?",
    "What body prat is shown?": "What body part is shown?",
}
TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks a word up.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
    },
}
ABOUT = ("What modality is this?", "What body part is shown?", "Which organ is shown?", "Is the heart enlarged?")
RESTORED = ("gaussian", "speckle", "impulse", "low_contrast", "pixelation")  # noises that pixels are restored under
SEVERITY = 4
# What is another in every reply, or is added.
OWN = {"id", "created", "imc", "timings", "system_fingerprint"}
STEADY = {"temperature": 0, "seed": 0, "max_tokens": 12}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def about(url: str, question: str, **more: Any) -> Call:
    """A call with a question about a picture, after the messages `before`."""
    shown = [{"type": "text", "text": question}, {"type": "image_url", "image_url": {"url": url}}]
    return {"messages": [*more.pop("before", []), user(shown)], **STEADY, **more}


def calls(picture: str) -> list[tuple[str, Call, Call]]:
    """A name for each call, the call, and what it has to be answered as."""
    plain = [{"messages": [user(q)], **STEADY} for q in QUESTIONS]
    system = {"role": "system", "content": "Answer in one short sentence."}
    before = [user("Hello."), {"role": "assistant", "content": "Hello, how can I help?"}]
    found = [("plain", call) for call in plain]
    found += [("with a system message", {**c, "messages": [system, *c["messages"]]}) for c in plain[:5]]
    found += [("with what was said before", {**c, "messages": [*before, *c["messages"]]}) for c in plain[5:]]
    found += [("streamed", {**c, "stream": True}) for c in plain[:8]]
    found += [("streamed, with what was said before", {**found[15 + i][1], "stream": True}) for i in range(2)]
    found += [("log-probabilities", {**c, "logprobs": True, "top_logprobs": 3}) for c in plain[:3]]
    found += [("stops", {**c, "stop": ["the", "."]}) for c in plain[:3]]
    found += [("penalties", {**c, "presence_penalty": 0.5, "frequency_penalty": 0.5}) for c in plain[:3]]
    found += [("a nucleus", {**c, "temperature": 0.01, "top_p": 0.1}) for c in plain[3:6]]
    found += [("JSON", {**c, "response_format": {"type": "json_object"}}) for c in plain[:2]]
    found += [("a tool", {**c, "tools": [TOOL], "tool_choice": "auto"}) for c in plain[:2]]
    found += [("parts of text", {**c, "messages": [user([{"type": "text", "text": q}])]})
              for c, q in zip(plain[:2], QUESTIONS, strict=False)]  # fmt: skip
    found += [("fields that nobody knows", {**c, "extra_body": {"mirostat_mode": 0, "x": [1]}}) for c in plain[:2]]
    found += [("a picture", about(picture, QUESTIONS[0]))]
    found += [("no number", {**plain[0], "temperature": "hot"}), ("no messages", {**plain[0], "messages": []})]
    found += [("no such role", {**plain[0], "messages": [{"role": "nobody", "content": "Hello."}]})]
    found += [("cut off", {**c, "max_tokens": 1}) for c in plain[8:]]
    same = [(name, call, call) for name, call in found]
    for asked, repaired in DAMAGED.items():
        as_it_is, mended = ({"messages": [user(text)], **STEADY} for text in (asked, repaired))
        same.append(("a damaged question", as_it_is, mended))
    return same


def calls_with_pictures(pixels: np.ndarray) -> list[tuple[str, Call, Call]]:
    """Like `calls`, each about a picture of its own, of which neither side can know anything.

    Args:
        pixels: uint8 [H, W, 3], a clean picture.
    """
    imc = IMC.from_pretrained(sms=False)
    drawn = np.random.default_rng(0)

    def another() -> np.ndarray:
        changed = pixels.copy()
        changed[:4, :4] = drawn.integers(0, 256, (4, 4, 1), np.uint8)
        return changed

    def jpeg(picture: np.ndarray) -> str:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=95)
        return file_uri(file.getvalue())

    found: list[tuple[str, Call, Call]] = []

    def clean(name: str, number: int, **more: Any) -> None:
        call = about(jpeg(another()), ABOUT[number % len(ABOUT)], **more)
        found.append((name, call, call))

    earlier = about(jpeg(another()), ABOUT[0])["messages"]
    earlier.append({"role": "assistant", "content": "x-ray"})
    for number in range(20):
        clean("a clean picture", number)
    for number in range(6):
        clean("a clean picture, streamed", number, stream=True)
        clean("a clean picture, log-probabilities", number, logprobs=True, top_logprobs=2)
    for number in range(4):
        clean("a clean picture after another", number, before=earlier)
    for number in range(4 * len(RESTORED)):
        noisy = apply_to_image(another(), RESTORED[number % len(RESTORED)], SEVERITY, seed=number)
        restored = imc.restore(noisy).pixels
        urls = [data_uri(picture) for picture in (noisy, noisy if restored is None else restored)]
        name, more = "a noisy picture", {"stream": True} if number % 4 == 3 else {}
        asked, expected = (about(url, ABOUT[number % len(ABOUT)], **more) for url in urls)
        found.append((f"{name}, streamed" if more else name, asked, expected))
    for asked, repaired in DAMAGED.items():
        url = jpeg(another())
        found.append(("a clean picture, a damaged question", about(url, asked), about(url, repaired)))
    return found


def told(client: openai.OpenAI, call: Call) -> tuple[Any, float, float]:
    """Everything that comes back but what is another every time; seconds to its beginning, and to its end."""
    began = time.perf_counter()
    try:
        reply = client.chat.completions.create(model="base", **call)
        if not call.get("stream"):
            seconds = time.perf_counter() - began
            return without(reply.to_dict()), seconds, seconds
        first, chunks = 0.0, []
        for chunk in reply:
            first = first or time.perf_counter() - began
            chunks.append(without(chunk.to_dict()))
        return chunks, first, time.perf_counter() - began
    except openai.APIStatusError as error:
        seconds = time.perf_counter() - began
        return (error.status_code, error.body), seconds, seconds


def without(reply: dict[str, Any]) -> dict[str, Any]:
    """What a reply says."""
    return {key: value for key, value in reply.items() if key not in OWN}


def started(command: str, gguf: Path, log: Path) -> tuple[subprocess.Popen, str]:
    """A server that answers, and its base URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [word.format(gguf=gguf, port=port) for word in shlex.split(command)]
    process = subprocess.Popen(words, stdout=log.open("w"), stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}/v1"
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
    for _ in range(240):
        assert process.poll() is None, f"the server ended: {log.read_text()[-2000:]}"
        try:
            client.models.list()
            return process, url
        except (openai.APIConnectionError, openai.APIStatusError):
            time.sleep(0.5)
    raise AssertionError("the server does not answer")


def compared(direct: openai.OpenAI, through: openai.OpenAI, listed: list[tuple[str, Call, Call]]) -> dict[str, Any]:
    """How many replies are the same, and what of the time is ours."""
    same: dict[str, list[bool]] = {}
    differing, waits, firsts = [], [], []
    ends: dict[str, list[float]] = {}
    for name, call, expected in listed:
        # Once before: what the server keeps of a prompt makes the second time quicker, and may round otherwise. What we
        # keep of a question is not counted on: it is new to us.
        told(direct, expected)
        theirs, their_first, their_end = told(direct, expected)
        ours, our_first, our_end = told(through, call)
        same.setdefault(name, []).append(ours == theirs)
        if ours != theirs:
            differing.append({"call": name, "directly": theirs, "through": ours})
        ends.setdefault(name, []).append(1000 * (our_end - their_end))
        (firsts if call.get("stream") else waits).append(
            (1000 * (our_first - their_first), 1000 * (our_end - their_end))
        )
    return {
        "calls": len(listed),
        "same": sum(map(sum, same.values())),
        "by_call": {name: f"{sum(hits)} of {len(hits)}" for name, hits in same.items()},
        "differing": differing,
        "added_ms_median_by_call": {name: round(statistics.median(times), 1) for name, times in ends.items()},
        "added_ms_median": round(statistics.median(end for _, end in waits), 1),
        "added_before_the_first_chunk_ms_median": round(statistics.median(first for first, _ in firsts), 1),
        "added_to_a_stream_ms_median": round(statistics.median(end for _, end in firsts), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lm", type=Path, required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument(
        "--name", default="llama_cpp.server of llama-cpp-python", help="what the report calls the server"
    )
    parser.add_argument("--command", default=f"{sys.executable} -m llama_cpp.server --model {{gguf}} --port {{port}}")
    parser.add_argument("--pictures", action="store_true", help="its model takes pictures")
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    picture = file_uri(args.image.read_bytes())
    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(args.lm) as archive:
        gguf = Path(archive.extract(next(n for n in archive.namelist() if n.endswith(".gguf")), scratch))
        upstream, url = started(args.command, gguf, Path(scratch) / "log")
        try:
            proxy = Server("--upstream", url)
            try:
                clients = [
                    openai.OpenAI(base_url=base, api_key="none", max_retries=0)
                    for base in (url, f"http://127.0.0.1:{proxy.port}/v1")
                ]
                listed = calls_with_pictures(load_image(args.image)) if args.pictures else calls(picture)
                found = compared(clients[0], clients[1], listed)
            finally:
                proxy.stop()
        finally:
            upstream.terminate()
            upstream.wait(60)
    report = json.loads(args.out.read_text()) if args.out.exists() else {}
    report["command"] = "python recipes/measure_proxy.py --lm WHEEL --image IMAGE -o recipes/results/proxy.json"
    report.setdefault("servers_with_pictures" if args.pictures else "servers", {})[args.name] = {
        "processor": history.processor(),
        **found,
    }
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
