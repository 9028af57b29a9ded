"""evaluators.json: every metric the real evaluator classes return for fixed float32 embeddings."""

import csv
import math
import tempfile
import warnings
from pathlib import Path

import numpy as np
from common import tensor, torch, versions, write
from scipy.stats import spearmanr

from sentence_transformers.sentence_transformer.evaluation import (
    BinaryClassificationEvaluator,
    EmbeddingSimilarityEvaluator,
    InformationRetrievalEvaluator,
    LabelAccuracyEvaluator,
    MSEEvaluator,
    MSEEvaluatorFromDataFrame,
    NanoBEIREvaluator,
    ParaphraseMiningEvaluator,
    RerankingEvaluator,
    TranslationEvaluator,
    TripletEvaluator,
)
from sentence_transformers.sentence_transformer.losses import SoftmaxLoss
from sentence_transformers.util import (
    SimilarityFunction,
    cos_sim,
    dot_score,
    pairwise_cos_sim,
    pairwise_dot_score,
    pairwise_euclidean_sim,
    pairwise_manhattan_sim,
    quantize_embeddings,
)

warnings.simplefilter("ignore")
cases = []
rng = np.random.default_rng(51)


class Card:
    def set_evaluation_metrics(self, *args, **kwargs):
        pass


class Stub:
    """A model whose encode looks every text up in a table of vectors."""

    model_card_data = Card()

    def __init__(self, table, similarity_fn_name="cosine"):
        self.table = table
        self.similarity_fn_name = similarity_fn_name
        self.similarity = SimilarityFunction.to_similarity_fn(similarity_fn_name)

    def encode(
        self, texts, convert_to_tensor=False, convert_to_numpy=True, truncate_dim=None, normalize_embeddings=False,
        precision=None, **kwargs,
    ):
        rows = np.stack([self.table[t] for t in texts])
        if truncate_dim is not None:
            rows = rows[:, :truncate_dim]
        if normalize_embeddings:
            rows = torch.nn.functional.normalize(torch.from_numpy(rows.copy()), p=2, dim=1).numpy()
        if precision not in (None, "float32"):
            rows = quantize_embeddings(rows, precision)
        if not convert_to_tensor and not convert_to_numpy:
            return list(torch.from_numpy(rows.copy()))
        return torch.from_numpy(rows.copy()) if convert_to_tensor else rows

    encode_query = encode
    encode_document = encode


def smooth(rows, dim):
    return np.round(rng.standard_normal((rows, dim)), 3).astype(np.float32)


def tied(rows, dim=8):
    """Four entries of +-1 each: norm 2, so dot products and cosines are exact and often equal."""
    out = np.zeros((rows, dim), dtype=np.float32)
    for row in out:
        row[rng.choice(dim, 4, replace=False)] = rng.choice([-1.0, 1.0], 4)
    return out


def record(kind, inputs, config, embeddings, evaluator, model):
    with tempfile.TemporaryDirectory() as folder:
        metrics = evaluator(model, output_path=folder, epoch=0.5, steps=20)
        files = {}
        for path in sorted(Path(folder).glob("*.csv")):
            with open(path, newline="") as file:
                header, row = list(csv.reader(file))
            files[path.name] = {"header": header, "row": [float(x) for x in row]}
    again = evaluator(model)
    assert list(metrics) == list(again)
    for key, value in metrics.items():
        assert value == again[key] or (math.isnan(value) and math.isnan(again[key]))
    assert evaluator.primary_metric in metrics
    cases.append(
        {
            "evaluator": kind,
            "config": config,
            "inputs": inputs,
            "embeddings": {k: tensor(v) for k, v in embeddings.items()},
            "metrics": {k: float(v) for k, v in metrics.items()},
            # Of the first cases only: the others' would say nothing new.
            "csv": files if sum(c["evaluator"] == kind for c in cases) < 3 or config.get("precision") else {},
            "primary_metric": evaluator.primary_metric,
            "trainer_keys": {k: (k if k.startswith("eval_") else f"eval_{k}") for k in metrics},
            "greater_is_better": evaluator.greater_is_better,
        }
    )


