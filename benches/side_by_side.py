#!/usr/bin/env python3
"""The same training in sentence-transformers and in tallow, in turn, on this machine.

    python benches/side_by_side.py [--workloads short,mixed,triplets,static,static-matryoshka,encode] [--repeats 3]
    python benches/side_by_side.py --workloads cross-encoder,splade,colbert

Both get the same rows in the same order, model, batch size, maximum length, loss, optimizer and number of steps, and
no dropout, so that their losses can be compared: speed must not come from doing something else. Each repeat runs all
contestants (the reference in fp32 and bf16, tallow in f32 and bf16) one after the other in processes of their own; the
table has medians over repeats. Rows per second leave out the first steps, peak memory and the time to the first step
are of whole processes. Rerankers, sparse encoders and multi-vector encoders have layers that the model lacks: the reference
makes them once, and both sides start from that. The ratio is tallow's better figure to the reference's better one.

Needs `cargo build --release`, and a Python with sentence-transformers 6 (`pip install "sentence-transformers>=6.2,<7"
datasets accelerate`). The model and the sentences come from ../shared beside the project; without it a tiny model and
generated words are used, and the figures mean little.
"""

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "../shared/models/all-MiniLM-L6-v2"
SENTENCES = ROOT / "../shared/data/sentences/sentences.txt"
WARM = 2
# seconds after which a run of the reference is cut short; its rate is that of the steps it made
LONGEST = 60
# a contestant this much slower than the best of its side is not run again
HOPELESS = 4

CONTESTANTS = [("st", "fp32"), ("st", "bf16"), ("tallow", "f32"), ("tallow", "bf16")]

# steps are counted without the WARM ones
WORKLOADS = {
    "short": dict(kind="dense", loss="MultipleNegativesRankingLoss", batch=32, steps=8, columns=2, lengths=(15, 15)),
    "mixed": dict(kind="dense", loss="MultipleNegativesRankingLoss", batch=32, steps=5, columns=2, lengths=(15, 84)),
    "triplets": dict(kind="dense", loss="MultipleNegativesRankingLoss", batch=32, steps=5, columns=3, lengths=(15, 40, 40)),
    "static": dict(kind="static", loss="MultipleNegativesRankingLoss", batch=1024, steps=20, columns=2, lengths=(12, 30)),
    "static-2048": dict(kind="static", loss="MultipleNegativesRankingLoss", batch=2048, steps=10, columns=2, lengths=(12, 30)),
    "static-matryoshka": dict(
        kind="static", loss="MultipleNegativesRankingLoss", batch=1024, steps=10, columns=2, lengths=(12, 30),
        dims=[1024, 512, 256, 128, 64, 32],
    ),
    "cross-encoder": dict(
        kind="dense", type="CrossEncoder", loss="BinaryCrossEntropyLoss", batch=16, steps=6, columns=2, lengths=(15, 84),
        label=True,
    ),
    "splade": dict(
        kind="dense", type="SparseEncoder", loss="SparseMultipleNegativesRankingLoss", batch=16, steps=4, columns=2,
        lengths=(15, 84), splade={"document_regularizer_weight": 3e-3, "query_regularizer_weight": 5e-3},
    ),
    "colbert": dict(
        kind="dense", type="MultiVectorEncoder", loss="MultiVectorMultipleNegativesRankingLoss", batch=32, steps=5,
        columns=2, lengths=(15, 84),
    ),
    "encode": dict(kind="encode", batch=32, steps=1, columns=1, lengths=(84,), rows=1000),
}


def words():
    if SENTENCES.exists():
        return [w for line in SENTENCES.read_text(encoding="utf-8").splitlines()[:4000] for w in line.split()]
    rng = random.Random(0)
    return ["".join(rng.choice("aeioubdgklmnprst") for _ in range(rng.randint(2, 8))) for _ in range(5000)]


