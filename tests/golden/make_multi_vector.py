"""multi_vector.json and fixtures/tiny-colbert: embeddings with a vector a token, their scores, losses with gradients,
what evaluators say, what older formats load as, and twenty steps of the real trainer without dropout and shuffling.

tiny-colbert is saved as sentence-transformers 6 does it: a projection to 12 values, queries made longer with mask tokens
that nobody sees, and documents without their full stops and commas.
"""

import json
import shutil
import tempfile
from pathlib import Path

from common import FIXTURES, HERE, tensor, torch, versions, write
from datasets import Dataset
from make_curves import Notes, in_order, read_rows
from safetensors.torch import load_file, save_file
from sentence_transformers import MultiVectorEncoder, MultiVectorEncoderTrainer, MultiVectorEncoderTrainingArguments
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder import evaluation, losses, scoring
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentences import pairs

ROWS = 160
BATCH = 8
RATE = 2e-4
WIDTH = 12
CONFIG = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
EXPANSION = {"strategy": "fixed", "length": 14}
MARKERS = {"query": "##u ", "document": "##n "}


def load(folder, **more):
    return MultiVectorEncoder(str(folder), device="cpu", config_kwargs=dict(CONFIG), local_files_only=True, **more)


def projection(width):
    """A projection that every language can make again."""
    out = torch.arange(width * 32, dtype=torch.float64)
    return (torch.sin(0.7 * out + 0.3) / 4).float().reshape(width, 32)


def fixture():
    transformer = Transformer(str(FIXTURES / "tiny-bert"), query_expansion=dict(EXPANSION), document_length=20)
    dense = Dense(32, WIDTH, bias=False, activation_function=torch.nn.Identity(), module_input_name="token_embeddings",
                  init_weight=projection(WIDTH))
    model = MultiVectorEncoder(
        modules=[transformer, dense, MultiVectorMask(skiplist_words=[".", ","]), Normalize(module_input_name="token_embeddings")],
        device="cpu", prompts={"query": "who : ", "document": "it : "},
    )
    folder = FIXTURES / "tiny-colbert"
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(str(folder), create_model_card=False)


def pylate(folder):
    """What PyLate 1 saves: two modules, and its settings in config_sentence_transformers.json."""
    shutil.copytree(FIXTURES / "tiny-bert", folder, ignore=shutil.ignore_patterns("1_*", "2_*"))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 30, "do_lower_case": False}))
    modules = ["sentence_transformers.models.Transformer", "pylate.models.Dense.Dense"]
    (folder / "modules.json").write_text(json.dumps(
        [{"idx": i, "name": str(i), "path": "1_Dense" if i else "", "type": name} for i, name in enumerate(modules)]))
    (folder / "config_sentence_transformers.json").write_text(json.dumps({
        "__version__": {"sentence_transformers": "4.0.2", "transformers": "4.48.2", "pytorch": "2.6.0"},
        "prompts": {}, "default_prompt_name": None, "similarity_fn_name": "MaxSim", "model_type": "ColBERT",
        "query_prefix": MARKERS["query"], "document_prefix": MARKERS["document"], "query_length": 11,
        "document_length": 17, "attend_to_expansion_tokens": False, "skiplist_words": [".", "?"],
        "do_query_expansion": True,
    }))
    (folder / "1_Dense").mkdir()
    (folder / "1_Dense/config.json").write_text(json.dumps({
        "in_features": 32, "out_features": 8, "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity"}))
    save_file({"linear.weight": projection(8)}, folder / "1_Dense/model.safetensors", metadata={"format": "pt"})


