"""losses_labels.json: the losses on classes, teacher's embeddings and scores, and further pairs; as losses.json."""

import make_losses
from common import torch, versions, write
from make_losses import Stub, columns, draw, from_embeddings, labels_of, record

from sentence_transformers.sentence_transformer.losses import (
    AnglELoss,
    BatchAllTripletLoss,
    BatchHardSoftMarginTripletLoss,
    BatchHardTripletLoss,
    BatchHardTripletLossDistanceFunction,
    BatchSemiHardTripletLoss,
    CachedMultipleNegativesRankingLoss,
    CachedMultipleNegativesSymmetricRankingLoss,
    ContrastiveLoss,
    DistillKLDivLoss,
    EmbedDistillLoss,
    GlobalOrthogonalRegularizationLoss,
    MarginMSELoss,
    MatryoshkaLoss,
    MegaBatchMarginLoss,
    MSELoss,
    MultipleNegativesSymmetricRankingLoss,
    OnlineContrastiveLoss,
)
from sentence_transformers.sentence_transformer.losses.contrastive import SiameseDistanceMetric
from sentence_transformers.util import cos_sim, dot_score, pairwise_cos_sim, pairwise_dot_score

MATRICES = {"cos_sim": cos_sim, "dot_score": dot_score}
PAIRWISE = {"pairwise_cos_sim": pairwise_cos_sim, "pairwise_dot_score": pairwise_dot_score}
PAIR_DISTANCE = {
    "SiameseDistanceMetric.COSINE_DISTANCE": SiameseDistanceMetric.COSINE_DISTANCE,
    "SiameseDistanceMetric.EUCLIDEAN": SiameseDistanceMetric.EUCLIDEAN,
    "SiameseDistanceMetric.MANHATTAN": SiameseDistanceMetric.MANHATTAN,
}
BATCH_DISTANCE = {
    "euclidean_distance": BatchHardTripletLossDistanceFunction.euclidean_distance,
    "cosine_distance": BatchHardTripletLossDistanceFunction.cosine_distance,
}


class Modules(Stub):
    """A stub that the cached losses can ask for its first module, which is no static embedding."""

    def __getitem__(self, index):
        return torch.nn.Identity()


def contrastive():
    mixed = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    soft = [1.0, 0.0, 0.3, 0.8, 0.5, 0.0, 1.0]
    shared = columns(2, 7)
    for name, metric in PAIR_DISTANCE.items():
        for margin in (0.5, 2.5):
            for average in (True, False):
                config = {"distance_metric": name, "margin": margin, "size_average": average}
                instance = ContrastiveLoss(Stub(), distance_metric=metric, margin=margin, size_average=average)
                record("ContrastiveLoss", config, shared, labels_of(soft if average else mixed), from_embeddings(instance))
            config = {"distance_metric": name, "margin": margin}
            for values in (mixed, [1.0] * 7, [0.0] * 7, soft, [0.5] * 7) if margin == 0.5 else (mixed,):
                instance = OnlineContrastiveLoss(Stub(), distance_metric=metric, margin=margin)
                record("OnlineContrastiveLoss", config, shared, labels_of(values), from_embeddings(instance))
        instance = OnlineContrastiveLoss(Stub(), distance_metric=metric, margin=margin)
        record("OnlineContrastiveLoss", config, columns(2, 1), labels_of([1.0]), from_embeddings(instance))
        # The two texts of a row are equal.
        same = columns(2, 4)
        same[1][2] = same[0][2]
        for values in ([1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 1.0]):
            config = {"distance_metric": name, "margin": 0.5}
            record("ContrastiveLoss", config, same, labels_of(values), from_embeddings(ContrastiveLoss(Stub(), distance_metric=metric)))
            record("OnlineContrastiveLoss", config, same, labels_of(values), from_embeddings(OnlineContrastiveLoss(Stub(), distance_metric=metric)))


