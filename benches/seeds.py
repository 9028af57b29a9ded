#!/usr/bin/env python3
"""Do runs of many seeds end alike? Dropout and shuffling on, a tiny network, so that hundreds of runs take minutes.

    python benches/seeds.py [--seeds 200]

Each seed trains tests/fixtures/tiny-bert on pairs with MultipleNegativesRankingLoss in sentence-transformers' trainer and
with `tallow run`, with the same settings and its own order of rows and dropouts, and measures the loss on pairs that were
not trained on. Printed are means and their standard errors: sides that train alike differ by no more than these.

Needs `cargo build --release` and a Python with sentence-transformers 6.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from datasets import Dataset, disable_progress_bars
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer import losses

ROOT = Path(__file__).resolve().parents[1]
BASE = str(ROOT / "tests/fixtures/tiny-bert")
SETTINGS = {"num_train_epochs": 3, "per_device_train_batch_size": 16, "learning_rate": 2e-3, "batch_sampler": "no_duplicates"}
DEV = 60


def pairs():
    rows = [json.loads(line) for line in open(ROOT / "tests/golden/curves_pairs.jsonl", encoding="utf-8")]
    rows = [{key: row[key] for key in ["anchor", "positive"]} for row in rows]
    random.Random(1).shuffle(rows)
    return rows[:DEV], rows[DEV:]


def measured(model, dev):
    embed = lambda key: model.eval().encode([row[key] for row in dev], convert_to_tensor=True, normalize_embeddings=True)
    return torch.nn.functional.cross_entropy(20 * embed("anchor") @ embed("positive").T, torch.arange(len(dev))).item()


def reference(train, seed, folder):
    model = SentenceTransformer(BASE, device="cpu")
    args = SentenceTransformerTrainingArguments(
        output_dir=str(folder / "trainer"), seed=seed, report_to="none", save_strategy="no", disable_tqdm=True, use_cpu=True,
        logging_steps=10_000, **SETTINGS,
    )
    loss = losses.MultipleNegativesRankingLoss(model)
    SentenceTransformerTrainer(model=model, args=args, train_dataset=Dataset.from_list(train), loss=loss).train()
    return model


def ours(tallow, seed, folder):
    recipe = folder / "recipe.toml"
    args = "\n".join(f"{key} = {json.dumps(value)}" for key, value in SETTINGS.items())
    recipe.write_text(f"""seed = {seed}
[model]
base = "{BASE}"
[train_dataset]
path = "train.jsonl"
columns = ["anchor", "positive"]
[loss]
name = "MultipleNegativesRankingLoss"
[args]
save_strategy = "no"
{args}
""")
    done = subprocess.run([tallow, "run", str(recipe), "--force", "--json"], capture_output=True, text=True, cwd=folder)
    if done.returncode != 0:
        raise SystemExit(done.stdout + done.stderr)
    return SentenceTransformer(json.loads(done.stdout)["model_dir"], device="cpu")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--tallow", default=os.environ.get("TALLOW", str(ROOT / "target/release/tallow")))
    options = parser.parse_args()
    torch.set_num_threads(1)
    disable_progress_bars()
    dev, train = pairs()
    found = {"sentence-transformers": [], "tallow": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in train))
        for seed in range(1000, 1000 + options.seeds):
            found["sentence-transformers"].append(measured(reference(train, seed, folder), dev))
            found["tallow"].append(measured(ours(str(Path(options.tallow).resolve()), seed, folder), dev))
    print(f"before training {measured(SentenceTransformer(BASE, device='cpu'), dev):.3f}")
    for side, values in found.items():
        error = statistics.stdev(values) / len(values) ** 0.5
        print(f"{side}: {statistics.mean(values):.3f} ± {error:.3f} after {len(values)} runs")


if __name__ == "__main__":
    main()