def stanford(folder):
    """What Stanford's ColBERT saves: everything in one file of weights, and artifact.metadata."""
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(FIXTURES / "tiny-bert" / name, folder / name)
    config = json.loads((FIXTURES / "tiny-bert/config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["HF_ColBERT"]}))
    weights = load_file(FIXTURES / "tiny-bert/model.safetensors")
    weights = {f"bert.{name.removeprefix('bert.')}": value for name, value in weights.items()}
    save_file({**weights, "linear.weight": projection(8)}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "artifact.metadata").write_text(json.dumps({
        "query_token_id": "##u", "doc_token_id": "##n", "query_maxlen": 9, "doc_maxlen": 16, "mask_punctuation": True,
        "attend_to_mask_tokens": False}))


def texts():
    rows = pairs(3)
    long = " ".join(row["positive"] for row in pairs(6))
    return [r["anchor"] for r in rows] + ["bees", long], [r["positive"] for r in rows] + [". , .", long]


def both(model, **more):
    queries, documents = texts()
    q, d = model.encode_query(queries, **more), model.encode_document(documents, **more)
    return q, d


def vectors(embeddings):
    return {"counts": [len(x) for x in embeddings], "values": tensor(torch.cat(list(embeddings)))}


def encodings(model):
    q, d = both(model)
    cases = [{"name": "as saved", "query": vectors(q), "document": vectors(d), "scores": tensor(model.similarity(q, d))}]
    cases[0]["pairs"] = tensor(model.similarity_pairwise(q, d))
    for name, change in (
        ("attended", {"strategy": "fixed", "length": 14, "attend": True}),
        ("at least", {"strategy": "min", "length": 6}),
        ("another token", {"strategy": "fixed", "length": 10, "token": "[SEP]"}),
        ("as they are", None),
    ):
        model[0].query_expansion = change
        q, _ = both(model)
        cases.append({"name": name, "expansion": change, "query": vectors(q)})
    model[0].query_expansion = dict(EXPANSION)
    model.similarity_fn_name = "meanmaxsim"
    q, d = both(model)
    cases[0]["mean_scores"] = tensor(model.similarity(q, d))
    model.similarity_fn_name = "maxsim"
    return cases


class Bank(torch.nn.Module):
    """A model that looks its vectors up: the ids are rows of a table, which gets the gradients."""

    def __init__(self, rows):
        super().__init__()
        generator = torch.Generator().manual_seed(rows)
        self.table = torch.nn.Parameter(torch.randn(rows + 1, 5, generator=generator))

    def forward(self, features, task=None):
        return {"token_embeddings": self.table[features["input_ids"]], "attention_mask": features["attention_mask"]}


def column(lengths, first):
    """Padded ids of rows with so many vectors each, numbered from `first`; 0 is padding."""
    ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.arange(first, first + length)
        first += length
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}, first


def loss_case(name, config, lengths, labels=None, kind="pairs"):
    features, first = [], 1
    for rows in lengths:
        feature, first = column(rows, first)
        features.append(feature)
    model = Bank(first - 1)
    settings = dict(config)
    similarity, top_k = settings.pop("similarity_fct", None), settings.pop("top_k", None)
    table = {
        "pairs": {"meanmaxsim": scoring.mean_colbert_scores, "xtr": lambda *a, **k: scoring.xtr_scores(*a, top_k=top_k, **k)},
        "pairwise": {"meanmaxsim": scoring.mean_colbert_scores_pairwise,
                     "xtr": lambda *a, **k: scoring.xtr_scores_pairwise(*a, top_k=top_k, **k)},
        "kd": {"meanmaxsim": scoring.mean_colbert_kd_scores,
               "xtr": lambda *a, **k: scoring.xtr_kd_scores(*a, top_k=top_k, **k)},
    }[kind]
    loss = getattr(losses, name)(model, **settings, **({"similarity_fct": table[similarity]} if similarity else {}))
    value = loss(features, labels)
    value.backward()
    gradient = model.table.grad[1:]
    return {
        "loss": name, "config": config, "lengths": lengths, "labels": None if labels is None else labels.tolist(),
        "vectors": tensor(model.table[1:]), "value": float(value.detach().double()), "gradient": tensor(gradient),
    }


def loss_cases():
    ragged = [[2, 3, 1, 4], [4, 1, 3, 2], [2, 5, 2, 1], [1, 2, 3, 3]]
    cases = []
    mnrl = "MultiVectorMultipleNegativesRankingLoss"
    for count in (2, 3, 4):
        for config in ({}, {"scale": 0.3}, {"similarity_fct": "meanmaxsim", "scale": 5.0},
                       {"similarity_fct": "xtr", "top_k": 4}, {"similarity_fct": "xtr", "top_k": 300}):
            cases.append(loss_case(mnrl, config, ragged[:count]))
    for name in ("MultiVectorMarginMSELoss",):
        one = torch.tensor([1.0, -0.5, 2.0, 0.25])
        two = torch.tensor([[1.0, 0.5], [-0.5, 1.5], [2.0, 0.0], [0.25, -1.0]])
        three = torch.tensor([[1.0, 0.5, 0.1], [-0.5, 1.5, 2.5], [2.0, 0.0, 1.0], [0.25, -1.0, 0.5]])
        for config in ({}, {"similarity_fct": "meanmaxsim"}, {"similarity_fct": "xtr", "top_k": 3}):
            cases += [loss_case(name, config, ragged[:3], one, "pairwise"), loss_case(name, config, ragged[:3], two, "pairwise"),
                      loss_case(name, config, ragged, two, "pairwise"), loss_case(name, config, ragged, three, "pairwise")]
    for config in ({}, {"temperature": 0.5}, {"student_temperature": 2.0, "teacher_temperature": 0.7},
                   {"similarity_fct": "meanmaxsim", "temperature": 0.2}, {"similarity_fct": "xtr", "top_k": 5}):
        cases += [loss_case("MultiVectorDistillKLDivLoss", config, ragged[:3], two, "kd"),
                  loss_case("MultiVectorDistillKLDivLoss", config, ragged, three, "kd")]
    # the cached loss calls the model again and again, so its own hook makes the gradients
    cases.append(cached_case(ragged[:2]))
    cases.append(cached_case(ragged[:3], scale=0.5))
    cases.append(cached_case(ragged))
    return cases


def cached_case(lengths, **config):
    case = loss_case("MultiVectorMultipleNegativesRankingLoss", config, lengths)
    features, first = [], 1
    for rows in lengths:
        feature, first = column(rows, first)
        features.append(feature)
    model = Bank(first - 1)
    loss = losses.CachedMultiVectorMultipleNegativesRankingLoss(model, mini_batch_size=2, **config)
    value = loss(features, None)
    value.backward()
    name = "CachedMultiVectorMultipleNegativesRankingLoss"
    return {**case, "loss": name, "config": {**config, "mini_batch_size": 2}, "value": float(value.detach().double()),
            "gradient": tensor(model.table.grad[1:])}


def evaluators(model):
    rows = pairs(24)
    queries = {f"q{i}": row["anchor"] for i, row in enumerate(rows[:12])}
    corpus = {f"d{i}": row["positive"] for i, row in enumerate(rows)}
    relevant = {f"q{i}": [f"d{i}"] for i in range(12)}
    samples = [
        {"query": row["anchor"], "positive": [row["positive"]], "negative": [r["positive"] for r in rows[i + 1:i + 5]]}
        for i, row in enumerate(rows[:10])
    ]
    lists = [[r["positive"] for r in rows[i:i + 3]] for i in range(8)]
    scores = [[3.0 - j + (i % 3) * 0.4 * j for j in range(3)] for i in range(8)]
    triplets = {"anchor": [r["anchor"] for r in rows], "positive": [r["positive"] for r in rows],
                "negative": [r["positive"] for r in rows[5:] + rows[:5]]}
    cases = []
    for similarity in ("maxsim", "meanmaxsim"):
        model.similarity_fn_name = similarity
        for evaluator, config, data in (
            (evaluation.MultiVectorInformationRetrievalEvaluator(
                queries, corpus, {key: set(value) for key, value in relevant.items()}, name="dev"), {},
             {"queries": queries, "corpus": corpus, "relevant": relevant}),
            (evaluation.MultiVectorTripletEvaluator(*triplets.values(), name="dev"), {}, triplets),
            (evaluation.MultiVectorTripletEvaluator(*triplets.values(), name="dev", margin=0.5), {"margin": 0.5}, triplets),
            (evaluation.MultiVectorRerankingEvaluator(samples, name="dev"), {}, {"samples": samples}),
            (evaluation.MultiVectorDistillationEvaluator(
                [r["anchor"] for r in rows[:8]], lists, scores, name="dev", temperature=0.5, student_temperature=2.0),
             {"temperature": 0.5, "student_temperature": 2.0},
             {"query": [r["anchor"] for r in rows[:8]], "documents": lists, "scores": scores}),
            (evaluation.MultiVectorDistillationEvaluator(
                [r["anchor"] for r in rows[:8]], [row[0] for row in lists], [row[1] for row in scores], name="dev"), {},
             {"query": [r["anchor"] for r in rows[:8]], "documents": [[row[0]] for row in lists],
              "scores": [[row[1]] for row in scores]}),
        ):
            with tempfile.TemporaryDirectory() as out:
                metrics = evaluator(model, out)
                header = {p.name: p.read_text().splitlines()[0] for p in Path(out).glob("*.csv")}
            cases.append({
                "evaluator": type(evaluator).__name__, "similarity": similarity, "config": {"name": "dev", **config},
                "data": data, "metrics": {key: float(value) for key, value in metrics.items()},
                "primary": evaluator.primary_metric, "csv": header,
            })
            print(type(evaluator).__name__, similarity, list(metrics.items())[:2], flush=True)
    model.similarity_fn_name = "maxsim"
    return cases


def steps(name, recipe, rows, make_loss):
    model = load(FIXTURES / "tiny-colbert")
    with tempfile.TemporaryDirectory() as out:
        args = MultiVectorEncoderTrainingArguments(
            output_dir=out, num_train_epochs=1, per_device_train_batch_size=BATCH, learning_rate=RATE,
            lr_scheduler_type="linear", weight_decay=0.01, max_grad_norm=1.0, optim="adamw_torch", logging_steps=1,
            logging_nan_inf_filter=False, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
            batch_sampler=in_order, seed=1,
        )
        notes = Notes()
        trainer = MultiVectorEncoderTrainer(
            model=model, args=args, train_dataset=Dataset.from_list(rows), loss=make_loss(model), callbacks=[notes],
        )
        trainer.train()
    print(name, len(notes.losses), "steps", notes.losses[0], "to", notes.losses[-1], flush=True)
    q, d = both(model.eval())
    return {"name": name, "recipe": recipe, "losses": notes.losses, "grad_norms": notes.norms, "query": vectors(q[:2]),
            "document": vectors(d[:2])}


def one(name, file, columns, make_loss, loss, label=None):
    rows = read_rows(HERE / file, ROWS)
    keep = [*columns, *([label] if label else [])]
    rows = [{("label" if key == label else key): row[key] for key in keep} for row in rows]
    recipe = f'[model]\nbase = "$FIXTURES/tiny-colbert"\ndropout = 0.0\n[[train_dataset]]\npath = "$GOLDEN/{file}"\n'
    recipe += f"columns = {json.dumps(columns)}\n" + (f'label = "{label}"\n' if label else "")
    return steps(name, recipe + "[loss]\n" + loss, rows, make_loss)


def legacy(make):
    with tempfile.TemporaryDirectory() as out:
        folder = Path(out) / "model"
        make(folder)
        model = load(folder)
        q, d = both(model)
        return {"prompts": model.prompts, "query": vectors(q), "document": vectors(d)}


def main():
    fixture()
    model = load(FIXTURES / "tiny-colbert")
    queries, documents = texts()
    three = ["anchor", "positive", "negative"]
    mnrl = "MultiVectorMultipleNegativesRankingLoss"
    curves = [
        one("mnrl", "curves_pairs.jsonl", ["anchor", "positive"], losses.MultiVectorMultipleNegativesRankingLoss,
            f'name = "{mnrl}"\n'),
        one("mean_mnrl", "curves_labelled.jsonl", three,
            lambda m: losses.MultiVectorMultipleNegativesRankingLoss(m, scale=4.0, similarity_fct=scoring.mean_colbert_scores),
            f'name = "{mnrl}"\nscale = 4.0\nsimilarity_fct = "meanmaxsim"\n'),
        one("xtr_mnrl", "curves_pairs.jsonl", ["anchor", "positive"],
            lambda m: losses.MultiVectorMultipleNegativesRankingLoss(m, scale=4.0, similarity_fct=scoring.XTRScores(20)),
            f'name = "{mnrl}"\nscale = 4.0\nsimilarity_fct = "xtr"\ntop_k = 20\n'),
        one("margin_mse", "curves_labelled.jsonl", three, losses.MultiVectorMarginMSELoss,
            'name = "MultiVectorMarginMSELoss"\n', label="margin"),
        one("kl_div", "curves_labelled.jsonl", three, losses.MultiVectorDistillKLDivLoss,
            'name = "MultiVectorDistillKLDivLoss"\n', label="scores"),
    ]
    write("multi_vector.json", {
        "about": versions(), "queries": queries, "documents": documents, "encodings": encodings(model),
        "pylate": legacy(pylate), "stanford": legacy(stanford), "losses": loss_cases(), "evaluators": evaluators(model),
        "curves": curves,
    })


if __name__ == "__main__":
    main()