def make_rows(work, folder, even=False):
    """Texts of about the wanted mean numbers of tokens: above 20 they are log-normal, as passages are, or all alike."""
    rng = random.Random(7)
    pool = words()
    count = work.get("rows") or work["batch"] * (work["steps"] + WARM)
    names = ["anchor", "positive", "negative"][: work["columns"]]
    lines = []
    for _ in range(count):
        row = {}
        for name, mean in zip(names, work["lengths"]):
            # a word is about 1.3 tokens
            target = mean / 1.3
            if even:
                n = target
            elif mean <= 20:
                n = target * (0.6 + 0.8 * rng.random())
            else:
                n = rng.lognormvariate(math.log(target) - 0.18, 0.6)
            start = rng.randrange(len(pool) - 400)
            row[name] = " ".join(pool[start : start + max(2, min(int(n), 380))])
        if work.get("label"):
            row["label"] = rng.randrange(2)
        lines.append(json.dumps(row))
    path = Path(folder) / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path, names, count


def model_dir():
    return MODEL if MODEL.exists() else ROOT / "tests/fixtures/tiny-bert"


def start(work, folder):
    """Where the model to start from is made, of a type that needs more than the base has."""
    return Path(folder) / "start" if work.get("type") else model_dir()


def make_start(kind, folder):
    import sentence_transformers
    import torch

    torch.manual_seed(7)
    base = model_dir()
    if kind == "SparseEncoder":
        # of a bi-encoder's folder the reference would make a sparse autoencoder: a network with a head is no such
        from transformers import AutoModelForMaskedLM, AutoTokenizer

        base = Path(folder).parent / "masked-lm"
        AutoModelForMaskedLM.from_pretrained(model_dir()).save_pretrained(base)
        AutoTokenizer.from_pretrained(model_dir()).save_pretrained(base)
    more = {"num_labels": 1} if kind == "CrossEncoder" else {}
    model = getattr(sentence_transformers, kind)(str(base), device="cpu", **more)
    model.save_pretrained(folder, create_model_card=False)


