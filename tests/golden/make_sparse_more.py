"""sparse_more.json and fixtures/tiny-inference-free, fixtures/tiny-csr: evaluators of several searches, a Router whose
queries need no network, sparse autoencoders with their losses, and twenty steps of the real trainer of both.

The fixtures are saved as sentence-transformers 6 does it; tiny-splade (make_sparse_encoder.py) has to be there.
"""

import json
import pathlib
import shutil
import tempfile

from common import FIXTURES, HERE, np, tensor, torch, versions, write
from datasets import Dataset
from make_curves import Notes, in_order, read_rows
from make_sparse_encoder import BATCH, RATE, ROWS, entries, load, texts
from sentence_transformers import SentenceTransformer, SparseEncoder, SparseEncoderTrainer, SparseEncoderTrainingArguments
from sentence_transformers.sparse_encoder import evaluation, losses
from sentence_transformers.sparse_encoder.losses.csr import CSRReconstructionLoss
from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder, SparseStaticEmbedding
from sentence_transformers.base.modules import Router
from sentences import pairs


def numbers(metrics):
    return {key: float(value) for key, value in metrics.items()}


def outcome(evaluator, model):
    with tempfile.TemporaryDirectory() as out:
        metrics = evaluator(model, out) if model is not None else evaluator(out)
        header = {p.name: p.read_text().splitlines()[0] for p in pathlib.Path(out).glob("*.csv")}
        told = {p.name: p.read_text() for p in pathlib.Path(out).glob("*.jsonl")}
    return {"metrics": numbers(metrics), "primary": evaluator.primary_metric, "csv": header, "documents": told}


def nano(model):
    """The evaluator as it is, but for where the data comes from: two data sets instead of the Hub."""
    rows = pairs(40)
    data = {
        "NanoMSMARCO": (rows[:8], rows[:20]),
        "NanoSciFact": (rows[20:26], rows[20:40]),
    }

    class Local(evaluation.SparseNanoBEIREvaluator):
        def _load_dataset_subset_split(self, subset, split, required_columns):
            asked, corpus = data[split]
            if subset == "qrels":
                return [{"query-id": f"q{i}", "corpus-id": f"d{i}"} for i in range(len(asked))]
            if subset == "corpus":
                return [{"_id": f"d{i}", "text": row["positive"]} for i, row in enumerate(corpus)]
            return [{"_id": f"q{i}", "text": row["anchor"]} for i, row in enumerate(asked)]

    inputs = {
        name: {"queries": [r["anchor"] for r in asked], "corpus": [r["positive"] for r in corpus]}
        for name, (asked, corpus) in data.items()
    }
    cases = []
    for config in ({}, {"max_active_dims": 5, "aggregate_key": "avg"}):
        evaluator = Local(dataset_names=["scifact", "msmarco"], **config)
        config = {"dataset_names": ["scifact", "msmarco"], **config}
        cases.append({"config": config, "data": inputs, **outcome(evaluator, model)})
    return cases


def fusion():
    documents = [row["positive"] for row in pairs(12)]

    def sample(number, order, positive, missing=()):
        found = [documents[i] for i in order if i not in missing]
        return {"query_id": f"q{number}", "query": f"question {number}", "positive": positive, "documents": found}

    one, two = [documents[3]], [documents[1], documents[7], documents[9]]
    nothing = ["a text that neither search found"]
    orders = [([0, 3, 1, 5], [3, 2, 6, 0]), ([4, 2, 7, 1], [7, 9, 0, 11]), ([1, 2, 3], [4, 5, 6]), ([8, 3, 8, 2], [2, 8]), ([2, 4], [0, 6, 3])]
    positives = [one, two, nothing, one, one]
    dense = [sample(i, order[0], p) for i, (order, p) in enumerate(zip(orders, positives))]
    sparse = [sample(i, order[1], p) for i, (order, p) in enumerate(zip(orders, positives))]
    cases = []
    for config in ({}, {"name": "hybrid", "at_k": 2, "rrf_k": 1, "write_predictions": True}):
        evaluator = evaluation.ReciprocalRankFusionEvaluator(dense, sparse, **config)
        cases.append({"config": config, "dense": dense, "sparse": sparse, **outcome(evaluator, None)})
    return cases


