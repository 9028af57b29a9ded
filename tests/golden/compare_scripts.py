"""A recipe that tallow runs and the script rendered from the same words, run in sentence-transformers, reach the same model.

    python tests/golden/compare_scripts.py TALLOW FOLDER [SHARED [KIND...]]

Once for each type of model, from a base without dropout and with batches of all the rows, so that neither random numbers nor
the order of rows tell the two apart: both must have the same score before training, the same score after it, and models that
lie much nearer to each other than to the base. With SHARED (a folder with models/ and data/) once more as people train: real
rows, MiniLM with its dropout, small batches in random order.
"""

import contextlib
import json
import logging
import os
import re
import runpy
import subprocess
import sys
import time
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", CUDA_VISIBLE_DEVICES="", SMOKE_TEST="0")

import numpy as np
import sentence_transformers
import torch

TALLOW = os.path.abspath(sys.argv[1])
FOLDER = Path(sys.argv[2]).resolve()
SHARED = Path(sys.argv[3]).resolve() if len(sys.argv) > 3 else None
FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
ST, CE, SPARSE, LATE = "SentenceTransformer", "CrossEncoder", "SparseEncoder", "MultiVectorEncoder"
KINDS = sys.argv[4:] or (ST, CE, SPARSE, LATE)


def write(name, rows):
    (FOLDER / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def small_data():
    """Questions with the words of their answers, and labelled pairs of them."""
    words = "red green blue wing honey bee river stone light paper train model loss batch query passage answer".split()
    draw = np.random.default_rng(5)

    def pair():
        own = draw.choice(words, 4, replace=False)
        return {"question": " ".join(own[:3]) + " ?", "answer": " ".join([*own[1:], *draw.choice(words, 4)])}

    pairs = list({row["question"]: row for row in (pair() for _ in range(80))}.values())
    train, dev = pairs[:32], pairs[32:]
    write("pairs-train.jsonl", train)
    write("pairs-dev.jsonl", dev)
    for split, rows in (("train", train), ("dev", dev)):
        labelled = [{"query": row["question"], "passage": row["answer"], "label": 1} for row in rows[::2]]
        labelled += [{"query": a["question"], "passage": b["answer"], "label": 0} for a, b in zip(rows[::2], rows[1::2])]
        write(f"labelled-{split}.jsonl", labelled)
    return [row["question"] for row in dev], [row["answer"] for row in dev]


def real_data():
    lines = (SHARED / "data/pairs_squad/train.jsonl").read_text().splitlines()[:700]
    pairs = [{"question": row["anchor"], "answer": row["positive"]} for row in map(json.loads, lines)]
    # a sentence answers several questions: none of those to measure with is trained on
    train = pairs[:256]
    known = {row["answer"] for row in train}
    dev = [row for row in pairs[256:] if row["answer"] not in known][:100]
    write("pairs-train.jsonl", train)
    write("pairs-dev.jsonl", dev)
    for split, count in (("train", 256), ("dev", 150)):
        lines = (SHARED / f"data/rerank_trecqa/{split}.jsonl").read_text().splitlines()[:count]
        rows = [json.loads(line) for line in lines]
        write(f"labelled-{split}.jsonl", [{name: row[name] for name in ("query", "passage", "label")} for row in rows])
    return [row["question"] for row in dev[:50]], [row["answer"] for row in dev[:50]]


def base(kind, network, dropout):
    """A base with everything that training would add from random numbers, saved once for both."""
    torch.manual_seed(11)
    more = {"num_labels": 1} if kind == CE else {}
    model = getattr(sentence_transformers, kind)(str(network), **more)
    folder = FOLDER / f"base-{kind}"
    model.save_pretrained(str(folder))
    if not dropout:
        for file in folder.rglob("config.json"):
            text = json.loads(file.read_text())
            names = [name for name in text if name.endswith("dropout") or name.endswith("dropout_prob")]
            if names:
                file.write_text(json.dumps(text | dict.fromkeys(names, 0.0), indent=2))
    return folder


def outputs(kind, folder, queries, passages):
    model = getattr(sentence_transformers, kind)(str(folder))
    if kind == CE:
        # logits, which a sigmoid would squeeze
        return np.asarray(model.predict(list(zip(queries, passages)), activation_fn=torch.nn.Identity()), np.float64)
    texts = [*queries, *passages]
    if kind == LATE:
        found = model.encode_query(queries, convert_to_numpy=True, show_progress_bar=False)
        return np.concatenate([np.asarray(rows, np.float64) for rows in found])
    found = model.encode(texts, convert_to_tensor=True, show_progress_bar=False)
    return (found.to_dense() if found.is_sparse else found).cpu().numpy().astype(np.float64)


def run(script):
    arguments, sys.argv = sys.argv, [script]
    try:
        with open("script.log", "w") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            runpy.run_path(script, run_name="__main__")
    finally:
        sys.argv = arguments
        # the script's handlers write where nobody listens any more
        logging.basicConfig(force=True, level=logging.WARNING)
    verdict = Path("logs", f"{Path(script).stem}.log").read_text().strip().splitlines()[-1]
    score, before = (float(re.search(rf"{name}=(\S+)", verdict)[1]) for name in ("score", "baseline"))
    return before, score, Path("models", Path(script).stem, "final")


def compare(kind, folder, settings, queries, passages, most):
    """`most` are the differences that are let pass: of the scores, and of the models by how far training went."""
    data = "labelled" if kind == CE else "pairs"
    name = kind.lower()
    common = ["render", "--model-type", kind, "--data", f"{data}-train.jsonl", "--eval", f"{data}-dev.jsonl", "--force"]
    common += ["--base", str(folder)]
    for setting in settings:
        common += ["--set", setting]
    quiet = {"stdout": subprocess.DEVNULL, "check": True}
    subprocess.run([TALLOW, *common, "-o", f"{name}.toml"], **quiet)
    subprocess.run([TALLOW, *common, "--target", "python", "-o", f"{name}.py"], **quiet)
    started = time.time()
    answer = subprocess.run([TALLOW, "run", f"{name}.toml", "--force", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert answer.returncode == 0, answer.stderr
    native = json.loads(answer.stdout)
    between = time.time()
    before, score, final = run(f"{name}.py")
    spent = f"{between - started:.0f} s and {time.time() - between:.0f} s"
    mine, theirs, first = (outputs(kind, path, queries, passages) for path in (native["model_dir"], final, folder))
    moved = np.linalg.norm(theirs - first)
    apart = np.linalg.norm(mine - theirs) / moved
    print(
        f"{kind}: {native['metric']} {native['baseline']:.4f} -> {native['score']:.4f} in tallow, {before:.4f} -> {score:.4f} "
        f"in Python; models {apart:.1e} of the way apart ({spent})",
        flush=True,
    )
    assert abs(native["baseline"] - before) < 2e-4, "the scores before training differ"
    assert abs(native["score"] - score) <= most[0], "the scores after training differ"
    assert moved > 1e-2 and apart <= most[1], "the models differ"


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    os.chdir(FOLDER)
    queries, passages = small_data()
    once = ["args.num_train_epochs=24", "args.eval_steps=24", "args.save_steps=24", "args.per_device_train_batch_size=32"]
    for kind in KINDS:
        network = FIXTURES / ("tiny-cross-encoder" if kind == CE else "tiny-bert")
        more = ["model.document_length=32", "args.learning_rate=1e-3"] if kind == LATE else ["args.learning_rate=1e-3"]
        compare(kind, base(kind, network, dropout=False), [*once, *more], queries, passages, (0.02, 0.01))
    if SHARED is None:
        return
    queries, passages = real_data()
    for kind in KINDS:
        folder = base(kind, SHARED / "models/all-MiniLM-L6-v2", dropout=True)
        settings = ["args.per_device_train_batch_size=8", "args.eval_steps=32", "args.save_steps=32"]
        settings += ["model.document_length=32"] if kind == LATE else ["model.max_seq_length=32"]
        settings += ["args.learning_rate=1e-4"]
        # two paths from a good base by random steps: at right angles they would lie 1.4 of the way apart
        compare(kind, folder, settings, queries, passages, (0.05, 1.2))


if __name__ == "__main__":
    main()