def peak_memory():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def reference(work, rows, precision, begun):
    """One run of sentence-transformers; prints its figures as JSON."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    import importlib

    import sentence_transformers
    import torch
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.sampler import DefaultBatchSampler
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from torch.utils.data import SequentialSampler
    from tokenizers import Tokenizer
    from transformers import TrainerCallback

    kind = work.get("type", "SentenceTransformer")
    package = "".join(f"_{c.lower()}" if c.isupper() else c for c in kind)[1:]
    losses = importlib.import_module(f"sentence_transformers.{package}.losses")
    data = [json.loads(line) for line in Path(rows).read_text(encoding="utf-8").splitlines()]
    torch.manual_seed(0)
    if work["kind"] == "static":
        tokenizer = Tokenizer.from_file(str(model_dir() / "tokenizer.json"))
        model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=1024)], device="cpu")
    else:
        model = getattr(sentence_transformers, kind)(str(start(work, Path(rows).parent)), device="cpu")
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    if work["kind"] == "encode":
        texts = [row["anchor"] for row in data]
        model.encode(texts[:32])  # the model is loaded and warm, as it is on the other side
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            def timed(texts):
                start = time.perf_counter()
                model.encode(texts, batch_size=32)
                return len(texts) / (time.perf_counter() - start)

            rate = timed(texts[:32])
            if len(texts) < rate * LONGEST:
                rate = timed(texts)
        print(json.dumps({"rate": rate, "memory": peak_memory(), "losses": []}))
        return
    loss = getattr(losses, work["loss"])(model)
    if work.get("dims"):
        loss = losses.MatryoshkaLoss(model, loss, matryoshka_dims=work["dims"])
    if work.get("splade"):
        loss = losses.SpladeLoss(model, loss, **work["splade"])
    seen, stamps = [], []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            stamps.append(time.time())
            # bf16 without instructions for it takes minutes a step: enough is known then
            if len(stamps) > 1 and stamps[-1] - begun > LONGEST:
                control.should_training_stop = True
            return control

    inner = loss.forward

    def forward(*args, **kwargs):
        value = inner(*args, **kwargs)
        seen.append(float(sum(value.values()) if isinstance(value, dict) else value))
        return value

    loss.forward = forward
    args = getattr(sentence_transformers, f"{kind}TrainingArguments")(
        output_dir=tempfile.mkdtemp(), max_steps=work["steps"] + WARM, per_device_train_batch_size=work["batch"],
        learning_rate=2e-5, report_to="none", save_strategy="no", disable_tqdm=True, use_cpu=True,
        logging_steps=10_000, bf16=precision == "bf16",
        batch_sampler=lambda dataset, batch_size, drop_last, **kw: DefaultBatchSampler(
            SequentialSampler(dataset), batch_size=batch_size, drop_last=drop_last
        ),
    )
    trainer = getattr(sentence_transformers, f"{kind}Trainer")(
        model=model, args=args, train_dataset=Dataset.from_list(data), loss=loss, callbacks=[Watch()]
    )
    trainer.train()
    warm = min(WARM, len(stamps) - 1)
    seconds = stamps[-1] - stamps[warm - 1]
    print(json.dumps({
        "rate": work["batch"] * (len(stamps) - warm) / seconds, "memory": peak_memory(), "losses": seen,
        "first": stamps[0] - begun,
    }))


def ours(tallow, work, rows, names, precision, folder):
    """One run of tallow."""
    if work["kind"] == "encode":
        command = [tallow, "encode", str(model_dir()), "--input", str(rows), "--column", "anchor"]
        command += ["--output", f"{folder}/out.npy", "--json"] + (["--bf16"] if precision == "bf16" else [])
        answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return {"rate": answer["rows"] / answer["seconds"], "memory": answer["peak_memory_bytes"], "losses": []}
    answer, lines = train(
        tallow, rows, names, folder, loss=work["loss"], steps=work["steps"] + WARM, batch=work["batch"],
        precision=precision, static_dim=1024 if work["kind"] == "static" else None, dims=work.get("dims"),
        base=start(work, folder), kind=work.get("type", "SentenceTransformer"), splade=work.get("splade"),
        label=work.get("label"),
    )
    seconds = lines[-1]["seconds"] - lines[WARM - 1]["seconds"]
    return {
        "rate": work["batch"] * work["steps"] / seconds, "memory": answer["peak_memory_bytes"],
        "losses": [line["loss"] for line in lines], "first": answer["seconds_to_first_step"],
    }


def train(
    tallow, rows, names, folder, *, loss, steps, batch, precision="f32", static_dim=None, dims=None, base=None,
    kind="SentenceTransformer", splade=None, label=False,
):
    """A run of tallow: what its outcome says of the training, and its logged steps."""
    model = f'base = "{base or model_dir()}"\ndropout = 0.0\n'
    if static_dim:
        model = f'[model.static_embedding]\nembedding_dim = {static_dim}\ntokenizer = "{model_dir()}/tokenizer.json"\n'
    around = f"[loss.matryoshka]\ndims = {dims}\n" if dims else ""
    if splade:
        around += "[loss.splade]\n" + "".join(f"{key} = {value}\n" for key, value in splade.items())
    recipe = Path(folder) / "bench.toml"
    recipe.write_text(f"""
