"""sparse_encoder.json and fixtures/tiny-splade: sparse embeddings, what they decode to, what evaluators say of them, and
twenty steps of the real trainer with SpladeLoss over two losses, without dropout and without shuffling.

tiny-splade is saved as sentence-transformers 6 does it. Only gradients and weights of the network are random; the head
shares its words with the embedding layer.
"""

import json
import shutil
import tempfile

from common import FIXTURES, HERE, tensor, torch, versions, write
from datasets import Dataset
from make_curves import Notes, in_order, read_rows
from sentence_transformers import SparseEncoder, SparseEncoderTrainer, SparseEncoderTrainingArguments
from sentence_transformers.sparse_encoder import evaluation, losses
from sentence_transformers.sparse_encoder.modules import MLMTransformer, SpladePooling
from sentences import pairs, scored

ROWS = 160
BATCH = 8
RATE = 2e-4
CONFIG = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def load(folder):
    return SparseEncoder(str(folder), device="cpu", config_kwargs=dict(CONFIG), local_files_only=True)


def fixture():
    torch.manual_seed(17)
    transformer = MLMTransformer(str(FIXTURES / "tiny-bert"))
    head = transformer.auto_model.cls.predictions if hasattr(transformer, "auto_model") else transformer.model.cls.predictions
    torch.nn.init.normal_(head.transform.dense.weight, std=0.4)
    torch.nn.init.normal_(head.transform.dense.bias, std=0.2)
    torch.nn.init.normal_(head.bias, mean=-1.5, std=0.5)
    model = SparseEncoder(modules=[transformer, SpladePooling("max")], device="cpu")
    folder = FIXTURES / "tiny-splade"
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(str(folder), create_model_card=False)


def texts():
    rows = pairs(10)
    return [row["anchor"] for row in rows] + [row["positive"] for row in rows] + ["bees", " ".join(r["positive"] for r in rows[:6])]


def entries(embeddings):
    dense = embeddings.to_dense() if embeddings.is_sparse else embeddings
    return [
        {"indices": torch.nonzero(row).flatten().tolist(), "values": tensor(row[row != 0])} for row in dense
    ]


def evaluators(model):
    """Each with its data as columns, its settings, and what the reference makes of it."""
    rows, marks = pairs(24), scored(30)
    queries = {f"q{i}": row["anchor"] for i, row in enumerate(rows[:12])}
    corpus = {f"d{i}": row["positive"] for i, row in enumerate(rows)}
    relevant = {f"q{i}": [f"d{i}"] for i in range(12)}
    cases = []
    for most in (None, 5):
        config = {"name": "dev", **({"max_active_dims": most} if most else {})}
        retrieval = evaluation.SparseInformationRetrievalEvaluator(
            queries, corpus, {key: set(value) for key, value in relevant.items()}, name="dev", max_active_dims=most)
        similarity = evaluation.SparseEmbeddingSimilarityEvaluator(
            [r["sentence1"] for r in marks], [r["sentence2"] for r in marks], [r["score"] for r in marks],
            name="dev", max_active_dims=most)
        triplet = evaluation.SparseTripletEvaluator(
            [r["anchor"] for r in rows], [r["positive"] for r in rows], [r["positive"] for r in rows[5:] + rows[:5]],
            name="dev", max_active_dims=most)
        binary = evaluation.SparseBinaryClassificationEvaluator(
            [r["sentence1"] for r in marks], [r["sentence2"] for r in marks], [int(r["score"] > 0.5) for r in marks],
            name="dev", max_active_dims=most)
        samples = [
            {"query": row["anchor"], "positive": [row["positive"]], "negative": [r["positive"] for r in rows[i + 1:i + 5]]}
            for i, row in enumerate(rows[:10])
        ]
        reranking = evaluation.SparseRerankingEvaluator(samples, name="dev", max_active_dims=most)
        translation = evaluation.SparseTranslationEvaluator(
            [r["anchor"] for r in rows], [r["positive"] for r in rows], name="dev", max_active_dims=most)
        for evaluator, data in (
            (retrieval, {"queries": queries, "corpus": corpus, "relevant": relevant}),
            (similarity, {"sentence1": [r["sentence1"] for r in marks], "sentence2": [r["sentence2"] for r in marks],
                          "score": [r["score"] for r in marks]}),
            (triplet, {"anchor": [r["anchor"] for r in rows], "positive": [r["positive"] for r in rows],
                       "negative": [r["positive"] for r in rows[5:] + rows[:5]]}),
            (binary, {"sentence1": [r["sentence1"] for r in marks], "sentence2": [r["sentence2"] for r in marks],
                      "label": [int(r["score"] > 0.5) for r in marks]}),
            (reranking, {"samples": samples}),
            (translation, {"source": [r["anchor"] for r in rows], "target": [r["positive"] for r in rows]}),
        ):
            with tempfile.TemporaryDirectory() as out:
                metrics = evaluator(model, out)
                header = {p.name: p.read_text().splitlines()[0] for p in __import__("pathlib").Path(out).glob("*.csv")}
            cases.append({
                "evaluator": type(evaluator).__name__, "config": config, "data": data,
                "metrics": {key: float(value) for key, value in metrics.items()}, "primary": evaluator.primary_metric,
                "csv": header,
            })
            print(type(evaluator).__name__, most, list(metrics)[-3:], flush=True)
    return cases


