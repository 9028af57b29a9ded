"""Drives `tallow mcp` with the official Python client, over stdio and HTTP: from a task in words to a verdict and an
entry in the log of experiments, on real data where they are there, and mistakes.

Usage: python tests/python/mcp_client.py [path of the tallow program]
Needs the package `mcp`; says so and ends with 0 when it is not there.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path

try:
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    try:
        from mcp.client.streamable_http import streamable_http_client
    except ImportError:
        from mcp.client.streamable_http import streamablehttp_client as streamable_http_client
except ImportError:
    print("skipped: the Python package `mcp` is not installed")
    sys.exit(0)

ROOT = Path(__file__).resolve().parents[2]
RECIPE = """
run_name = "mcp"
[model]
base = "tiny-bert"
[[train_dataset]]
path = "train.jsonl"
columns = ["sentence1", "sentence2"]
label = "score"
[loss]
name = "CoSENTLoss"
[[evaluator]]
type = "EmbeddingSimilarityEvaluator"
name = "dev"
path = "dev.jsonl"
[args]
max_steps = 5
per_device_train_batch_size = 4
"""


def prepare(folder: Path) -> None:
    rows = (ROOT / "tests/golden/curves_scored.jsonl").read_text().splitlines()
    real = ROOT / "../shared/data/stsb"
    if real.is_dir():
        rows = (real / "train.jsonl").read_text().splitlines()[:400]
    else:
        print("skipped: real data, which are not on this machine")
    (folder / "train.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "dev.jsonl").write_text("\n".join(rows[:20]) + "\n")
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "typo.toml").write_text("[args]\nlearning_rat = 1e-5\n")
    # inside the workspace, out of which a server over HTTP opens nothing
    shutil.copytree(ROOT / "tests/fixtures/tiny-bert", folder / "tiny-bert")


def first(result, *names):
    """A field by its name in this or an earlier version of the package."""
    for name in names:
        if hasattr(result, name):
            return getattr(result, name)
    raise AttributeError(names)


async def call(session, name, arguments):
    """Calls a tool; a slow one again until it is done. Returns (is_error, structured content or text)."""
    deadline = time.monotonic() + 300
    while True:
        began = time.monotonic()
        result = await session.call_tool(name, arguments)
        assert time.monotonic() - began < 25, f"{name} took longer than 25 s"
        text = "".join(getattr(part, "text", "") for part in result.content)
        if first(result, "is_error", "isError"):
            return True, text
        answer = first(result, "structured_content", "structuredContent")
        if answer.get("state") == "running" and "run_id" not in answer:
            assert time.monotonic() < deadline, f"{name} did not end"
            continue
        return False, answer.get("result", answer)


@asynccontextmanager
async def over_stdio(program: str, folder: Path):
    server = StdioServerParameters(command=program, args=["mcp"], cwd=str(folder), env=dict(os.environ))
    async with stdio_client(server) as (read, write), ClientSession(read, write) as session:
        yield session


@asynccontextmanager
async def over_http(program: str, folder: Path):
    command = [program, "mcp", "--http", "127.0.0.1:0"]
    server = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        url = server.stderr.readline().split(" at ")[1].split(";")[0]
        async with streamable_http_client(url) as streams, ClientSession(streams[0], streams[1]) as session:
            yield session
    finally:
        server.kill()
        server.wait()


async def main(program: str) -> None:
    for transport in (over_stdio, over_http):
        print("--", transport.__name__)
        await walk(program, transport)
    print("ok")


async def walk(program: str, transport) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        async with transport(program, folder) as session:
            await session.initialize()
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}
            assert set(tools) == {
                "choose_model_type", "inspect_dataset", "recommend_loss", "render_template", "check", "smoke_test", "run",
                "run_status", "cancel_run", "log_experiment", "mine_hard_negatives", "evaluate",
            }, tools
            print("tools:", ", ".join(tools))

            failed, chosen = await call(session, "choose_model_type", {"task": "Sentence embeddings for similarity search"})
            assert not failed and chosen["model_type"] == "SentenceTransformer", chosen
            failed, seen = await call(session, "inspect_dataset", {"data": "dev.jsonl", "model_type": chosen["model_type"]})
            assert not failed and seen["rows"] == len((folder / "dev.jsonl").read_text().splitlines()), seen
            given = {"model_type": chosen["model_type"], "data": "dev.jsonl", "base": "tiny-bert"}
            failed, advice = await call(session, "recommend_loss", given)
            assert not failed and advice["losses"][0]["name"] == "CoSENTLoss", advice
            settings = advice["settings"]
            held_out = {**given, "eval": "held-out.jsonl", "settings": settings, "output": "rendered.toml"}
            (folder / "held-out.jsonl").write_text(
                "".join(json.dumps({"sentence1": f"{n} x", "sentence2": "y z", "score": n / 9}) + "\n" for n in range(9))
            )
            failed, written = await call(session, "render_template", held_out)
            assert not failed and written["losses"] == ["CoSENTLoss"], written
            failed, checked = await call(session, "check", {"file": "rendered.toml"})
            assert not failed and checked["ok"], checked
            failed, report = await call(session, "smoke_test", {"recipe": "rendered.toml"})
            assert not failed and report["ok"], report
            print("choose_model_type, inspect_dataset, recommend_loss, render_template, check:", advice["losses"][0]["name"])

            failed, report = await call(session, "smoke_test", {"recipe": "recipe.toml"})
            assert not failed and report["ok"], report
            print("smoke_test:", report["report"]["losses"], report["report"]["total_steps"], "steps")

            failed, run = await call(session, "run", {"recipe": "recipe.toml"})
            assert not failed and run["started"] and run["state"] in ("queued", "running"), run
            while True:
                failed, status = await call(session, "run_status", {"run": run["run_id"], "wait_s": 20})
                assert not failed, status
                if status["state"] not in ("running", "queued"):
                    break
            assert status["state"] == "done" and status["verdict"], status
            print("run:", status["message"])

            arguments = {
                "model": status["model_dir"],
                "evaluator": "EmbeddingSimilarityEvaluator",
                "path": "dev.jsonl",
                "name": "dev",
            }
            failed, evaluation = await call(session, "evaluate", arguments)
            assert not failed, evaluation
            assert abs(evaluation["primary_value"] - status["score"]) < 1e-6, (evaluation, status)
            print("evaluate:", evaluation["primary_metric"], evaluation["primary_value"])

            failed, logged = await call(session, "log_experiment", {"run": run["run_id"], "learned": "five steps are few"})
            assert not failed, logged
            for uri, wanted in [
                ("experiments://log", "five steps are few"),
                (f"run://{run['run_id']}/log", "VERDICT"),
                (f"run://{run['run_id']}/report", "<html"),
                (f"run://{run['run_id']}/card", "sentence-transformers"),
            ]:
                read = await session.read_resource(uri)
                assert wanted in read.contents[0].text, (uri, read.contents[0].text[:500])
            prompts = {prompt.name for prompt in (await session.list_prompts()).prompts}
            assert {"train_a_retriever", "improve_last_run"} <= prompts, prompts
            print("log_experiment, resources, prompts: ok")

            mining = {
                "data": "dev.jsonl", "anchor_column_name": "sentence1", "positive_column_name": "sentence2",
                "model": status["model_dir"], "num_negatives": 1, "output": "mined.jsonl",
            }
            failed, mined = await call(session, "mine_hard_negatives", mining)
            assert not failed and mined["columns"] == ["sentence1", "sentence2", "negative"], mined
            assert len((folder / "mined.jsonl").read_text().splitlines()) == mined["rows"] > 0, mined
            print("mine_hard_negatives:", mined["rows"], "rows")

            failed, answer = await call(session, "cancel_run", {"run": run["run_id"]})
            assert not failed and "already ended" in answer["message"], answer

            for tool, arguments, wanted in [
                ("run", {"recipe": "typo.toml"}, "learning_rate"),
                ("smoke_test", {"recipe": "missing.toml"}, "missing.toml"),
                ("evaluate", {**arguments, "evaluator": "TripletEvaluater"}, "TripletEvaluator"),
                ("mine_hard_negatives", {**mining, "num_negatives": 0}, "num_negatives"),
                ("mine_hard_negatives", {**mining, "num_negative": 1}, "num_negative"),
                ("run_status", {"run": "no-such-run"}, "no-such-run"),
            ]:
                failed, text = await call(session, tool, arguments)
                assert failed and wanted in str(text), (tool, text)
            print("mistakes come back as tool errors with a hint")


if __name__ == "__main__":
    given = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "target/release/tallow"
    asyncio.run(main(str(given.resolve())))