model_type = "{kind}"
[model]
{model}
[train_dataset]
path = "{rows}"
columns = {json.dumps(names)}
{'label = "label"' if label else ""}
[loss]
name = "{loss}"
{around}
[args]
max_steps = {steps}
per_device_train_batch_size = {batch}
learning_rate = 2e-5
shuffle = false
logging_steps = 1
save_strategy = "no"
bf16 = {"true" if precision == "bf16" else "false"}
""")
    run = subprocess.run(
        [tallow, "run", str(recipe), "--force", "--set", f'output_dir="{folder}/runs"', "--json"], cwd=folder,
        capture_output=True, text=True,
    )
    if run.returncode != 0:
        raise SystemExit(run.stdout + run.stderr)
    run_dir = Path(json.loads(run.stdout)["run_dir"])
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    training = json.loads((run_dir / "outcome.json").read_text())["training"]
    return training, [line for line in lines if "loss" in line]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workloads", default="short,mixed,triplets,static,static-2048,static-matryoshka,encode")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--reference", default="fp32,bf16", type=lambda text: text.split(","),
        help="its precisions; bf16 takes minutes a step where the machine has no instructions for it",
    )
    parser.add_argument("--tallow", default=str(ROOT / "target/release/tallow"))
    parser.add_argument("--worker", nargs=3, metavar=("WORKLOAD", "ROWS", "PRECISION"), help=argparse.SUPPRESS)
    parser.add_argument("--make", nargs=2, metavar=("TYPE", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--begun", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make_start(*options.make)
        return
    if options.worker:
        name, rows, precision = options.worker
        reference(WORKLOADS[name], rows, precision, options.begun)
        return
    print(f"model {model_dir().name}; medians of {options.repeats}; rows a second")
    print("| work | st fp32 | st bf16 | tallow f32 | tallow bf16 | ratio | memory st | tallow | ratio | first step st | tallow "
          "| f32 losses differ by | bf16 by |")
    print("|---" * 13 + "|")
    for name in options.workloads.split(","):
        work = WORKLOADS[name]
        results = {of: [] for of in CONTESTANTS if of[0] == "tallow" or of[1] in options.reference}
        with tempfile.TemporaryDirectory() as folder:
            rows, names, _ = make_rows(work, folder)
            if work.get("type"):
                made = [sys.executable, __file__, "--make", work["type"], str(start(work, folder))]
                subprocess.run(made, check=True, capture_output=True)
            for _ in range(options.repeats):
                for who, precision in results:
                    best = max((r["rate"] for of, runs in results.items() if of[0] == who for r in runs), default=0.0)
                    if results[who, precision] and results[who, precision][0]["rate"] * HOPELESS < best:
                        continue
                    if who == "tallow":
                        result = ours(options.tallow, work, rows, names, precision, folder)
                    else:
                        out = subprocess.run(
                            [sys.executable, __file__, "--worker", name, str(rows), precision, "--begun", str(time.time())],
                            capture_output=True, text=True,
                        )
                        if out.returncode != 0:
                            raise SystemExit(out.stderr)
                        result = json.loads(out.stdout.splitlines()[-1])
                    results[who, precision].append(result)
        median = lambda of, key: statistics.median(r.get(key) or 0.0 for r in of)
        rate = {of: median(runs, "rate") for of, runs in results.items()}
        better = {who: max((rate[of], of) for of in results if of[0] == who)[1] for who in ("st", "tallow")}
        least = lambda who, key: min(median(runs, key) for of, runs in results.items() if of[0] == who)
        ratio = rate[better["tallow"]] / rate[better["st"]]

        def differs(precision):
            # static tables are drawn at random on each side, so their losses have nothing to agree on
            if work["kind"] != "dense":
                return "-"
            pairs = zip(results["st", "fp32"][0]["losses"], results["tallow", precision][0]["losses"])
            return f"{max(abs(a - b) for a, b in pairs):.1e}"

        memory = {who: median(results[better[who]], "memory") for who in better}
        share = f"{memory['tallow'] / memory['st']:.2f}" if memory["st"] else "-"
        gb = lambda who: f"{memory[who] / 1e9:.2f} GB" if memory[who] else "-"
        first = lambda who: f"{least(who, 'first'):.1f} s" if least(who, "first") else "-"
        print(
            f"| {name} | " + " | ".join(f"{rate[of]:.1f}" if of in rate else "-" for of in CONTESTANTS) + f" | {ratio:.1f}x "
            f"| {gb('st')} | {gb('tallow')} | {share} | {first('st')} | {first('tallow')} "
            f"| {differs('f32')} | {differs('bf16')} |", flush=True,
        )


if __name__ == "__main__":
    main()