def steps(name, recipe, rows, make_loss):
    model = load(FIXTURES / "tiny-splade")
    with tempfile.TemporaryDirectory() as out:
        args = SparseEncoderTrainingArguments(
            output_dir=out, num_train_epochs=1, per_device_train_batch_size=BATCH, learning_rate=RATE,
            lr_scheduler_type="linear", weight_decay=0.01, max_grad_norm=1.0, optim="adamw_torch", logging_steps=1,
            logging_nan_inf_filter=False, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
            batch_sampler=in_order, seed=1,
        )
        notes = Notes()
        trainer = SparseEncoderTrainer(
            model=model, args=args, train_dataset=Dataset.from_list(rows), loss=make_loss(model), callbacks=[notes],
        )
        trainer.train()
    print(name, len(notes.losses), "steps", notes.losses[0], "to", notes.losses[-1], flush=True)
    after = model.eval().encode(texts()[:4], convert_to_sparse_tensor=False)
    return {"name": name, "recipe": recipe, "losses": notes.losses, "grad_norms": notes.norms, "after": tensor(after)}


def one(name, file, columns, make_loss, loss, label=None):
    rows = read_rows(HERE / file, ROWS)
    keep = [*columns, *([label] if label else [])]
    rows = [{("label" if key == label else key): row[key] for key in keep} for row in rows]
    recipe = f'[model]\nbase = "$FIXTURES/tiny-splade"\ndropout = 0.0\n[[train_dataset]]\npath = "$GOLDEN/{file}"\n'
    recipe += f"columns = {json.dumps(columns)}\n" + (f'label = "{label}"\n' if label else "")
    return steps(name, recipe + "[loss]\n" + loss, rows, make_loss)


def main():
    fixture()
    model = load(FIXTURES / "tiny-splade")
    embeddings = model.encode(texts())
    fewer = model.encode(texts(), max_active_dims=7)
    decoded = [[[token, float(weight)] for token, weight in row] for row in model.decode(embeddings, top_k=5)]
    weights = "[loss.splade]\ndocument_regularizer_weight = 0.03\n"
    cases = [
        one("splade_mnrl", "curves_pairs.jsonl", ["anchor", "positive"],
            lambda m: losses.SpladeLoss(m, losses.SparseMultipleNegativesRankingLoss(m), 0.03, 0.05),
            f'name = "SparseMultipleNegativesRankingLoss"\n{weights}query_regularizer_weight = 0.05\n'),
        one("splade_margin_mse", "curves_labelled.jsonl", ["anchor", "positive", "negative"],
            lambda m: losses.SpladeLoss(m, losses.SparseMarginMSELoss(m), 0.03, 0.05),
            f'name = "SparseMarginMSELoss"\n{weights}query_regularizer_weight = 0.05\n', label="margin"),
        one("splade_threshold", "curves_scored.jsonl", ["sentence1", "sentence2"],
            lambda m: losses.SpladeLoss(m, losses.SparseCoSENTLoss(m), 0.03, use_document_regularizer_only=True,
                                        document_regularizer_threshold=40),
            f'name = "SparseCoSENTLoss"\n{weights}use_document_regularizer_only = true\n'
            "document_regularizer_threshold = 40\n", label="score"),
    ]
    write("sparse_encoder.json", {
        "about": versions(), "texts": texts(), "embeddings": entries(embeddings), "seven": entries(fewer),
        "decoded": decoded, "sparsity": model.sparsity(embeddings),
        "intersection": entries(model.intersection(embeddings[0], embeddings[1]).to_dense().unsqueeze(0))[0],
        "evaluators": evaluators(model), "cases": cases,
    })


if __name__ == "__main__":
    main()
