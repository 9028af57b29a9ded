"""losses.json: value and embedding gradients of the loss functions, float64, from the library's own classes."""

import random

from common import tensor, torch, versions, write

from sentence_transformers.sentence_transformer.losses import (
    CoSENTLoss,
    CosineSimilarityLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
    TripletDistanceMetric,
    TripletLoss,
)
from sentence_transformers.util import cos_sim, dot_score

cases = []
generator = torch.Generator().manual_seed(41)
SIMILARITY = {"cos_sim": cos_sim, "dot_score": dot_score}
DISTANCE = {
    "cosine": TripletDistanceMetric.COSINE,
    "euclidean": TripletDistanceMetric.EUCLIDEAN,
    "manhattan": TripletDistanceMetric.MANHATTAN,
}


class Stub(torch.nn.Module):
    """Stands in for a model: its forward looks up the given embeddings by column number."""

    def __init__(self, columns=(), dim=None):
        super().__init__()
        self.columns = columns
        self.dim = dim

    def forward(self, features):
        return {"sentence_embedding": self.columns[features["column"]]}

    def get_embedding_dimension(self):
        return self.dim


def draw(rows, dim, scale=0.6):
    return torch.round(torch.randn(rows, dim, generator=generator, dtype=torch.float64) * scale * 1000) / 1000


def columns(count, batch, dim=4):
    """Positives lie near their anchors, so that losses are neither zero nor saturated."""
    anchor = draw(batch, dim)
    return [anchor] + [torch.round((0.5 * anchor + draw(batch, dim)) * 1000) / 1000 for _ in range(count - 1)]


def record(loss, config, embeddings, labels, run):
    leaves = [e.clone().requires_grad_(True) for e in embeddings]
    value = run(leaves, labels)
    assert value.dtype == torch.float64 and torch.isfinite(value), (loss, config)
    value.backward()
    assert all(torch.isfinite(e.grad).all() for e in leaves), (loss, config)
    cases.append(
        {
            "loss": loss,
            "config": config,
            "embeddings": [tensor(e) for e in embeddings],
            "labels": None if labels is None else tensor(labels),
            "value": value.item(),
            "grads": [tensor(e.grad) for e in leaves],
        }
    )


def from_embeddings(instance):
    return lambda leaves, labels: instance.compute_loss_from_embeddings(leaves, labels)


# --- MultipleNegativesRankingLoss

MNRL_DEFAULT = {
    "scale": 20.0,
    "similarity_fct": "cos_sim",
    "directions": ["query_to_doc"],
    "partition_mode": "joint",
    "hardness_mode": None,
    "hardness_strength": 0.0,
}


def mnrl(embeddings, **change):
    config = {**MNRL_DEFAULT, **change}
    arguments = dict(config)
    arguments["similarity_fct"] = SIMILARITY[config["similarity_fct"]]
    arguments["directions"] = tuple(config["directions"])
    instance = MultipleNegativesRankingLoss(Stub(), **arguments)
    record("MultipleNegativesRankingLoss", config, embeddings, None, from_embeddings(instance))


def ranking():
    for count in (2, 3, 5):
        for batch in (1, 4, 7):
            shared = columns(count, batch)
            for scale in (20.0, 1.0):
                for similarity in SIMILARITY:
                    mnrl(shared, scale=scale, similarity_fct=similarity)
    others = ["query_to_query", "doc_to_query", "doc_to_doc"]
    subsets = [[o for i, o in enumerate(others) if bits >> i & 1] for bits in range(1, 8)]
    for count in (2, 3, 5):
        for batch in (1, 4):
            shared = columns(count, batch)
            for extra in subsets:
                mnrl(shared, directions=["query_to_doc", *extra])
            mnrl(shared, directions=["query_to_doc"], partition_mode="per_direction")
            mnrl(shared, directions=["query_to_doc", "doc_to_query"], partition_mode="per_direction")
    shared = columns(3, 7)
    mnrl(shared, directions=["query_to_doc", *others], scale=1.0, similarity_fct="dot_score")
    mnrl(shared, directions=["query_to_doc", "doc_to_query"], partition_mode="per_direction", scale=1.0, similarity_fct="dot_score")
    # The order in which the directions are named does not matter.
    mnrl(shared, directions=["doc_to_doc", "query_to_doc"])
    for count in (2, 3, 5):
        shared = columns(count, 4)
        for mode in ("in_batch_negatives", "hard_negatives", "all_negatives"):
            for strength in (0.0, 5.0, 9.0):
                mnrl(shared, hardness_mode=mode, hardness_strength=strength)
    for mode in ("in_batch_negatives", "hard_negatives", "all_negatives"):
        mnrl(columns(3, 1), hardness_mode=mode, hardness_strength=5.0)
        shared = columns(3, 4)
        mnrl(shared, hardness_mode=mode, hardness_strength=9.0, directions=["query_to_doc", *others])
        mnrl(shared, hardness_mode=mode, hardness_strength=5.0, directions=["query_to_doc", "doc_to_query"], partition_mode="per_direction")
        mnrl(shared, hardness_mode=mode, hardness_strength=2.0, similarity_fct="dot_score", scale=1.0)
    # A strength without a mode changes nothing.
    mnrl(columns(3, 4), hardness_mode=None, hardness_strength=9.0)
    # A zero embedding: the normalised row stays zero.
    shared = columns(2, 4)
    shared[1][2] = 0.0
    mnrl(shared)