def inference_free():
    """Saved as it is made in training scripts: static queries, documents through the network."""
    model = load(FIXTURES / "tiny-splade")
    tokenizer = model.tokenizer
    generator = torch.Generator().manual_seed(5)
    weight = torch.rand(len(tokenizer.get_vocab()), generator=generator) * 2
    weight[3] = 0.0
    static = SparseStaticEmbedding(tokenizer=tokenizer, weight=weight, frozen=False)
    router = Router.for_query_document(query_modules=[static], document_modules=[model[0], model[1]])
    model = SparseEncoder(modules=[router], device="cpu", similarity_fn_name="dot")
    folder = FIXTURES / "tiny-inference-free"
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(str(folder), create_model_card=False)
    model = load(folder)
    cases = []
    for task in ("query", "document"):
        encode = model.encode_query if task == "query" else model.encode_document
        cases.append({"task": task, "embeddings": entries(encode(texts()))})
    static = model[0].sub_modules["query"][0].double()
    rows = torch.cat([static(static.preprocess([text]))["sentence_embedding"] for text in texts()])
    waves = torch.sin(0.1 * torch.arange(rows.numel(), dtype=torch.float64)).reshape(rows.shape)
    (rows * waves).sum().backward()
    idf = {token: round(0.5 + i / 7, 3) for i, token in enumerate(sorted(tokenizer.get_vocab())[40:160:3])}
    with tempfile.TemporaryDirectory() as out:
        path = pathlib.Path(out) / "idf.json"
        path.write_text(json.dumps(idf))
        made = SparseStaticEmbedding.from_json(str(path), tokenizer=tokenizer, frozen=True)
    return {"cases": cases, "gradient": tensor(static.weight.grad.float()), "idf": idf, "weight": tensor(made.weight)}


def csr_model():
    torch.manual_seed(23)
    base = SentenceTransformer(str(FIXTURES / "tiny-bert"), device="cpu")
    sae = SparseAutoEncoder(input_dim=32, hidden_dim=64, k=6, k_aux=16, dead_threshold=6)
    torch.nn.init.normal_(sae.pre_bias, std=0.05)
    torch.nn.init.normal_(sae.latent_bias, std=0.02)
    model = SparseEncoder(modules=[*base, sae], device="cpu")
    folder = FIXTURES / "tiny-csr"
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(str(folder), create_model_card=False)


def csr_cases():
    """The module in training and the loss's parts, in double precision; columns one after the other."""
    cases = []
    shapes = [
        {"input_dim": 6, "hidden_dim": 20, "k": 2, "k_aux": 5, "dead_threshold": 3},
        {"input_dim": 6, "hidden_dim": 20, "k": 2, "k_aux": 5, "dead_threshold": 3, "normalize": True},
        {"input_dim": 5, "hidden_dim": 12, "k": 3, "k_aux": 0, "dead_threshold": 2},
        {"input_dim": 5, "hidden_dim": 12, "k": 1, "k_aux": 4, "dead_threshold": 0, "rows": 1},
    ]
    for number, shape in enumerate(shapes):
        rows = shape.pop("rows", 4)
        torch.manual_seed(40 + number)
        sae = SparseAutoEncoder(**shape).double().train()
        for parameter, std in ((sae.pre_bias, 0.3), (sae.latent_bias, 0.2), (sae.encoder.weight, 0.6)):
            parameter.data = (torch.randn(parameter.shape, dtype=torch.float64) * std).float().double()
        before = torch.randint(0, 6, (shape["hidden_dim"],))
        sae.stats_last_nonzero.copy_(before)
        columns = [torch.randn(rows, shape["input_dim"]).double().requires_grad_() for _ in range(2)]
        outputs = [sae({"sentence_embedding": x}) for x in columns]
        beta = 0.3
        parts = CSRReconstructionLoss(None, beta=beta).compute_loss_from_embeddings(outputs)
        latents = [output["sentence_embedding"] for output in outputs]
        waves = [torch.sin(0.1 * torch.arange(z.numel(), dtype=torch.float64)).reshape(z.shape) for z in latents]
        (sum(parts.values()) + sum((z * w).sum() for z, w in zip(latents, waves))).backward()
        cases.append({
            "config": {"normalize": False, **shape}, "beta": beta,
            "parameters": {n: tensor(p) for n, p in sae.named_parameters() if not n.startswith("decoder")},
            "before": before.tolist(), "after": sae.stats_last_nonzero.tolist(),
            "columns": [tensor(x) for x in columns], "latents": [tensor(z) for z in latents],
            "parts": {key: float(value) for key, value in parts.items()},
            "column_gradients": [tensor(x.grad) for x in columns],
            "gradients": {n: tensor(p.grad) for n, p in sae.named_parameters() if not n.startswith("decoder")},
        })
    return cases


