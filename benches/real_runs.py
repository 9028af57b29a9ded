#!/usr/bin/env python3
"""Does a model trained by tallow become as good as one trained by sentence-transformers, on real data?

    python benches/real_runs.py [--case NAME,NAME] [--side reference|tallow|both] [--seeds 12,13] [--device cuda] [--folder DIR]

Each case trains the same base model on the same rows with the same settings in sentence-transformers' trainer and with
`tallow run`, dropout and shuffling on as both have them by default, and measures both models and the base model with
the same evaluators on data that was not trained on. Runs differ by the order of rows and by dropout, so the claim is
not equality (tests/it/curves.rs has that) but a score within the noise of seeds, or better. Every run's result is kept
in the folder as JSON and not made again, so that sides, cases and seeds can be run one after the other; the table has
what is there. Times are of whole processes, beside whatever else the machine does: CPU seconds are those to compare.

Rerankers, sparse encoders and multi-vector encoders have layers that the base model lacks: the reference makes them
once, and both sides start from that model.

`--judge` says whose evaluators measure: tallow's (faster), or the reference's, to have the same from the other side.

Needs `cargo build --release`, a Python with sentence-transformers 6 (`pip install "sentence-transformers>=6.2,<7"
datasets accelerate peft`), and the data and the model in ../shared beside the project.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED = (ROOT / "../shared").resolve()
DATA = SHARED / "data"
MODEL = SHARED / "models/all-MiniLM-L6-v2"

RETRIEVAL = "InformationRetrievalEvaluator"
SEARCH = [
    ("Cranfield nDCG@10", RETRIEVAL, DATA / "cranfield", "cosine_ndcg@10", {}),
    ("XQuAD-en nDCG@10", RETRIEVAL, DATA / "xquad/en", "cosine_ndcg@10", {}),
]
SENTENCES = [
    ("SNLI triplets accuracy", "TripletEvaluator", DATA / "nli_snli_triplets/test.jsonl", "cosine_accuracy", {}),
    ("STS-B dev Spearman", "EmbeddingSimilarityEvaluator", DATA / "stsb/dev.jsonl", "spearman_cosine", {}),
]
RERANKING = "CrossEncoderRerankingEvaluator"
SHORT = [(f"{label}, 64 values", kind, path, key, {"truncate_dim": 64}) for label, kind, path, key, _ in SEARCH]
MNRL = "MultipleNegativesRankingLoss"

# `rows` names a function below; `loss` is the recipe's table. Relative paths of measures are in the folder.
CASES = {
    "squad-mnrl": dict(rows="squad", loss={"name": MNRL}, batch=32, rate=5e-5, sampler="no_duplicates", measures=SEARCH),
    "squad-cached-mnrl": dict(
        rows="squad", loss={"name": "CachedMultipleNegativesRankingLoss", "mini_batch_size": 32}, batch=256, rate=2e-4,
        sampler="no_duplicates", measures=SEARCH,
    ),
    "squad-matryoshka": dict(
        rows="squad", loss={"name": MNRL}, dims=[384, 256, 128, 64], batch=32, rate=5e-5, sampler="no_duplicates",
        measures=SEARCH + SHORT,
    ),
    "snli-mnrl": dict(rows="triplets", loss={"name": MNRL}, batch=32, rate=5e-5, sampler="no_duplicates", measures=SENTENCES),
    "snli-triplet": dict(
        rows="triplets", loss={"name": "TripletLoss", "distance_metric": "cosine", "triplet_margin": 0.3}, batch=32,
        rate=5e-5, measures=SENTENCES,
    ),
    # texts of the same class are each other's relevant documents, since all evaluators of both sides can read that
    "banking77-batch-all": dict(
        rows="banking", loss={"name": "BatchAllTripletLoss", "distance_metric": "cosine_distance", "margin": 0.3}, batch=64,
        rate=1e-4, epochs=2, sampler="group_by_label",
        measures=[
            ("BANKING77 MAP@100", RETRIEVAL, Path("banking"), "cosine_map@100", {}),
            ("BANKING77 nDCG@10", RETRIEVAL, Path("banking"), "cosine_ndcg@10", {}),
        ],
    ),
    # SoftmaxLoss classifies pairs, so its classes are those of NLI
    "snli-softmax": dict(rows="nli", loss={"name": "SoftmaxLoss", "num_labels": 3}, batch=32, rate=2e-5, measures=SENTENCES),
    "stsb-cosent": dict(rows="stsb", loss={"name": "CoSENTLoss"}, batch=32, rate=5e-5, measures=SENTENCES[1:]),
    "stsb-angle": dict(rows="stsb", loss={"name": "AnglELoss"}, batch=32, rate=5e-5, measures=SENTENCES[1:]),
    # adapters on all layers of the network, which is frozen
    "stsb-lora": dict(
        rows="stsb", loss={"name": "CoSENTLoss"}, batch=32, rate=5e-4, lora={"r": 16, "alpha": 32, "dropout": 0.1},
        measures=SENTENCES[1:],
    ),
    # words are left out beforehand, the same for both sides
    "sentences-tsdae": dict(rows="damaged", loss={"name": "DenoisingAutoEncoderLoss"}, batch=16, rate=3e-5, measures=SENTENCES),
    "trecqa-bce": dict(
        type="CrossEncoder", rows="trecqa", loss={"name": "BinaryCrossEntropyLoss"}, batch=16, rate=5e-5,
        measures=[("TREC-QA dev nDCG@10", RERANKING, DATA / "rerank_trecqa/dev.jsonl", "ndcg@10", {})],
    ),
    # pairs alone; what is wrong was mined by the base model, which gives both sides the same rows (benches/mining.py)
    "squad-mined-bce": dict(
        type="CrossEncoder", rows="mined", loss={"name": "BinaryCrossEntropyLoss"}, batch=16, rate=5e-5,
        measures=[("TREC-QA dev nDCG@10", RERANKING, DATA / "rerank_trecqa/dev.jsonl", "ndcg@10", {})],
    ),
    "selqa-bce": dict(
        type="CrossEncoder", rows="selqa", loss={"name": "BinaryCrossEntropyLoss"}, batch=16, rate=5e-5,
        measures=[("SelQA test nDCG@10", RERANKING, DATA / "rerank_selqa/test.jsonl", "ndcg@10", {})],
    ),
    "squad-splade": dict(
        type="SparseEncoder", rows="squad_more", loss={"name": "SparseMultipleNegativesRankingLoss"},
        splade={"document_regularizer_weight": 3e-3, "query_regularizer_weight": 5e-3}, batch=16, rate=2e-4,
        sampler="no_duplicates", measures=[
            ("Cranfield nDCG@10", f"Sparse{RETRIEVAL}", DATA / "cranfield", "dot_ndcg@10", {}),
            ("XQuAD-en nDCG@10", f"Sparse{RETRIEVAL}", DATA / "xquad/en", "dot_ndcg@10", {}),
            ("active dims of documents", f"Sparse{RETRIEVAL}", DATA / "cranfield", "corpus_active_dims", {}),
        ],
    ),
    "squad-colbert": dict(
        type="MultiVectorEncoder", rows="squad", loss={"name": "MultiVectorMultipleNegativesRankingLoss"}, batch=32,
        rate=1e-4, sampler="no_duplicates", measures=[
            ("Cranfield nDCG@10", f"MultiVector{RETRIEVAL}", DATA / "cranfield", "maxsim_ndcg@10", {}),
            ("XQuAD-en nDCG@10", f"MultiVector{RETRIEVAL}", DATA / "xquad/en", "maxsim_ndcg@10", {}),
        ],
    ),
    # a student of three of the base model's six layers, made once by tallow, learns from the whole
    "student-margin": dict(
        rows="margins", loss={"name": "MarginMSELoss"}, student=[0, 2, 4], batch=16, rate=1e-4,
        epochs=2, measures=SEARCH,
    ),
    "student-mse": dict(
        rows="embeddings", loss={"name": "MSELoss"}, student=[0, 2, 4], batch=32, rate=5e-4, epochs=2,
        measures=SENTENCES[1:] + SEARCH,
    ),
    # the student's logits follow those of a reranker that was trained on other rows
    "selqa-student-scores": dict(
        type="CrossEncoder", rows="scores", loss={"name": "MSELoss"}, student=[0, 2, 4], batch=16, rate=1e-4, epochs=2,
        measures=[("SelQA test nDCG@10", RERANKING, DATA / "rerank_selqa/test.jsonl", "ndcg@10", {})],
    ),
    # a dense teacher's margins, ten times as large since cosines are small beside products of words' weights
    "splade-margin": dict(
        type="SparseEncoder", rows="sparse_margins", loss={"name": "SparseMarginMSELoss"},
        splade={"document_regularizer_weight": 3e-3, "query_regularizer_weight": 5e-3}, batch=16, rate=2e-4,
        measures=[
            ("XQuAD-en nDCG@10", f"Sparse{RETRIEVAL}", DATA / "xquad/en", "dot_ndcg@10", {}),
            ("active dims of documents", f"Sparse{RETRIEVAL}", DATA / "xquad/en", "corpus_active_dims", {}),
        ],
    ),
    "parallel-mse": dict(
        rows="parallel", loss={"name": "MSELoss"}, batch=32, rate=5e-4,
        measures=[
            ("en-de matching accuracy", "TranslationEvaluator", Path("translations.jsonl"), "mean_accuracy", {}),
            ("en-de negative MSE", "MSEEvaluator", Path("translations.jsonl"), "negative_mse", {"teacher_model": str(MODEL)}),
        ],
    ),
}


def read(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def squad(folder, options):
    return random.Random(7).sample(read(DATA / "pairs_squad/train.jsonl"), 768), ["anchor", "positive"], None


def squad_more(folder, options):
    return random.Random(7).sample(read(DATA / "pairs_squad/train.jsonl"), 2560), ["anchor", "positive"], None


def triplets(folder, options):
    rows = random.Random(7).sample(read(DATA / "nli_snli_triplets/train.jsonl"), 960)
    return rows, ["anchor", "positive", "negative"], None


def nli(folder, options):
    classes = ["entailment", "neutral", "contradiction"]
    rows = random.Random(7).sample(read(DATA / "nli_snli/dev.jsonl"), 1280)
    return [{**row, "label": classes.index(row["label"])} for row in rows], ["premise", "hypothesis"], "label"


def reranking(name):
    def rows(folder, options):
        rows = random.Random(7).sample(read(DATA / f"{name}/train.jsonl"), 1600)
        return rows, ["query", "passage"], "label"

    return rows


selqa = reranking("rerank_selqa")


def trecqa(folder, options):
    """All relevant passages, of which there are few, and three others for each."""
    rng = random.Random(7)
    rows = read(DATA / "rerank_trecqa/train.jsonl")
    relevant = [row for row in rows if row["label"] == 1]
    rows = relevant + rng.sample([row for row in rows if row["label"] == 0], 3 * len(relevant))
    rng.shuffle(rows)
    return rows, ["query", "passage"], "label"


def stsb(folder, options):
    rows = random.Random(7).sample(read(DATA / "stsb/train.jsonl"), 1280)
    return rows, ["sentence1", "sentence2"], "score"


def mined(folder, options):
    """Pairs of SQuAD with three sentences each that look like the answer."""
    pairs = random.Random(7).sample(read(DATA / "pairs_squad/train.jsonl"), 400)
    write(folder / "mined-pairs.jsonl", [{key: row[key] for key in ["anchor", "positive"]} for row in pairs])
    command = [options.tallow, "mine", str(folder / "mined-pairs.jsonl"), "--model", str(MODEL), "--relative-margin", "0.05"]
    run([*command, "--output-format", "labeled-pair", "--output", str(folder / "mined-rows.jsonl")])
    rows = read(folder / "mined-rows.jsonl")
    random.Random(7).shuffle(rows)
    return rows, ["anchor", "positive"], "label"


def taught(folder, options, name, teacher, labels, rows, columns):
    """Rows with what a teacher says of them."""
    write(folder / f"{name}-rows.jsonl", rows)
    command = [options.tallow, "teach", str(folder / f"{name}-rows.jsonl"), "--teacher", str(teacher), "--labels", labels]
    run([*command, "--columns", ",".join(columns), "--output", str(folder / f"{name}-taught.jsonl")])
    return read(folder / f"{name}-taught.jsonl"), columns, "label"


def margins(folder, options):
    """Pairs of SQuAD with a sentence that looks like the answer, and by how much less the teacher likes it."""
    pairs = random.Random(7).sample(read(DATA / "pairs_squad/train.jsonl"), 640)
    write(folder / "margin-pairs.jsonl", [{key: row[key] for key in ["anchor", "positive"]} for row in pairs])
    command = [options.tallow, "mine", str(folder / "margin-pairs.jsonl"), "--model", str(MODEL), "--num-negatives", "1"]
    run([*command, "--output", str(folder / "margin-mined.jsonl")])
    columns = ["anchor", "positive", "negative"]
    return taught(folder, options, "margin", MODEL, "margin", read(folder / "margin-mined.jsonl"), columns)


def sparse_margins(folder, options):
    rows, columns, label = margins(folder, options)
    return [{**row, label: 10 * row[label]} for row in rows], columns, label


def scores(folder, options):
    """Rows of SelQA with the logits of a reranker that tallow trained on others."""
    rows = read(DATA / "rerank_selqa/train.jsonl")
    random.Random(7).shuffle(rows)
    path = folder / "selqa-bce-rows.jsonl"
    write(path, rows[:1600])
    teacher = ours(options, "selqa-bce", path, ["query", "passage"], "label", 12, folder / "selqa-teacher")
    rows = [{key: row[key] for key in ["query", "passage"]} for row in rows[1600:2560]]
    return taught(folder, options, "selqa", teacher, "score", rows, ["query", "passage"])


def embeddings(folder, options):
    """Sentences with the teacher's embeddings."""
    texts = random.Random(7).sample((DATA / "sentences/sentences.txt").read_text(encoding="utf-8").splitlines(), 1920)
    return taught(folder, options, "embedding", MODEL, "embedding", [{"sentence": text} for text in texts], ["sentence"])