def mined():
    """Classes in several distributions: balanced, ragged, one only, all different, a batch of one."""
    duplicate = columns(1, 6)
    duplicate[0][4] = duplicate[0][1]
    batches = [
        (columns(1, 8), [0, 1, 0, 1, 2, 2, 0, 1]),
        (columns(1, 7), [5, 5, 5, 5, -2, 9, 9]),
        (columns(1, 9, 5), [3, 1, 1, 3, 3, 3, 3, 1, 7]),
        (columns(1, 5), [4, 4, 4, 4, 4]),
        (columns(1, 5), [1, 2, 3, 4, 5]),
        (columns(1, 2), [0, 0]),
        (columns(1, 1), [3]),
        (duplicate, [0, 0, 1, 1, 0, 1]),
        (duplicate, [0, 0, 1, 1, 1, 0]),
    ]
    for embeddings, classes in batches:
        labels = torch.tensor(classes)
        for name, metric in BATCH_DISTANCE.items():
            for margin in (5.0, 0.4) if name == "euclidean_distance" else (0.4,):
                for kind in (BatchAllTripletLoss, BatchHardTripletLoss, BatchSemiHardTripletLoss):
                    instance = kind(Stub(), distance_metric=metric, margin=margin)
                    record(kind.__name__, {"distance_metric": name, "margin": margin}, embeddings, labels, from_embeddings(instance))
            instance = BatchHardSoftMarginTripletLoss(Stub(), distance_metric=metric)
            record("BatchHardSoftMarginTripletLoss", {"distance_metric": name}, embeddings, labels, from_embeddings(instance))


def angle():
    # In float32, as the trainer delivers them: 1 less a label may be another label there.
    ties = labels_of([0.8, 0.2, 0.2, 0.5, 0.8, 0.0, 1.0]).float()
    for scale in (20.0, 1.0):
        for dim in (4, 5):
            config = {"scale": scale}
            for count in (2, 3, 4):
                record("AnglELoss", config, columns(count, 7, dim), ties, from_embeddings(AnglELoss(Stub(), scale=scale)))
            for count in (3, 5):
                record("AnglELoss", config, columns(count, 4, dim), None, from_embeddings(AnglELoss(Stub(), scale=scale)))
            record("AnglELoss", config, columns(2, 1, dim), labels_of([0.7]), from_embeddings(AnglELoss(Stub(), scale=scale)))


def in_batch():
    for count, batch in ((2, 1), (2, 5), (4, 3)):
        shared = columns(count, batch)
        for name, similarity in MATRICES.items():
            config = {"scale": 5.0, "similarity_fct": name}
            instance = MultipleNegativesSymmetricRankingLoss(Stub(), scale=5.0, similarity_fct=similarity)
            record("MultipleNegativesSymmetricRankingLoss", config, shared, None, from_embeddings(instance))
            for kind in (CachedMultipleNegativesRankingLoss, CachedMultipleNegativesSymmetricRankingLoss):
                instance = kind(Modules(), scale=5.0, similarity_fct=similarity, mini_batch_size=2)
                run = lambda leaves, labels, instance=instance: instance.calculate_loss([[leaf] for leaf in leaves])
                record(kind.__name__, {**config, "mini_batch_size": 2}, shared, None, run)
    config = {"directions": ["query_to_doc", "doc_to_doc"], "hardness_mode": "hard_negatives", "hardness_strength": 5.0}
    arguments = {**config, "directions": tuple(config["directions"])}
    instance = CachedMultipleNegativesRankingLoss(Modules(), **arguments)
    run = lambda leaves, labels: instance.calculate_loss([[leaf] for leaf in leaves])
    record("CachedMultipleNegativesRankingLoss", config, columns(3, 4), None, run)
    for batch in (1, 2, 7):
        shared = columns(2, batch)
        for margins in ((0.8, 0.3), (0.95, -0.5)):
            for mini in (True, False):
                config = {"positive_margin": margins[0], "negative_margin": margins[1], "use_mini_batched_version": mini}
                instance = MegaBatchMarginLoss(Stub(), *margins, use_mini_batched_version=False)
                run = lambda leaves, labels, instance=instance: instance.calculate_loss([[leaf] for leaf in leaves])
                record("MegaBatchMarginLoss", config, shared, None, run)


def regularization():
    for name, similarity in MATRICES.items():
        for weights in ((1.0, 1.0), (0.5, 0.0), (0.0, 2.0)):
            for aggregation in ("mean", "sum"):
                config = {"similarity_fct": name, "mean_weight": weights[0], "second_moment_weight": weights[1], "aggregation": aggregation}
                instance = GlobalOrthogonalRegularizationLoss(Stub(), similarity, *weights, aggregation)
                run = lambda leaves, labels, instance=instance: sum(instance.compute_loss_from_embeddings(leaves).values())
                for count, batch in ((1, 1), (1, 5), (3, 4)) if weights[0] == 1.0 else ((2, 3),):
                    record("GlobalOrthogonalRegularizationLoss", config, columns(count, batch), None, run)