# --- InformationRetrievalEvaluator

IR_DEFAULT = {
    "name": "",
    "mrr_at_k": [10],
    "ndcg_at_k": [10],
    "accuracy_at_k": [1, 3, 5, 10],
    "precision_recall_at_k": [1, 3, 5, 10],
    "map_at_k": [100],
    "score_functions": None,
    "main_score_function": None,
    "truncate_dim": None,
    "corpus_chunk_size": 50000,
}
SCORE = {"cosine": cos_sim, "dot": dot_score}


def retrieval(draw, dim, changes, similarity_fn_name="cosine"):
    query_ids = [f"q{i}" for i in range(20)]
    # Insertion order differs from the order of the ids, which matters when scores tie.
    doc_ids = [f"d{i}" for i in rng.permutation(40)]
    queries, docs = draw(20, dim), draw(40, dim)
    relevant = {q: sorted({f"d{d}" for d in rng.choice(40, rng.integers(1, 6), replace=False)}) for q in query_ids}
    if draw is smooth:
        # Pull relevant documents towards their query, or the metrics would be near zero.
        for i, q in enumerate(query_ids):
            for d in relevant[q]:
                docs[doc_ids.index(d)] = np.round(docs[doc_ids.index(d)] + 0.8 * queries[i], 3)
    relevant["q3"] = ["x1", "x2"]  # relevant ids that the corpus does not hold: the query counts, with zeros
    relevant["q4"].append("x3")  # one of several is missing: it still counts in recall and ndcg
    relevant["q5"] = []  # no relevant ids: the query is left out
    del relevant["q6"]  # not mentioned: left out as well
    relevant["q7"] = sorted(doc_ids)[:14]  # more relevant documents than k
    table = {f"text of {q}": queries[i] for i, q in enumerate(query_ids)}
    table |= {f"text of {d}": docs[i] for i, d in enumerate(doc_ids)}
    model = Stub(table, similarity_fn_name)
    for change in changes:
        config = {**IR_DEFAULT, **change}
        arguments = dict(config)
        if config["score_functions"] is not None:
            arguments["score_functions"] = {n: SCORE[n] for n in config["score_functions"]}
        evaluator = InformationRetrievalEvaluator(
            {q: f"text of {q}" for q in query_ids},
            {d: f"text of {d}" for d in doc_ids},
            {q: set(ids) for q, ids in relevant.items()},
            **arguments,
        )
        inputs = {"query_ids": query_ids, "corpus_ids": doc_ids, "relevant_docs": relevant}
        config = {**config, "similarity_fn_name": similarity_fn_name}
        record("InformationRetrievalEvaluator", inputs, config, {"queries": queries, "corpus": docs}, evaluator, model)


# --- EmbeddingSimilarityEvaluator and TripletEvaluator

ALL = ["cosine", "manhattan", "euclidean", "dot"]
PAIRWISE = {
    "cosine": pairwise_cos_sim,
    "manhattan": pairwise_manhattan_sim,
    "euclidean": pairwise_euclidean_sim,
    "dot": pairwise_dot_score,
}


def spread(first, second):
    """The smallest gap between two similarities of any kind: above rounding, so that ranks do not hang on it."""
    a, b = torch.from_numpy(first), torch.from_numpy(second)
    return min(PAIRWISE[name](a, b).sort().values.diff().min().item() for name in ALL)


