"""Every training script that tallow renders compiles, passes `tallow check`, and trains one step in sentence-transformers.

    python tests/golden/check_scripts.py TALLOW FOLDER [NAME...]

With the name `launch`, two of them are started with two processes each, by the files for Accelerate and for torchrun.

Data are made here, models come from tests/fixtures. All scripts run in this process: importing torch takes longer than a step.
"""

import json
import logging
import os
import py_compile
import random
import runpy
import subprocess
import sys
import time
from pathlib import Path

os.environ.update(SMOKE_TEST="1", OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", CUDA_VISIBLE_DEVICES="")
TALLOW = os.path.abspath(sys.argv[1])
FOLDER = Path(sys.argv[2]).resolve()
WANTED = sys.argv[3:]
FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
BERT, RERANKER, STATIC = (str(FIXTURES / name) for name in ("tiny-bert", "tiny-cross-encoder", "tiny-static"))
WIDTH = json.loads((FIXTURES / "tiny-bert/config.json").read_text())["hidden_size"]
WORDS = "red green blue wing honey bee river stone light paper train model loss batch query passage answer".split()
draw = random.Random(3)


def text(words):
    return " ".join(draw.choice(WORDS) for _ in range(words))


def write(name, rows):
    (FOLDER / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_data():
    for split, count in (("train", 40), ("dev", 16)):
        many = range(count)
        write(f"pairs-{split}.jsonl", [{"question": text(5), "answer": text(9)} for _ in many])
        triplet = ("anchor", "positive", "negative")
        write(f"triplets-{split}.jsonl", [{name: text(6) for name in triplet} for _ in many])
        write(f"scored-{split}.jsonl", [{"sentence1": text(5), "sentence2": text(5), "score": draw.random()} for _ in many])
        write(f"same-{split}.jsonl", [{"text1": text(5), "text2": text(5), "label": i % 2} for i in many])
        queries = [text(6) for _ in many]
        write(f"labelled-{split}.jsonl", [{"query": queries[i // 4], "passage": text(8), "label": int(i % 4 == 0)} for i in many])
        lists = [{"query": text(5), "documents": [text(7) for _ in range(4)], "labels": [1.0, 0.0, 0.0, 0.5]} for _ in many]
        write(f"lists-{split}.jsonl", lists)
        margins = [{"query": text(5), "positive": text(8), "negative": text(8), "score": draw.random() * 4} for _ in many]
        write(f"margins-{split}.jsonl", margins)
        write(f"taught-{split}.jsonl", [{"text": text(6), "label": [draw.gauss(0, 1) for _ in range(WIDTH)]} for _ in many])
        write(f"parallel-{split}.jsonl", [{"english": text(6), "non_english": text(6)} for _ in many])
    beir = FOLDER / "beir"
    (beir / "qrels").mkdir(parents=True, exist_ok=True)
    write("beir/corpus.jsonl", [{"_id": f"d{i}", "title": text(1), "text": text(8)} for i in range(12)])
    write("beir/queries.jsonl", [{"_id": f"q{i}", "text": text(5)} for i in range(6)])
    (beir / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(f"q{i}\td{i}\t1\n" for i in range(6)))


ST, CE, SPARSE, LATE = "SentenceTransformer", "CrossEncoder", "SparseEncoder", "MultiVectorEncoder"
SMALL = ["args.per_device_train_batch_size=8", "model.max_seq_length=32"]
ANY = "train_dataset.0.hard_negatives.relative_margin=-9.0"

# name: type, variant, data, held-out rows, base, settings, more arguments
CASES = {
    "default": (ST, "default", "pairs", "pairs-dev.jsonl", BERT, [], []),
    "default-triplets": (ST, "default", "triplets", "triplets-dev.jsonl", BERT, [], []),
    "default-scores": (ST, "default", "scored", "scored-dev.jsonl", BERT, [], []),
    "default-same-no-held-out": (ST, "default", "same", None, BERT, [], []),
    "default-beir": (ST, "default", "pairs", "beir", BERT, [], []),
    "matryoshka": (ST, "matryoshka", "pairs", None, BERT, [f"loss.matryoshka.dims=[{WIDTH}, {WIDTH // 2}]"], []),
    "multi_dataset": (
        ST,
        "multi_dataset",
        "pairs",
        "scored-dev.jsonl",
        BERT,
        ["train_dataset.1.path=scored-train.jsonl", "evaluator.1.type=InformationRetrievalEvaluator",
         "evaluator.1.path=pairs-dev.jsonl", 'evaluator.1.columns=["question","answer"]', "evaluator.1.name=pairs"],
        [],
    ),
    "multi_dataset-loss": (
        ST,
        "multi_dataset",
        "pairs",
        "scored-dev.jsonl",
        BERT,
        ["train_dataset.1.path=scored-train.jsonl", "train_dataset.1.name=scored", "train_dataset.1.limit=20",
         "eval_dataset.0.path=scored-dev.jsonl", "eval_dataset.0.name=scored", "eval_dataset.0.limit=8",
         'eval_dataset.0.columns=["sentence1","sentence2"]', "eval_dataset.0.label=score"],
        [],
    ),
    "keep_layers": (
        ST, "default", "pairs", "pairs-dev.jsonl", BERT, ["model.keep_layers=[1]", "args.gradient_checkpointing=true"], []
    ),
    "with_lora": (ST, "with_lora", "pairs", "pairs-dev.jsonl", BERT, [], []),
    "with_lora-cached": (
        ST, "with_lora", "pairs", "pairs-dev.jsonl", BERT, ["loss.name=CachedMultipleNegativesRankingLoss"], []
    ),
    "with_dora": (ST, "with_lora", "pairs", "pairs-dev.jsonl", BERT, ["model.lora.use_dora=true"], []),
    "distillation-teacher": (ST, "distillation", "pairs", None, BERT, [], ["--teacher", BERT]),
    "distillation-labels": (ST, "distillation", "taught", "taught-dev.jsonl", BERT, [], []),
    "distillation-margins": (ST, "distillation", "margins", "triplets-dev.jsonl", BERT, [], []),
    "make_multilingual": (ST, "make_multilingual", "parallel", "parallel-dev.jsonl", BERT, [], ["--teacher", BERT]),
    "static_embedding": (
        ST,
        "static_embedding",
        "pairs",
        "pairs-dev.jsonl",
        None,
        [f"model.static_embedding.tokenizer={STATIC}/tokenizer.json", "model.static_embedding.embedding_dim=16",
         "loss.matryoshka.dims=[16, 8]"],
        [],
    ),
    "mining": (ST, "mining", "pairs", "pairs-dev.jsonl", BERT, [ANY], []),
    "cross-encoder": (CE, "default", "labelled", "labelled-dev.jsonl", RERANKER, [], []),
    "cross-encoder-mined": (CE, "default", "pairs", None, RERANKER, [ANY], ["--teacher", BERT]),
    "cross-encoder-triplets": (CE, "default", "triplets", "triplets-dev.jsonl", RERANKER, [], []),
    "cross-encoder-scores": (CE, "default", "scored", "scored-dev.jsonl", RERANKER, [], []),
    "cross-encoder-distillation": (CE, "distillation", "triplets", "labelled-dev.jsonl", RERANKER, [], ["--teacher", RERANKER]),
    "cross-encoder-margins": (CE, "distillation", "margins", "triplets-dev.jsonl", RERANKER, [], []),
    "listwise": (CE, "listwise", "lists", "labelled-dev.jsonl", RERANKER, [], []),
    "listwise-mined": (CE, "listwise", "pairs", None, RERANKER, [], ["--teacher", BERT]),
    "sparse": (SPARSE, "default", "pairs", "pairs-dev.jsonl", BERT, [], []),
    "sparse-distillation": (SPARSE, "distillation", "triplets", "pairs-dev.jsonl", BERT, [], ["--teacher", RERANKER]),
    "sparse-margins": (SPARSE, "distillation", "margins", "beir", BERT, [], []),
    "multi-vector": (LATE, "default", "pairs", "pairs-dev.jsonl", BERT, ["model.document_length=32"], []),
    "multi-vector-triplets": (LATE, "default", "triplets", "triplets-dev.jsonl", BERT, ["model.document_length=32"], []),
}


def render(name, case, target="python"):
    kind, variant, data, held_out, base, settings, more = case
    stem = name.replace("-", "_")
    file, script = (f"{stem}.py",) * 2 if target == "python" else (f"{stem}.sh", f"{stem}_train.py")
    command = [TALLOW, "render", "--model-type", kind, "--variant", variant, "--target", target, "--force"]
    command += ["--data", f"{data}-train.jsonl", "-o", file, *more]
    command += ["--eval", held_out] if held_out else []
    command += ["--base", base] if base else []
    small = SMALL if base else SMALL[:1]
    for setting in [*small, *settings]:
        command += ["--set", setting]
    subprocess.run(command, cwd=FOLDER, check=True, stdout=subprocess.DEVNULL)
    py_compile.compile(str(FOLDER / script), doraise=True)
    found = subprocess.run([TALLOW, "check", script], cwd=FOLDER, stdout=subprocess.PIPE, text=True)
    assert found.returncode == 0, found.stdout
    return script


def loads(kind, folder):
    import sentence_transformers

    model = getattr(sentence_transformers, kind)(str(folder))
    if kind == CE:
        model.predict([("a query", "a passage")])
    else:
        model.encode(["a text"])


def run(script):
    arguments, sys.argv = sys.argv, [script]
    try:
        runpy.run_path(str(FOLDER / script), run_name="__main__")
    finally:
        sys.argv = arguments


def whole_runs():
    """Two runs that are no smoke tests leave two rows, the newer one first."""
    os.environ["SMOKE_TEST"] = "0"
    for name in ("first", "second"):
        case = (ST, "default", "pairs", "pairs-dev.jsonl", BERT, ["args.max_steps=2"], [])
        run(render(name, case))
    table = Path("logs/experiments.md").read_text().splitlines()
    rows = [line for line in table if line.startswith("| 2")]
    assert [row.split(" | ")[1] for row in rows] == ["second", "first"], table
    assert len({line.count(" | ") for line in table if line.startswith("| ")}) == 1, table
    assert any(verdict in rows[0] for verdict in ("WIN", "MARGINAL", "REGRESSION")), table
    # the logs of both have their entries, with what the scripts say
    for name in ("first", "second"):
        done = subprocess.run([TALLOW, "log", "--script-log", f"logs/{name}.log", "--json"], capture_output=True, text=True)
        entry = json.loads(done.stdout)
        assert entry["metric"] and entry["score"] is not None and entry["verdict"] in ("WIN", "MARGINAL", "REGRESSION"), entry
    entries = [json.loads(line) for line in Path("logs/experiments.jsonl").read_text().splitlines()]
    assert [entry["run_name"] for entry in entries] == ["first", "second"], entries
    assert all(entry["plan"]["args.max_steps"] == 2 and entry["loss"] and entry["base"] == BERT for entry in entries), entries
    page = Path("logs/experiments.md").read_text()
    assert len([line for line in page.splitlines() if line.startswith("| 2")]) == 2, page
    print("ok      whole runs", flush=True)


def launches():
    """The smoke test and the whole run behind it, of which the first process alone speaks at the end."""
    own = {"PROCESSES": "2", "SMOKE_TEST": "0", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for target in ("accelerate", "torchrun"):
        for name in ("default", "cross-encoder"):
            kind, variant, data, held_out, base, _, more = CASES[name]
            stem = f"{name.replace('-', '_')}_{target}"
            render(stem, (kind, variant, data, held_out, base, ["args.num_train_epochs=2"], more), target)
            found = subprocess.run(
                ["bash", f"{stem}.sh"], env=os.environ | own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            assert found.returncode == 0 and found.stdout.count("VERDICT: ") == 2, found.stdout
            loads(kind, Path("models", f"{stem}_train", "final"))
            print(f"ok      {name} by {target}", flush=True)


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    os.chdir(FOLDER)
    make_data()
    begun = time.time()
    failed = []
    for name, case in CASES.items():
        if WANTED and name not in WANTED:
            continue
        started = time.time()
        try:
            script = render(name, case)
            run(script)
            stem = Path(script).stem
            log = Path("logs", f"{stem}.log").read_text()
            *_, before, last = log.strip().splitlines()
            assert "VERDICT: " in last and " | delta=" in last, last
            assert "SMOKE TEST: " in before, before
            assert case[0] != SPARSE or "corpus_active_dims=" in last, last
            assert not Path("logs/experiments.md").exists(), "a smoke test is no experiment"
            loads(case[0], Path("models", stem, "final"))
            print(f"ok      {name} ({time.time() - started:.1f} s)", flush=True)
        except BaseException as error:  # a script may end itself, too
            if isinstance(error, KeyboardInterrupt):
                raise
            if "version of PEFT" in str(error):
                print(f"skipped {name}: {error}", flush=True)
                continue
            logging.exception(name)
            failed.append(name)
            print(f"FAILED  {name}: {error}", flush=True)
    if not WANTED:
        whole_runs()
    if "launch" in WANTED:
        launches()
    print(f"{time.time() - begun:.0f} s")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