def damaged(folder, options):
    """Sentences, of which six words in ten are left out, one at least being kept."""
    rng = random.Random(7)
    rows = []
    for text in rng.sample((DATA / "sentences/sentences.txt").read_text(encoding="utf-8").splitlines(), 640):
        words = text.split()
        kept = [word for word in words if rng.random() > 0.6] or words[:1]
        rows.append({"damaged": " ".join(kept), "original": text})
    return rows, ["damaged", "original"], None


def banking(folder, options):
    """Twenty rows of each class to train on, ten others as corpus, a thousand of the test rows as queries."""
    rng = random.Random(7)
    classes = {}
    for row in read(DATA / "banking77/train.jsonl"):
        classes.setdefault(row["label"], []).append(row["text"])
    rows, corpus = [], []
    for label, texts in sorted(classes.items()):
        texts = rng.sample(texts, 30)
        rows += [{"text": text, "label": label} for text in texts[:20]]
        corpus += [{"_id": f"{label}-{k}", "title": "", "text": text} for k, text in enumerate(texts[20:])]
    tests = rng.sample(read(DATA / "banking77/test.jsonl"), 1000)
    write(folder / "banking/corpus.jsonl", corpus)
    write(folder / "banking/queries.jsonl", [{"_id": f"q{i}", "text": row["text"]} for i, row in enumerate(tests)])
    (folder / "banking/qrels").mkdir(exist_ok=True)
    pairs = [f"q{i}\t{row['label']}-{k}\t1\n" for i, row in enumerate(tests) for k in range(10)]
    (folder / "banking/qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(pairs), encoding="utf-8")
    rng.shuffle(rows)
    return rows, ["text"], "label"


def parallel(folder, options):
    """English sentences, their German, and the base model's embedding of the English as the label of both."""
    import numpy

    rows = random.Random(7).sample(read(DATA / "parallel_stsb/en-de.jsonl"), 2500)
    write(folder / "translations.jsonl", [{"source": r["english"], "target": r["non_english"]} for r in rows[2000:]])
    rows = rows[:1280]
    write(folder / "english.jsonl", rows)
    command = ["encode", str(MODEL), "--input", str(folder / "english.jsonl"), "--column", "english"]
    run([options.tallow, *command, "--output", str(folder / "english.npy")])
    vectors = numpy.load(folder / "english.npy").tolist()
    return [{**row, "label": vector} for row, vector in zip(rows, vectors)], ["english", "non_english"], "label"


def run(command, **more):
    done = subprocess.run(command, capture_output=True, text=True, **more)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def rows_of(case, folder, options):
    """The rows' file, made once, its text columns in the loss's order, and its label."""
    path = folder / f"{case['rows']}.jsonl"
    about = folder / f"{case['rows']}.columns.json"
    if not about.exists():
        rows, columns, label = globals()[case["rows"]](folder, options)
        write(path, [{key: row[key] for key in [*columns, *([label] if label else [])]} for row in rows])
        about.write_text(json.dumps([columns, label]))
    columns, label = json.loads(about.read_text())
    return path, columns, label


def start(case, folder, options=None):
    """The model that both sides start from: made by the reference where it has layers that the base model lacks, and by
    tallow where it has only some of its layers."""
    kind = case.get("type", "SentenceTransformer")
    if case.get("student"):
        path = folder / f"student-{kind}-{'-'.join(map(str, case['student']))}"
        if not path.exists():
            whole = start({**case, "student": None}, folder)
            layers = ",".join(map(str, case["student"]))
            run([options.tallow, "distill", str(whole), "--keep-layers", layers, "--output", str(path)])
        return path
    if kind == "SentenceTransformer":
        return MODEL
    path = folder / f"base-{kind}"
    if not path.exists():
        import sentence_transformers
        import torch

        torch.manual_seed(7)
        base = MODEL
        if kind == "SparseEncoder":
            # of a bi-encoder's folder the reference would make a sparse autoencoder: a network with a head is no such
            from transformers import AutoModelForMaskedLM, AutoTokenizer

            base = folder / "masked-lm"
            AutoModelForMaskedLM.from_pretrained(MODEL).save_pretrained(base)
            AutoTokenizer.from_pretrained(MODEL).save_pretrained(base)
        more = {"num_labels": 1} if kind == "CrossEncoder" else {}
        model = getattr(sentence_transformers, kind)(str(base), device="cpu", **more)
        model.save_pretrained(str(path), create_model_card=False)
    return path


def reference(name, rows, seed, out, device):
    """One run of sentence-transformers."""
    import importlib

    import sentence_transformers
    import torch
    from datasets import Dataset

    case = CASES[name]
    kind = case.get("type", "SentenceTransformer")
    package = "".join(f"_{c.lower()}" if c.isupper() else c for c in kind)[1:]
    losses = importlib.import_module(f"sentence_transformers.{package}.losses")
    # layers that are random otherwise begin alike, whatever the seed of the run
    torch.manual_seed(seed)
    model = getattr(sentence_transformers, kind)(str(start(case, out.parent)), device=device)
    if case.get("lora"):
        from peft import LoraConfig, get_peft_model

        lora = case["lora"]
        config = LoraConfig(
            task_type="FEATURE_EXTRACTION", r=lora["r"], lora_alpha=lora["alpha"], lora_dropout=lora["dropout"],
            target_modules="all-linear",
        )
        adapted = get_peft_model(model[0].auto_model, config)
        model[0].auto_model = adapted
    settings = {key: value for key, value in case["loss"].items() if key != "name"}
    if case["loss"]["name"] == "TripletLoss":
        settings["distance_metric"] = losses.TripletDistanceMetric.COSINE
    if case["loss"]["name"] == "BatchAllTripletLoss":
        settings["distance_metric"] = losses.BatchHardTripletLossDistanceFunction.cosine_distance
    if case["loss"]["name"] == "SoftmaxLoss":
        settings["sentence_embedding_dimension"] = model.get_embedding_dimension()
    loss = getattr(losses, case["loss"]["name"])(model, **settings)
    if case.get("dims"):
        loss = losses.MatryoshkaLoss(model, loss, matryoshka_dims=case["dims"])
    if case.get("splade"):
        loss = losses.SpladeLoss(model, loss, **case["splade"])
    args = getattr(sentence_transformers, f"{kind}TrainingArguments")(
        output_dir=str(out / "trainer"), num_train_epochs=case.get("epochs", 1), per_device_train_batch_size=case["batch"],
        learning_rate=case["rate"], warmup_steps=0.1, batch_sampler=case.get("sampler", "batch_sampler"), seed=seed,
        report_to="none", save_strategy="no", disable_tqdm=True, use_cpu=device == "cpu", logging_steps=10,
    )
    data = Dataset.from_list(read(rows))
    trainer = getattr(sentence_transformers, f"{kind}Trainer")(model=model, args=args, train_dataset=data, loss=loss)
    trainer.train()
    (out / "log_history.json").write_text(json.dumps(trainer.state.log_history, indent=1))
    if case.get("lora"):
        model[0].auto_model = adapted.merge_and_unload()
    model.save_pretrained(str(out / "model"), create_model_card=False)


def ours(options, name, rows, columns, label, seed, out):
    """One run of tallow; its model's folder."""
    case = CASES[name]
    lines = [f"{key} = {json.dumps(value)}" for key, value in case["loss"].items()]
    if case.get("dims"):
        lines.append(f"[loss.matryoshka]\ndims = {case['dims']}")
    if case.get("splade"):
        lines.append("[loss.splade]")
        lines += [f"{key} = {value}" for key, value in case["splade"].items()]
    lora = [f"{key} = {value}" for key, value in case.get("lora", {}).items()]
    lora = ["[model.lora]", 'target_modules = "all-linear"', *lora] if lora else []
    kind = case.get("type", "SentenceTransformer")
    out.mkdir(parents=True, exist_ok=True)
    recipe = out / "recipe.toml"
    recipe.write_text(f"""run_name = "{name}"
model_type = "{kind}"
seed = {seed}
output_dir = "{out}/runs"
[model]
base = "{start(case, out.parent)}"
{chr(10).join(lora)}
[train_dataset]
path = "{rows}"
columns = {json.dumps(columns)}
{f'label = "{label}"' if label else ""}
[loss]
{chr(10).join(lines)}
[args]
num_train_epochs = {case.get("epochs", 1)}
per_device_train_batch_size = {case["batch"]}
learning_rate = {case["rate"]}
warmup_steps = 0.1
batch_sampler = "{case.get("sampler", "batch_sampler")}"
save_strategy = "no"
logging_steps = 10
""")
    return json.loads(run([options.tallow, "run", str(recipe), "--force", "--json"], cwd=out))["model_dir"]


def measured(case, model, folder, options):
    """The scores of a model, by what is measured."""
    out = {}
    for label, kind, path, key, settings in case["measures"]:
        path = folder / path
        if options.judge == "reference":
            out[label] = judged(model, kind, path, key, settings)
            continue
        command = [options.tallow, "evaluate", str(model), "--evaluator", kind, "--path", str(path), "--json"]
        for setting, value in settings.items():
            command += ["--set", f"{setting}={json.dumps(value)}"]
        out[label] = json.loads(run(command))["metrics"][key]
    return out


def judged(model, kind, path, key, settings):
    """The same score by the reference's evaluator, of bi-encoders."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import evaluation

    model = SentenceTransformer(str(model), device="cpu")
    settings = dict(settings)
    if kind == RETRIEVAL:
        queries = {row["_id"]: row["text"] for row in read(path / "queries.jsonl")}
        texts = {row["_id"]: f"{row.get('title') or ''} {row['text']}".strip() for row in read(path / "corpus.jsonl")}
        relevant = {}
        for line in (path / "qrels/test.tsv").read_text().splitlines()[1:]:
            query, document, score = line.split("\t")
            if int(score) > 0:
                relevant.setdefault(query, set()).add(document)
        inputs = {"queries": queries, "corpus": texts, "relevant_docs": relevant}
    else:
        rows = read(path)
        column = lambda name: [row[name] for row in rows]
        inputs = {
            "TripletEvaluator": lambda: {
                "anchors": column("anchor"), "positives": column("positive"), "negatives": column("negative"),
            },
            "EmbeddingSimilarityEvaluator": lambda: {
                "sentences1": column("sentence1"), "sentences2": column("sentence2"), "scores": column("score"),
            },
            "TranslationEvaluator": lambda: {"source_sentences": column("source"), "target_sentences": column("target")},
            "MSEEvaluator": lambda: {"source_sentences": column("source"), "target_sentences": column("target")},
        }[kind]()
        if "teacher_model" in settings:
            settings["teacher_model"] = SentenceTransformer(settings["teacher_model"], device="cpu")
    metrics = getattr(evaluation, kind)(**inputs, **settings, write_csv=False)(model)
    return float(metrics[key])


def result(name, side, seed, folder, options):
    """What a side made of a case, from the folder where that is known."""
    kept = folder / f"{name}-{side}{'' if side == 'base' else f'-{seed}'}-by-{options.judge}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    if side != "base" and side not in options.sides:
        return None
    case = CASES[name]
    rows, columns, label = rows_of(case, folder, options)
    out = folder / f"{name}-{side}-{seed}"
    trained = out / "trained.json"
    figures = {"model": str(start(case, folder, options))}
    if side != "base" and trained.exists():
        figures = json.loads(trained.read_text())
    elif side != "base":
        begun, cpu = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
        if side == "reference":
            model = out / "model"
            run([sys.executable, __file__, "--worker", name, str(rows), str(seed), str(out), "--device", options.device])
        else:
            model = ours(options, name, rows, columns, label, seed, out)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        figures = {
            "model": str(model), "wall": time.time() - begun,
            "cpu": used.ru_utime + used.ru_stime - cpu.ru_utime - cpu.ru_stime,
        }
        trained.write_text(json.dumps(figures))
    figures["scores"] = measured(case, figures["model"], folder, options)
    kept.write_text(json.dumps(figures, indent=1))
    print(f"{name}, {side}, seed {seed}: {figures}", file=sys.stderr, flush=True)
    return figures


def mean(values):
    return sum(values) / len(values)


def table(names, folder, options):
    print("| case | measured by | base | sentence-transformers | tallow | CPU s, wall s st | tallow |")
    print("|---" * 7 + "|")
    for name in names:
        base = result(name, "base", 0, folder, options)
        sides = {
            side: [r for r in (result(name, side, seed, folder, options) for seed in options.seeds) if r]
            for side in ("reference", "tallow")
        }

        def score(side, label):
            values = [run["scores"][label] for run in sides[side]]
            if not values:
                return "-"
            more = f" ({min(values):.4f} to {max(values):.4f})" if len(values) > 1 else ""
            return f"{mean(values):.4f}{more}"

        def times(side):
            runs = sides[side]
            return f"{mean([r['cpu'] for r in runs]):.0f}, {mean([r['wall'] for r in runs]):.0f}" if runs else "-"

        for i, (label, *_) in enumerate(CASES[name]["measures"]):
            cells = [name if i == 0 else "", label, f"{base['scores'][label]:.4f}", score("reference", label), score("tallow", label)]
            cells += [times("reference"), times("tallow")] if i == 0 else ["", ""]
            print("| " + " | ".join(cells) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", default=",".join(CASES), help="names, with commas between them")
    parser.add_argument("--side", default="both", choices=["reference", "tallow", "both"])
    parser.add_argument("--seeds", default="12", help="numbers, with commas between them")
    parser.add_argument("--judge", default="tallow", choices=["tallow", "reference"], help="whose evaluators measure")
    parser.add_argument("--device", default="cpu", help="where the reference trains: cpu, cuda")
    parser.add_argument("--folder", default=str(ROOT / "target/real-runs"), help="where data, models and results are kept")
    parser.add_argument("--tallow", default=os.environ.get("TALLOW", str(ROOT / "target/release/tallow")))
    parser.add_argument("--worker", nargs=4, metavar=("CASE", "ROWS", "SEED", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    if options.worker:
        name, rows, seed, out = options.worker
        reference(name, rows, int(seed), Path(out), options.device)
        return
    names = options.case.split(",")
    unknown = [name for name in names if name not in CASES]
    if unknown:
        raise SystemExit(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")
    options.sides = ["reference", "tallow"] if options.side == "both" else [options.side]
    options.seeds = [int(seed) for seed in options.seeds.split(",")]
    options.tallow = str(Path(options.tallow).resolve())
    folder = Path(options.folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    table(names, folder, options)


if __name__ == "__main__":
    main()