def similarity(draw, dim, gold, changes, similarity_fn_name="cosine", constant=False):
    rows = len(gold)
    while True:
        first, second = draw(rows, dim), draw(rows, dim)
        if constant:
            first[:], second[:] = first[0], second[0]
        elif draw is smooth:
            for i, score in enumerate(gold):
                second[i] = np.round(second[i] + 2.0 * score * first[i], 3)
        if constant or draw is tied or min(spread(first, second), spread(first[:, :3], second[:, :3])) > 2e-5:
            break
    table = {f"a{i}": v for i, v in enumerate(first)} | {f"b{i}": v for i, v in enumerate(second)}
    model = Stub(table, similarity_fn_name)
    for change in changes:
        config = {"name": "", "main_similarity": None, "similarity_fn_names": None, "truncate_dim": None, **change}
        arguments = {k: list(v) if isinstance(v, list) else v for k, v in config.items()}
        evaluator = EmbeddingSimilarityEvaluator(
            [f"a{i}" for i in range(rows)], [f"b{i}" for i in range(rows)], gold, **arguments
        )
        config = {**config, "similarity_fn_name": similarity_fn_name}
        record("EmbeddingSimilarityEvaluator", {"scores": gold}, config, {"sentences1": first, "sentences2": second}, evaluator, model)


def triplets(draw, dim, changes, similarity_fn_name="cosine"):
    rows = 30
    anchors, positives, negatives = draw(rows, dim), draw(rows, dim), draw(rows, dim)
    if draw is smooth:
        positives = np.round(positives + 0.6 * anchors, 3).astype(np.float32)
    negatives[4] = positives[4]  # equal scores are not a success
    table = {f"a{i}": v for i, v in enumerate(anchors)}
    table |= {f"p{i}": v for i, v in enumerate(positives)} | {f"n{i}": v for i, v in enumerate(negatives)}
    model = Stub(table, similarity_fn_name)
    for change in changes:
        config = {"name": "", "main_similarity_function": None, "margin": None, "similarity_fn_names": None, "truncate_dim": None, **change}
        arguments = {k: list(v) if isinstance(v, list) else v for k, v in config.items()}
        evaluator = TripletEvaluator(
            *[[f"{c}{i}" for i in range(rows)] for c in "apn"], **arguments
        )
        config = {**config, "similarity_fn_name": similarity_fn_name}
        record("TripletEvaluator", {}, config, {"anchors": anchors, "positives": positives, "negatives": negatives}, evaluator, model)


# --- the evaluators of labelled pairs, lists, translations, teachers, paraphrases, several data sets


def arguments_of(config):
    return {k: list(v) if isinstance(v, list) else v for k, v in config.items()}


def labelled(draw, dim, labels, changes, similarity_fn_name="cosine"):
    rows = len(labels)
    while True:
        first, second = draw(rows, dim), draw(rows, dim)
        if draw is smooth:
            for i, label in enumerate(labels):
                second[i] = np.round(second[i] + (0.8 if label else 0.1) * first[i], 3)
        if draw is tied or min(spread(first, second), spread(first[:, :3], second[:, :3])) > 2e-5:
            break
    table = {f"a{i}": v for i, v in enumerate(first)} | {f"b{i}": v for i, v in enumerate(second)}
    for change in changes:
        config = {"name": "", "similarity_fn_names": None, "truncate_dim": None, **change}
        evaluator = BinaryClassificationEvaluator(
            [f"a{i}" for i in range(rows)], [f"b{i}" for i in range(rows)], labels, **arguments_of(config)
        )
        config = {**config, "similarity_fn_name": similarity_fn_name}
        inputs = {"labels": labels}
        record("BinaryClassificationEvaluator", inputs, config, {"sentences1": first, "sentences2": second}, evaluator, Stub(table, similarity_fn_name))