def forward(instance_of):
    """Losses that sort their labels in `forward`: the columns are looked up by a stub of a model."""

    def run(leaves, labels):
        return instance_of(Stub(leaves, leaves[0].shape[1]))([{"column": i} for i in range(len(leaves))], labels)

    return run


def distillation():
    for count, batch in ((1, 4), (2, 1), (3, 5)):
        shared = columns(count, batch)
        one = draw(batch, 4).float().double()
        each = draw(batch * count, 4).float().double().reshape(batch, count, 4)
        for labels in (one, each) if count > 1 else (one,):
            record("MSELoss", {}, shared, labels, forward(lambda model: MSELoss(model)))
            for metric in ("mse", "l2", "cosine"):
                build = lambda model, metric=metric: EmbedDistillLoss(model, distance_metric=metric)
                record("EmbedDistillLoss", {"distance_metric": metric}, shared, labels, forward(build))
    # The student has arrived in two rows; in numbers that every reader of JSON reads exactly.
    same = [torch.round(draw(3, 4) * 256) / 256]
    labels = same[0].clone()
    labels[0] += 0.5
    for metric in ("mse", "l2", "cosine"):
        build = lambda model, metric=metric: EmbedDistillLoss(model, distance_metric=metric)
        record("EmbedDistillLoss", {"distance_metric": metric}, same, labels, forward(build))
    for name, similarity in PAIRWISE.items():
        for count, batch in ((3, 1), (3, 4), (5, 3)):
            shared = columns(count, batch)
            widths = [count - 2, count - 1]
            for width in widths:
                labels = draw(batch, width, 2.0).float().double()
                record("MarginMSELoss", {"similarity_fct": name}, shared, labels, from_embeddings(MarginMSELoss(Stub(), similarity)))
            if count == 3:
                labels = labels_of([0.5, -1.0, 3.0, 0.0][:batch])
                record("MarginMSELoss", {"similarity_fct": name}, shared, labels, from_embeddings(MarginMSELoss(Stub(), similarity)))
            labels = draw(batch, count - 1, 2.0).float().double()
            for temperatures in ({"temperature": 1.0}, {"temperature": 2.0}, {"temperature": 2.0, "student_temperature": 0.5, "teacher_temperature": 3.0}):
                config = {"similarity_fct": name, **temperatures}
                record("DistillKLDivLoss", config, shared, labels, from_embeddings(DistillKLDivLoss(Stub(), similarity, **temperatures)))
    # A score of minus infinity leaves a document out; JSON has no such number, so it is one that comes to the same.
    labels = torch.tensor([[1.0, -1e30, 2.0], [-1e30, 0.5, 0.5]], dtype=torch.float32).double()
    record("DistillKLDivLoss", {}, columns(4, 2), labels, from_embeddings(DistillKLDivLoss(Stub())))


def nested():
    """MatryoshkaLoss around some of them; labels that are embeddings are cut along."""
    dims = [8, 4, 2]

    def around(name, config, build, embeddings, labels):
        def run(leaves, values):
            model = Stub(leaves, 8)
            return MatryoshkaLoss(model, build(model), dims)([{"column": i} for i in range(len(leaves))], values)

        settings = {"loss": name, "loss_config": config, "matryoshka_dims": dims, "matryoshka_weights": None}
        record("MatryoshkaLoss", settings, embeddings, labels, run)

    classes = torch.tensor([0, 1, 0, 1, 2, 2])
    around("BatchAllTripletLoss", {"margin": 0.4}, lambda model: BatchAllTripletLoss(model, margin=0.4), columns(1, 6, 8), classes)
    around("BatchHardTripletLoss", {}, lambda model: BatchHardTripletLoss(model), columns(1, 6, 8), classes)
    around("ContrastiveLoss", {}, ContrastiveLoss, columns(2, 4, 8), labels_of([1.0, 0.0, 1.0, 0.0]))
    around("MarginMSELoss", {}, MarginMSELoss, columns(4, 3, 8), draw(3, 2).float().double())
    around("MSELoss", {}, MSELoss, columns(2, 3, 8), draw(3, 8).float().double())


def main():
    for make in (contrastive, mined, angle, in_batch, regularization, distillation, nested):
        make()
    counts = {}
    for case in make_losses.cases:
        counts[case["loss"]] = counts.get(case["loss"], 0) + 1
    print(counts)
    write("losses_labels.json", {"about": versions(), "cases": make_losses.cases})


if __name__ == "__main__":
    main()