# --- losses with labels

TIES = [0.8, 0.2, 0.2, 0.5, 0.8, 0.0, 1.0]


def labels_of(values):
    """Labels reach a loss as float32; the stored float64 numbers are exactly those."""
    return torch.tensor(values, dtype=torch.float32).double()


def cosent(embeddings, values, scale):
    instance = CoSENTLoss(Stub(), scale=scale)
    record("CoSENTLoss", {"scale": scale}, embeddings, labels_of(values), from_embeddings(instance))


def labelled():
    shared = columns(2, 7)
    for scale in (20.0, 5.0, 1.0, 100.0):
        cosent(shared, TIES, scale)
    cosent(shared, [0.5] * 7, 20.0)
    cosent(shared, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 20.0)
    cosent(shared, [-1.0, 3.0, 2.0, 5.0, -1.0, 0.0, 1.0], 20.0)
    cosent(columns(2, 1), [0.7], 20.0)
    cosent(columns(2, 2), [0.3, 0.7], 20.0)
    cosent(columns(2, 2), [0.7, 0.7], 20.0)
    for batch, values in ((7, TIES), (1, [0.7]), (4, [0.0, 1.0, -0.5, 0.25])):
        instance = CosineSimilarityLoss(Stub())
        record("CosineSimilarityLoss", {}, columns(2, batch), labels_of(values), from_embeddings(instance))


def triplet():
    for metric in DISTANCE:
        for margin in (5.0, 0.5, 0.1):
            for batch in (1, 4, 7):
                instance = TripletLoss(Stub(), distance_metric=DISTANCE[metric], triplet_margin=margin)
                record("TripletLoss", {"distance_metric": metric, "triplet_margin": margin}, columns(3, batch), None, from_embeddings(instance))
        # Anchor equal to its positive in one row: the distance is zero there.
        shared = columns(3, 4)
        shared[1][2] = shared[0][2]
        instance = TripletLoss(Stub(), distance_metric=DISTANCE[metric], triplet_margin=5.0)
        record("TripletLoss", {"distance_metric": metric, "triplet_margin": 5.0}, shared, None, from_embeddings(instance))


# --- MatryoshkaLoss around another loss


def matryoshka(inner, inner_config, build, embeddings, labels, dims, weights):
    dim = embeddings[0].shape[1]

    def run(leaves, values):
        model = Stub(leaves, dim)
        loss = MatryoshkaLoss(model, build(model), dims, weights)
        return loss([{"column": i} for i in range(len(leaves))], values)

    config = {"loss": inner, "loss_config": inner_config, "matryoshka_dims": dims, "matryoshka_weights": weights}
    record("MatryoshkaLoss", config, embeddings, labels, run)


def nested():
    choices = [([8, 4, 2], None), ([8, 4, 2], [1.0, 0.5, 0.25]), ([2, 8, 5], [0.3, 1.0, 2.0]), ([8], None), ([3], None)]
    for dims, weights in choices:
        for count, batch in ((2, 4), (3, 4)):
            matryoshka("MultipleNegativesRankingLoss", MNRL_DEFAULT, MultipleNegativesRankingLoss, columns(count, batch, 8), None, dims, weights)
        matryoshka("CoSENTLoss", {"scale": 20.0}, CoSENTLoss, columns(2, 7, 8), labels_of(TIES), dims, weights)
        matryoshka("CosineSimilarityLoss", {}, CosineSimilarityLoss, columns(2, 7, 8), labels_of(TIES), dims, weights)
    config = {"distance_metric": "euclidean", "triplet_margin": 5.0}
    matryoshka("TripletLoss", config, TripletLoss, columns(3, 4, 8), None, [8, 4, 2], None)
    # Dot products see the truncated embeddings after they were normalised again.
    config = {**MNRL_DEFAULT, "similarity_fct": "dot_score", "scale": 5.0}
    build = lambda model: MultipleNegativesRankingLoss(model, scale=5.0, similarity_fct=dot_score)
    matryoshka("MultipleNegativesRankingLoss", config, build, columns(2, 4, 8), None, [8, 4, 2], [1.0, 0.5, 0.25])


def main():
    random.seed(0)
    ranking()
    labelled()
    triplet()
    nested()
    counts = {}
    for c in cases:
        counts[c["loss"]] = counts.get(c["loss"], 0) + 1
    print(counts)
    write("losses.json", {"about": versions(), "cases": cases})


if __name__ == "__main__":
    main()