def reranking(draw, dim, changes):
    counts = [(1, 4), (3, 9), (2, 2), (0, 3), (5, 1), (2, 0), (1, 12)]  # lists that miss a side are left out
    queries, docs = draw(len(counts), dim), draw(sum(map(sum, counts)), dim)
    start = 0
    samples = []
    for i, (pos, neg) in enumerate(counts):
        names = [f"d{j}" for j in range(start, start + pos + neg)]
        if draw is smooth:
            docs[start : start + pos] = np.round(docs[start : start + pos] + 0.7 * queries[i], 3)
        elif pos and neg > 1:
            # Ties among negatives and behind the first hit only: the reference's sort leaves the rest open.
            docs[start] = queries[i]
            docs[start + pos + 1] = docs[start + pos]
            docs[start + pos - 1] = docs[start + pos] if pos > 1 else docs[start + pos - 1]
        samples.append({"query": f"q{i}", "positive": names[:pos], "negative": names[pos:]})
        start += pos + neg
    table = {f"q{i}": v for i, v in enumerate(queries)} | {f"d{i}": v for i, v in enumerate(docs)}
    for change in changes:
        config = {"name": "", "at_k": 10, "similarity_fct": "cosine", "truncate_dim": None, **change}
        arguments = {**config, "similarity_fct": SimilarityFunction.to_similarity_fn(config["similarity_fct"])}
        evaluator = RerankingEvaluator(samples, **arguments)
        config = {**config, "similarity_fn_name": "cosine"}
        record("RerankingEvaluator", {"counts": counts}, config, {"queries": queries, "documents": docs}, evaluator, Stub(table))


def translation(draw, dim, changes):
    rows = 24
    sources, targets = draw(rows, dim), draw(rows, dim)
    if draw is smooth:
        targets = np.round(targets + 1.2 * sources, 3).astype(np.float32)
    sources[7], targets[9] = sources[3], targets[2]  # of equal sentences the first is found, and is right by its text
    names = [[f"{c}{i}" for i in range(rows)] for c in "st"]
    names[0][7], names[1][9] = names[0][3], names[1][2]
    table = dict(zip(names[0], sources)) | dict(zip(names[1], targets))
    for change in changes:
        config = {"name": "", "truncate_dim": None, **change}
        evaluator = TranslationEvaluator(*names, **config)
        inputs = {"names": names}
        config = {**config, "similarity_fn_name": "cosine"}
        record("TranslationEvaluator", inputs, config, {"sources": sources, "targets": targets}, evaluator, Stub(table))


def mse(draw, dim, changes, teacher_dim=None):
    rows = 12
    teacher, student = draw(rows, teacher_dim or dim), draw(rows, dim)
    names = [f"s{i}" for i in range(rows)]
    for change in changes:
        config = {"name": "", "truncate_dim": None, **change}
        evaluator = MSEEvaluator(names, names, teacher_model=Stub(dict(zip(names, teacher))), **config)
        config = {**config, "similarity_fn_name": "cosine"}
        record("MSEEvaluator", {}, config, {"sentences": student, "teacher": teacher}, evaluator, Stub(dict(zip(names, student))))


def mining(draw, dim, pairs, changes):
    rows = 30
    embeddings = draw(rows, dim)
    if draw is smooth:
        for a, b in pairs:
            embeddings[b] = np.round(0.4 * embeddings[b] + embeddings[a], 3)
    ids = [f"i{i}" for i in rng.permutation(rows)]
    duplicates = [(ids[a], ids[b]) for a, b in pairs] + [("i1", "nobody")]
    table = {f"text of {i}": v for i, v in zip(ids, embeddings)}
    for change in changes:
        config = {"name": "", "add_transitive_closure": False, "max_pairs": 500000, "top_k": 100, "query_chunk_size": 5000, "corpus_chunk_size": 100000, "truncate_dim": None, **change}
        evaluator = ParaphraseMiningEvaluator({i: f"text of {i}" for i in ids}, duplicates_list=duplicates, **config)
        config = {**config, "similarity_fn_name": "cosine"}
        inputs = {"ids": ids, "duplicates": duplicates}
        record("ParaphraseMiningEvaluator", inputs, config, {"sentences": embeddings}, evaluator, Stub(table))