class Parts(Notes):
    """The trainer logs the parts of a loss rounded to four places."""

    def __init__(self):
        super().__init__()
        self.parts = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        super().on_log(args, state, control, logs=logs, **kwargs)
        if "loss" in logs:
            self.parts.append({key: value for key, value in logs.items() if key.endswith("_loss") or "reconstruction" in key})


def curve(name, folder, recipe, make_loss, columns=("anchor", "positive"), **settings):
    rows = [{key: row[key] for key in columns} for row in read_rows(HERE / "curves_pairs.jsonl", ROWS)]
    model = load(FIXTURES / folder)
    with tempfile.TemporaryDirectory() as out:
        args = SparseEncoderTrainingArguments(
            output_dir=out, num_train_epochs=1, per_device_train_batch_size=BATCH, learning_rate=RATE,
            lr_scheduler_type="linear", weight_decay=0.01, max_grad_norm=1.0, optim="adamw_torch", logging_steps=1,
            logging_nan_inf_filter=False, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
            batch_sampler=in_order, seed=1, **settings,
        )
        notes = Parts()
        trainer = SparseEncoderTrainer(
            model=model, args=args, train_dataset=Dataset.from_list(rows), loss=make_loss(model), callbacks=[notes],
        )
        trainer.train()
    print(name, len(notes.losses), "steps", notes.losses[0], "to", notes.losses[-1], notes.parts[-1], flush=True)
    text = f'[model]\nbase = "$FIXTURES/{folder}"\ndropout = 0.0\n[[train_dataset]]\npath = "$GOLDEN/curves_pairs.jsonl"\n'
    text += f"columns = {json.dumps(list(columns))}\n{recipe}"
    model = model.eval()
    after = {
        "query": tensor(model.encode_query(texts()[:4], convert_to_sparse_tensor=False)),
        "document": tensor(model.encode_document(texts()[:4], convert_to_sparse_tensor=False)),
    }
    case = {"name": name, "recipe": text, "losses": notes.losses, "grad_norms": notes.norms, "parts": notes.parts, "after": after}
    for module in model.modules():
        if isinstance(module, SparseStaticEmbedding):
            case["weight"] = tensor(module.weight)
        if isinstance(module, SparseAutoEncoder):
            case["stats_last_nonzero"] = module.stats_last_nonzero.tolist()
    return case


def main():
    splade = load(FIXTURES / "tiny-splade")
    more = {"about": versions(), "nano": nano(splade), "fusion": fusion(), "texts": texts()}
    more["inference_free"] = inference_free()
    csr_model()
    csr = load(FIXTURES / "tiny-csr")
    more["csr"] = {
        "embeddings": entries(csr.encode(texts())), "three": entries(csr.encode(texts(), max_active_dims=3)),
        "more": entries(csr.encode(texts(), max_active_dims=9)), "max_active_dims": csr.max_active_dims,
        "cases": csr_cases(),
    }
    routes = {"anchor": "query", "positive": "document"}
    mapping = '[args.router_mapping]\nanchor = "query"\npositive = "document"\n'
    splade_loss = "[loss]\nname = \"SparseMultipleNegativesRankingLoss\"\n[loss.splade]\ndocument_regularizer_weight = 0.03\n"
    more["cases"] = [
        curve("inference_free", "tiny-inference-free", splade_loss + mapping,
              lambda m: losses.SpladeLoss(m, losses.SparseMultipleNegativesRankingLoss(m), 0.03), router_mapping=routes),
        curve("inference_free_all", "tiny-inference-free",
              splade_loss + "use_document_regularizer_only = true\n" + mapping,
              lambda m: losses.SpladeLoss(m, losses.SparseMultipleNegativesRankingLoss(m), 0.03,
                                          use_document_regularizer_only=True), router_mapping=routes),
        curve("inference_free_rates", "tiny-inference-free",
              splade_loss + mapping + "[args.learning_rate_mapping]\n\"query.0.weight\" = 1e-2\n",
              lambda m: losses.SpladeLoss(m, losses.SparseMultipleNegativesRankingLoss(m), 0.03), router_mapping=routes,
              learning_rate_mapping={"query.0.weight": 1e-2}),
        curve("csr", "tiny-csr", "[loss]\nname = \"CSRLoss\"\nbeta = 0.2\ngamma = 0.5\n",
              lambda m: losses.CSRLoss(m, beta=0.2, gamma=0.5)),
    ]
    write("sparse_more.json", more)


if __name__ == "__main__":
    main()
