#!/usr/bin/env python3
"""Does tallow mine the hard negatives that sentence-transformers mines, on real data, and how long does each take?

    python benches/mining.py [--rows 1500] [--large 100000]

SQuAD's pairs, MiniLM, the settings of NV-Retriever (`relative_margin = 0.05`): the share of rows that both have, and the
seconds of whole processes, loading included. Rows differ where two candidates are as good as equal, or texts so long that
products differ in the last digit. With `--large` also so many random anchors and documents of 384 values through tallow's
search alone, in bounded memory: `tallow mine` on texts of one word each and a static model of random vectors.

Needs `cargo build --release`, a Python with sentence-transformers 6, and ../shared beside the project.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "../shared/models/all-MiniLM-L6-v2"
PAIRS = ROOT / "../shared/data/pairs_squad/train.jsonl"
SETTINGS = {"relative_margin": 0.05, "num_negatives": 3}


def reference(pairs, output):
    """In a process of its own, so that importing counts."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    rows = [json.loads(line) for line in open(pairs, encoding="utf-8")]
    data = Dataset.from_dict({key: [row[key] for row in rows] for key in ["anchor", "positive"]})
    mined = mine_hard_negatives(data, SentenceTransformer(str(MODEL.resolve()), device="cpu"), **SETTINGS)
    with open(output, "w", encoding="utf-8") as file:
        for row in mined:
            file.write(json.dumps(row) + "\n")


def timed(command):
    start, before = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise SystemExit(f"{command}\n{done.stdout}{done.stderr}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, time.time() - start, cpu


def large(tallow, folder, count):
    """Random vectors, one a word: what is left is the search."""
    import numpy
    from safetensors.numpy import save_file

    base = folder / "words"
    base.mkdir()
    words = ["[UNK]", *(f"q{i}" for i in range(count)), *(f"d{i}" for i in range(count))]
    vectors = numpy.random.default_rng(7).normal(size=(len(words), 384)).astype("float32")
    save_file({"embedding.weight": vectors}, base / "model.safetensors")
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(words)}, "unk_token": "[UNK]"},
    }
    (base / "tokenizer.json").write_text(json.dumps(tokenizer))
    module = "sentence_transformers.models.StaticEmbedding"
    (base / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": module}]))
    rows = folder / "large.jsonl"
    with open(rows, "w") as file:
        for i in range(count):
            file.write(json.dumps({"anchor": f"q{i}", "positive": f"d{i}"}) + "\n")
    command = [tallow, "mine", rows, "--model", base, "--num-negatives", "5", "--output", folder / "large-out.jsonl", "--json"]
    out, wall, cpu = timed([str(part) for part in command])
    answer = json.loads(out)
    print(f"{count:,} x {count:,} of 384 values: {wall:.0f} s, {cpu:.0f} CPU s, {answer['peak_memory_bytes'] / 1e9:.2f} GB, "
          f"{answer['rows']:,} rows")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--large", type=int, default=0)
    parser.add_argument("--tallow", default=os.environ.get("TALLOW", str(ROOT / "target/release/tallow")))
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        reference(*options.worker)
        return
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.rows:
            lines = PAIRS.read_text(encoding="utf-8").splitlines()
            rows = [json.loads(line) for line in random.Random(7).sample(lines, options.rows)]
            pairs = folder / "pairs.jsonl"
            pairs.write_text("".join(json.dumps({key: row[key] for key in ["anchor", "positive"]}) + "\n" for row in rows))
            theirs, ours = folder / "theirs.jsonl", folder / "ours.jsonl"
            _, wall, cpu = timed([sys.executable, __file__, "--worker", str(pairs), str(theirs)])
            command = [options.tallow, "mine", pairs, "--model", MODEL, "--output", ours, "--json"]
            command += ["--relative-margin", SETTINGS["relative_margin"], "--num-negatives", SETTINGS["num_negatives"]]
            out, own_wall, own_cpu = timed([str(part) for part in command])
            read = lambda path: {tuple(json.loads(line).values()) for line in open(path, encoding="utf-8")}
            a, b = read(theirs), read(ours)
            print(f"{options.rows} pairs: {len(a)} rows there, {len(b)} here, {len(a & b)} the same")
            print(f"there {wall:.1f} s, {cpu:.1f} CPU s; here {own_wall:.1f} s, {own_cpu:.1f} CPU s")
        if options.large:
            large(options.tallow, folder, options.large)


if __name__ == "__main__":
    main()