def nano(changes):
    """The evaluator as it is, but for where the data comes from: three data sets instead of the Hub."""
    names = ["NanoNFCorpus", "NanoMSMARCO", "NanoSciFact"]
    table, data = {}, {}
    for name in names:
        queries, docs = smooth(4, 5), smooth(12, 5)
        relevant = {f"q{i}": [f"d{3 * i}", f"d{3 * i + 1}"][: i % 2 + 1] for i in range(4)}
        for i in range(4):
            docs[3 * i] = np.round(docs[3 * i] + 0.7 * queries[i], 3)
        data[name] = {"queries": queries, "docs": docs, "relevant": relevant}
        table |= {f"{name} q{i}": v for i, v in enumerate(queries)} | {f"{name} d{i}": v for i, v in enumerate(docs)}

    class Local(NanoBEIREvaluator):
        def _load_dataset_subset_split(self, subset, split, required_columns):
            if subset == "qrels":
                return [{"query-id": q, "corpus-id": d} for q, ids in data[split]["relevant"].items() for d in ids]
            letter, count = ("d", 12) if subset == "corpus" else ("q", 4)
            return [{"_id": f"{letter}{i}", "text": f"{split} {letter}{i}"} for i in range(count)]

    for change, model in changes:
        config = {**{k: v for k, v in IR_DEFAULT.items() if k not in ("name", "corpus_chunk_size")}, "dataset_names": ["msmarco", "NFCorpus", "scifact"], "aggregate_key": "mean", **change}
        arguments = arguments_of(config)
        if config["score_functions"] is not None:
            arguments["score_functions"] = {n: SCORE[n] for n in config["score_functions"]}
        evaluator = Local(**arguments)
        config = {**config, "similarity_fn_name": model}
        embeddings = {f"{n} {k}": data[n][k] for n in names for k in ("queries", "docs")}
        inputs = {"names": names, "relevant": {n: data[n]["relevant"] for n in names}}
        record("NanoBEIREvaluator", inputs, config, embeddings, evaluator, Stub(table, model))


def others():
    mixed = [int(x) for x in rng.integers(0, 2, 24)]
    changes = [
        {},
        {"name": "dev"},
        {"similarity_fn_names": ALL},
        {"similarity_fn_names": ALL, "truncate_dim": 3, "name": "dev"},
        {"similarity_fn_names": ["euclidean"]},
    ]
    labelled(smooth, 6, mixed, changes)
    labelled(tied, 8, mixed, [{"similarity_fn_names": ALL}, {}])
    labelled(smooth, 6, mixed, [{}], similarity_fn_name="manhattan")
    labelled(smooth, 5, [0] * 8, [{"similarity_fn_names": ALL}])  # labels of one kind only
    labelled(smooth, 5, [1] * 8, [{"similarity_fn_names": ALL}])
    reranking(smooth, 6, [{}, {"name": "dev", "at_k": 3}, {"similarity_fct": "dot", "truncate_dim": 4}, {"similarity_fct": "euclidean"}])
    reranking(tied, 8, [{}, {"at_k": 2, "similarity_fct": "dot"}])
    translation(smooth, 6, [{}, {"name": "de-en"}, {"truncate_dim": 3}])
    mse(smooth, 6, [{}, {"name": "dev"}, {"truncate_dim": 3}])
    mse(smooth, 6, [{"truncate_dim": 4}], teacher_dim=9)
    pairs = [(0, 1), (1, 2), (4, 5), (8, 20), (20, 21), (11, 12), (14, 29)]
    changes = [{}, {"name": "dev", "add_transitive_closure": True}, {"max_pairs": 20}, {"top_k": 2}, {"truncate_dim": 3}]
    mining(smooth, 6, pairs, changes)
    mining(smooth, 6, pairs, [{"query_chunk_size": 7, "corpus_chunk_size": 11, "top_k": 3}])
    mining(tied, 8, pairs, [{}, {"add_transitive_closure": True}])
    both = {"score_functions": ["cosine", "dot"]}
    nano([({}, "cosine"), (both, "cosine"), ({"truncate_dim": 3}, "dot"), ({**both, "main_score_function": "dot", "aggregate_key": "avg"}, "cosine")])


