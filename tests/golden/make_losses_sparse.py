"""losses_sparse.json: the losses of a SparseEncoder with their own defaults, and SpladeLoss with FlopsLoss; as losses.json.

Embeddings are as SPLADE's: no value is negative, and many are 0.
"""

import make_losses
from common import torch, versions, write
from make_losses import Stub, draw, from_embeddings, labels_of, record

from sentence_transformers.sparse_encoder import losses
from sentence_transformers.sparse_encoder.losses import splade as splade_module

# embeddings are given, not computed
splade_module.embed_columns = lambda model, columns, separate_first: list(columns)

# in float32, as the trainer delivers them
SCORES = labels_of([0.9, 0.1, 0.4, 0.4, 0.7]).float().double()


def columns(count, batch=5, dim=8):
    return [torch.relu(draw(batch, dim, 1.0) - 0.1) for _ in range(count)]


def single():
    """Each class with its defaults, then with other settings."""
    plain = [
        ("SparseMultipleNegativesRankingLoss", 2, None, [{}, {"scale": 3.0}]),
        ("SparseMultipleNegativesRankingLoss", 4, None, [{}]),
        ("SparseTripletLoss", 3, None, [{}, {"triplet_margin": 1.0}]),
        ("SparseTripletLoss", 3, None, [{}]),
        ("SparseCoSENTLoss", 2, SCORES, [{}, {"scale": 5.0}]),
        ("SparseCoSENTLoss", 2, SCORES, [{}]),
        ("SparseAnglELoss", 2, SCORES, [{}, {"scale": 5.0}]),
        ("SparseAnglELoss", 2, SCORES, [{}]),
        ("SparseCosineSimilarityLoss", 2, SCORES, [{}]),
        ("SparseCosineSimilarityLoss", 2, 1 - SCORES, [{}]),
        ("SparseCosineSimilarityLoss", 2, SCORES * 0, [{}]),
        ("SparseMSELoss", 1, draw(5, 8), [{}]),
        ("SparseMSELoss", 2, draw(5, 8), [{}]),
        ("SparseMSELoss", 1, torch.relu(draw(5, 8)), [{}]),
        ("SparseMarginMSELoss", 3, labels_of([1.5, -0.5, 0.2, 3.0, 0.0]), [{}]),
        ("SparseMarginMSELoss", 4, draw(5, 2), [{}]),
        ("SparseMarginMSELoss", 4, draw(5, 3), [{}]),
        ("SparseDistillKLDivLoss", 3, draw(5, 2), [{}, {"temperature": 1.0}]),
        ("SparseDistillKLDivLoss", 5, draw(5, 4), [{}]),
    ]
    for name, count, labels, settings in plain:
        for config in settings:
            instance = getattr(losses, name)(Stub(dim=8), **config)
            exact = None if labels is None else labels.float().double()
            run = from_embeddings(instance)
            if name == "SparseMSELoss":
                # one teacher for all columns
                run = lambda leaves, labels, run=run: run(leaves, [labels] * len(leaves))
            record(name, config, columns(count), exact, run)


def splade():
    """The regulariser in full: of documents, of queries, with a threshold, and of all columns."""
    inner = [
        ("SparseMultipleNegativesRankingLoss", 2, None, {"query_regularizer_weight": 0.05}),
        ("SparseMultipleNegativesRankingLoss", 3, None, {}),
        ("SparseMultipleNegativesRankingLoss", 3, None, {"query_regularizer_weight": 0.2, "document_regularizer_threshold": 4}),
        ("SparseMarginMSELoss", 3, labels_of([1.5, -0.5, 0.25, 3.0, 0.0]), {"query_regularizer_weight": 0.05, "query_regularizer_threshold": 5}),
        ("SparseCoSENTLoss", 2, SCORES, {"use_document_regularizer_only": True}),
    ]
    for name, count, labels, more in inner:
        config = {"document_regularizer_weight": 0.03, **more}
        instance = losses.SpladeLoss(Stub(dim=8), getattr(losses, name)(Stub(dim=8)), **config)

        def run(leaves, labels, instance=instance):
            return sum(instance(leaves, labels).values())

        table = {**config, "loss": name, "loss_config": {}}
        shared = columns(count)
        record("SpladeLoss", table, shared, labels, run)
        if name == "SparseMultipleNegativesRankingLoss":
            record("CachedSpladeLoss", {**table, "mini_batch_size": 2}, shared, labels, run)


def main():
    make_losses.cases.clear()
    single()
    splade()
    write("losses_sparse.json", {"about": versions(), "cases": make_losses.cases})


if __name__ == "__main__":
    main()