def bits_tell(gold, first, second):
    """Cosines of bits that are equal come apart in float32; the pairs are such that it does not matter."""
    for dim in [9, first.shape[1]]:
        bits = [np.pad((x[:, :dim] > 0).astype(np.float64), ((0, 0), (0, -dim % 8))) for x in (first, second)]
        exact = (bits[0] * bits[1]).sum(1) / np.sqrt((bits[0].sum(1) * bits[1].sum(1)))
        in_f32 = pairwise_cos_sim(*[torch.from_numpy(b.astype(np.float32)) for b in bits]).numpy()
        if abs(spearmanr(gold, exact.astype(np.float32))[0] - spearmanr(gold, in_f32)[0]) > 1e-9:
            return False
    return True


def precisions():
    while True:
        gold = [round(float(x), 3) for x in rng.uniform(0, 1, 14)]
        first, second = smooth(14, 43), smooth(14, 43)
        second = np.round(second + 0.7 * first, 3).astype(np.float32)
        if bits_tell(gold, first, second):
            break
    table = {f"a{i}": v for i, v in enumerate(first)} | {f"b{i}": v for i, v in enumerate(second)}
    names = [[f"{c}{i}" for i in range(14)] for c in "ab"]
    for precision in ["float32", "int8", "uint8", "binary", "ubinary"]:
        for change in [{}, {"similarity_fn_names": ALL, "name": "dev", "truncate_dim": 9}]:
            config = {
                "name": "", "main_similarity": None, "similarity_fn_names": None, "truncate_dim": None,
                "precision": precision, **change,
            }
            evaluator = EmbeddingSimilarityEvaluator(*names, gold, **arguments_of(config))
            config = {**config, "similarity_fn_name": "cosine"}
            embeddings = {"sentences1": first, "sentences2": second}
            record("EmbeddingSimilarityEvaluator", {"scores": gold}, config, embeddings, evaluator, Stub(table))


class Encoder(torch.nn.Module):
    """A model that gives back what it is given."""

    model_card_data = Card()
    similarity_fn_name = "cosine"
    device = torch.device("cpu")
    smart_batching_collate = None

    def forward(self, features):
        return {"sentence_embedding": features["x"]}


class Loader(list):
    collate_fn = None


def label_accuracy():
    rows, dim, classes = 40, 6, 4
    for parts, name in [({}, ""), ({"concatenation_sent_multiplication": True}, "nli"), ({"concatenation_sent_rep": False}, "")]:
        first, second = smooth(rows, dim), smooth(rows, dim)
        labels = rng.integers(0, classes, rows)
        torch.manual_seed(int(labels.sum()))
        model = Encoder()
        loss = SoftmaxLoss(model, sentence_embedding_dimension=dim, num_labels=classes, **parts)
        batches = Loader(
            ([{"x": torch.from_numpy(side[i : i + 16])} for side in (first, second)], torch.from_numpy(labels[i : i + 16]))
            for i in range(0, rows, 16)
        )
        evaluator = LabelAccuracyEvaluator(Loader(([dict(f) for f in fs], ls) for fs, ls in batches), name, loss)
        config = {"name": name, "similarity_fn_name": "cosine"}
        inputs = {
            "labels": labels.tolist(), "loss": {"num_labels": classes, **parts},
            "weight": tensor(loss.classifier.weight), "bias": tensor(loss.classifier.bias),
        }
        record("LabelAccuracyEvaluator", inputs, config, {"sentences1": first, "sentences2": second}, evaluator, model)


def frames():
    rows, dim = 15, 6
    languages = {language: smooth(rows, dim) for language in ["en", "es", "fr"]}
    teacher = smooth(rows, dim)
    frame = [{language: f"{language} {i}" for language in languages} for i in range(rows)]
    frame[3]["es"], frame[8]["fr"], frame[9]["fr"] = " ", "", ""
    table = {f"{language} {i}": v for language, rows in languages.items() for i, v in enumerate(rows)}
    learner, master = Stub(table), Stub({f"en {i}": v for i, v in enumerate(teacher)})
    learner.eval = lambda: None
    for change in [{}, {"name": "dev", "truncate_dim": 4}, {"combinations": [("en", "fr")]}]:
        config = {"name": "", "combinations": [("en", "es"), ("en", "fr")], "truncate_dim": None, **change}
        evaluator = MSEEvaluatorFromDataFrame(frame, teacher_model=master, **arguments_of(config))
        config = {**config, "similarity_fn_name": "cosine"}
        kept = {target: [i for i in range(rows) if frame[i][target].strip()] for target in ["es", "fr"]}
        record("MSEEvaluatorFromDataFrame", {"rows": kept}, config, {**languages, "teacher": teacher}, evaluator, learner)


def main():
    both = ["cosine", "dot"]
    custom = {
        "mrr_at_k": [1, 5, 10],
        "ndcg_at_k": [3, 10],
        "accuracy_at_k": [1, 2],
        "precision_recall_at_k": [2, 7],
        "map_at_k": [5, 20],
    }
    changes = [
        {},
        {"name": "dev"},
        {"score_functions": both},
        {"score_functions": both, "name": "dev", "main_score_function": "dot"},
        {"score_functions": both, "name": "dev", **custom},
        {"score_functions": both, "corpus_chunk_size": 7},
        {"truncate_dim": 3, "score_functions": both},
    ]
    retrieval(smooth, 6, changes)
    retrieval(smooth, 7, [{}, {"name": "dev"}], similarity_fn_name="dot")
    ties = [{"score_functions": both}, {"score_functions": both, "name": "dev", **custom}, {"score_functions": both, "corpus_chunk_size": 7}]
    retrieval(tied, 8, ties)

    plain = [round(float(x), 3) for x in rng.uniform(0, 1, 25)]
    with_ties = [round(float(x) * 5) / 5 for x in rng.uniform(0, 1, 40)]
    changes = [
        {},
        {"name": "dev"},
        {"similarity_fn_names": ALL},
        {"similarity_fn_names": ALL, "main_similarity": "dot", "name": "sts-dev"},
        {"main_similarity": "euclidean"},
        {"main_similarity": "manhattan", "name": "dev"},
        {"similarity_fn_names": ALL, "truncate_dim": 3, "name": "dev"},
    ]
    similarity(smooth, 6, plain, changes)
    similarity(smooth, 6, with_ties, [{"similarity_fn_names": ALL}])
    similarity(tied, 8, with_ties, [{"similarity_fn_names": ALL}, {"similarity_fn_names": ["dot"], "name": "dev"}])
    similarity(smooth, 6, plain, [{}], similarity_fn_name="dot")
    similarity(smooth, 6, plain, [{}], similarity_fn_name="manhattan")
    similarity(smooth, 6, [0.0, 1.0], [{}])
    similarity(smooth, 6, plain, [{}], constant=True)  # no variance: not a number
    similarity(smooth, 6, [0.5] * 10, [{}])

    changes = [
        {},
        {"name": "dev"},
        {"similarity_fn_names": ALL},
        {"similarity_fn_names": ["cosine", "dot", "euclidean", "manhattan"], "name": "dev", "main_similarity_function": "dot"},
        {"main_similarity_function": "euclidean"},
        {"similarity_fn_names": ALL, "margin": 0.1},
        {"similarity_fn_names": ALL, "margin": {"cosine": 0.2, "manhattan": 1.5}},
        {"similarity_fn_names": ALL, "truncate_dim": 3, "name": "dev"},
    ]
    triplets(smooth, 6, changes)
    triplets(tied, 8, [{"similarity_fn_names": ALL}])
    triplets(smooth, 6, [{}], similarity_fn_name="dot")
    others()
    precisions()
    label_accuracy()
    frames()
    write("evaluators.json", {"about": versions(), "cases": cases})
    for c in cases:
        print(c["evaluator"][:12], c["config"].get("name"), c["primary_metric"], {k: round(v, 4) for k, v in list(c["metrics"].items())[:6]})


if __name__ == "__main__":
    main()
