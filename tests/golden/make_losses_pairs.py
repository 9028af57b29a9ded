"""losses_pairs.json: value and gradients of the losses of CrossEncoder models with respect to logits, float64.

Some of these losses turn logits and labels into float32; here that is float64, so that the mathematics are compared and
not the rounding.
"""

from common import tensor, torch, versions, write

torch.set_default_dtype(torch.float64)
torch.Tensor.float = torch.Tensor.double

from sentence_transformers.cross_encoder import CrossEncoder
from sentence_transformers.cross_encoder.losses import (
    ADRMSELoss,
    BinaryCrossEntropyLoss,
    CachedMultipleNegativesRankingLoss,
    CrossEntropyLoss,
    LambdaLoss,
    LambdaRankScheme,
    ListMLELoss,
    ListNetLoss,
    MarginMSELoss,
    MSELoss,
    MultipleNegativesRankingLoss,
    NDCGLoss1Scheme,
    NDCGLoss2PPScheme,
    NDCGLoss2Scheme,
    NoWeightingScheme,
    PListMLELambdaWeight,
    PListMLELoss,
    RankNetLoss,
)

cases = []
generator = torch.Generator().manual_seed(43)
ACTIVATION = {"Identity": torch.nn.Identity, "Sigmoid": torch.nn.Sigmoid, "Tanh": torch.nn.Tanh, "ReLU": torch.nn.ReLU}


class Stub(CrossEncoder):
    """Stands in for a model: a call gives the next of the given columns, or the given logits of numbered texts."""

    def __init__(self, columns=None, listed=None, labels=1):
        torch.nn.Module.__init__(self)
        self.columns = None if columns is None else iter(columns)
        self.listed = listed
        self.labels = labels

    @property
    def num_labels(self):
        return self.labels

    @property
    def device(self):
        return torch.device("cpu")

    def preprocess(self, pairs, prompt=None, task=None):
        if self.columns is not None:
            return {}
        return {"places": torch.tensor([int(text) for _, text in pairs])}

    def forward(self, features):
        if self.columns is not None:
            return {"scores": next(self.columns)}
        return {"scores": self.listed[features["places"]]}


def draw(*shape, scale=1.5):
    return torch.round(torch.randn(*shape, generator=generator) * scale * 1000) / 1000


def singles(values):
    """Numbers that float32 holds as they are."""
    return values.to(torch.float32).to(torch.float64)


def record(loss, config, logits, labels, run, lists=None):
    leaves = [x.clone().requires_grad_(True) for x in logits]
    value = run(leaves)
    assert value.dtype == torch.float64 and torch.isfinite(value), (loss, config)
    value.backward()
    grads = [torch.zeros_like(x) if x.grad is None else x.grad for x in leaves]
    assert all(torch.isfinite(grad).all() for grad in grads), (loss, config)
    case = {
        "loss": loss,
        "config": config,
        "embeddings": [tensor(x) for x in logits],
        "labels": None if labels is None else tensor(labels),
        "value": value.item(),
        "grads": [tensor(grad) for grad in grads],
    }
    if lists is not None:
        case["lists"] = lists
    cases.append(case)


def rows(kind, config, logits, labels, label_count=1, **arguments):
    """A loss whose rows have a query and a text for each column of logits."""
    config = {"activation_fn": "Identity", **config}
    arguments = {**arguments, "activation_fn": ACTIVATION[config["activation_fn"]]()}
    batch = logits[0].shape[0]
    texts = [[str(i) for i in range(batch)] for _ in range(len(logits) + 1)]
    run = lambda leaves: kind(Stub(leaves, labels=label_count), **arguments)(texts, labels)
    record(kind.__name__, config, logits, labels, run)


def binary():
    for activation in ("Identity", "Sigmoid", "Tanh"):
        for weight in (None, 1.0, 4.0, 0.25):
            for labels in ([1.0, 0.0, 0.0, 1.0, 0.0], [0.5, 0.25, 1.0, 0.0, 0.875]):
                extra = {} if weight is None else {"pos_weight": torch.tensor(weight)}
                config = {"activation_fn": activation, "pos_weight": weight}
                rows(BinaryCrossEntropyLoss, config, [draw(5, 1)], torch.tensor(labels), **extra)
    far = torch.tensor([[1000.0], [-1000.0], [1000.0], [-1000.0], [0.0]])
    for labels in ([1.0, 0.0, 0.0, 1.0, 1.0], [0.5] * 5):
        rows(BinaryCrossEntropyLoss, {}, [far], torch.tensor(labels))
    rows(BinaryCrossEntropyLoss, {}, [draw(1, 1)], torch.tensor([1]))
    rows(BinaryCrossEntropyLoss, {}, [draw(3, 1)], torch.tensor([1, 0, 1]))


def classes():
    for activation in ("Identity", "Tanh"):
        config = {"activation_fn": activation}
        for count in (2, 3, 5):
            for batch in (1, 4):
                labels = torch.randint(count, (batch,), generator=generator)
                rows(CrossEntropyLoss, config, [draw(batch, count)], labels, count)
                rows(CrossEntropyLoss, config, [draw(batch, count)], labels.unsqueeze(1), count)
                soft = singles(torch.softmax(draw(batch, count), 1))
                rows(CrossEntropyLoss, config, [draw(batch, count)], soft, count)
    rows(CrossEntropyLoss, {}, [torch.tensor([[1000.0, -1000.0, 0.0]] * 3)], torch.tensor([0, 1, 2]), 3)


def teacher():
    for activation in ACTIVATION:
        config = {"activation_fn": activation}
        for batch in (1, 5):
            rows(MSELoss, config, [draw(batch, 1)], singles(draw(batch, scale=3)))
        rows(MSELoss, config, [draw(3, 1)], singles(draw(3, 1)))
        for columns, batch in ((2, 1), (2, 4), (4, 3)):
            logits = [draw(batch, 1) for _ in range(columns)]
            for width in (columns - 1, columns):
                rows(MarginMSELoss, config, logits, singles(draw(batch, width, scale=3)))
            if columns == 2:
                rows(MarginMSELoss, config, logits, singles(draw(batch, scale=3)))


def in_batch():
    for negatives, columns, batch in ((4, 1, 1), (4, 1, 3), (4, 1, 8), (2, 3, 4), ("all", 1, 4), ("all", 2, 3)):
        count = None if negatives == "all" else negatives
        others = columns * batch - columns
        candidates = 1 + (others if count is None else min(count, others)) + columns - 1
        for activation, scale in (("Sigmoid", 10.0), ("Identity", 1.0), ("Tanh", 5.0)):
            logits = [draw(batch, 1) for _ in range(candidates)]
            texts = [[f"{column} {row}" for row in range(batch)] for column in range(columns + 1)]
            config = {"num_negatives": negatives, "scale": scale, "activation_fn": activation}
            arguments = {"num_negatives": count, "scale": scale, "activation_fn": ACTIVATION[activation]()}

            def run(leaves):
                model = Stub(leaves)
                value = MultipleNegativesRankingLoss(model, **arguments)(texts, None)
                assert next(model.columns, None) is None, "as many columns as candidates"
                return value

            record("MultipleNegativesRankingLoss", config, logits, None, run)
            cached = CachedMultipleNegativesRankingLoss(Stub(), **arguments, mini_batch_size=2)
            run = lambda leaves: cached.calculate_loss([leaf.squeeze(1) for leaf in leaves], batch)
            record("CachedMultipleNegativesRankingLoss", {**config, "mini_batch_size": 2}, logits, None, run)


def listed(kind, config, lengths, logits, labels, **arguments):
    """A loss whose rows have a query and a list of texts."""
    config = {"activation_fn": "Identity", **config}
    arguments = {**arguments, "activation_fn": ACTIVATION[config["activation_fn"]]()}
    if "mini_batch_size" in config:
        arguments["mini_batch_size"] = config["mini_batch_size"]
    numbers = iter(range(sum(lengths)))
    texts = [[str(next(numbers)) for _ in range(length)] for length in lengths]
    queries = [f"query {i}" for i in range(len(lengths))]

    def run(leaves):
        return kind(Stub(listed=leaves[0]), **arguments)([queries, texts], list(labels.split(lengths)))

    record(kind.__name__, config, [logits], labels, run, lengths)


def lists():
    """Lists of all lengths with labels of all kinds."""
    for lengths in ([3, 2, 4], [5], [1], [1, 1], [2, 1, 6, 3], [4, 4]):
        total = sum(lengths)
        grades = torch.randint(4, (total,), generator=generator).double()
        yield lengths, draw(total, 1), grades
        yield lengths, draw(total, 1), (grades > 1).double()
        yield lengths, draw(total, 1), singles(draw(total, scale=2))
    yield [3, 4], draw(7, 1), torch.zeros(7)
    yield [3, 4], draw(7, 1), torch.ones(7)
    yield [3, 4], draw(7, 1), torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    # equal scores
    yield [4, 3], torch.tensor([[0.5], [0.5], [1.0], [0.5], [0.0], [0.0], [0.0]]), torch.tensor([0.0, 2.0, 1.0, 1.0, 1.0, 0.0, 2.0])
    yield [30, 7], draw(37, 1), torch.randint(3, (37,), generator=generator).double()
    yield [2, 3], torch.tensor([[1000.0], [-1000.0], [500.0], [-500.0], [800.0]]), torch.tensor([0.0, 1.0, 1.0, 2.0, 0.0])


SCHEMES = {
    "NoWeightingScheme": NoWeightingScheme,
    "NDCGLoss1Scheme": NDCGLoss1Scheme,
    "NDCGLoss2Scheme": NDCGLoss2Scheme,
    "LambdaRankScheme": LambdaRankScheme,
    "NDCGLoss2PPScheme": NDCGLoss2PPScheme,
}


def weighted():
    for lengths, logits, labels in lists():
        for name, scheme in SCHEMES.items():
            listed(LambdaLoss, {"weighting_scheme": name}, lengths, logits, labels, weighting_scheme=scheme())
        listed(RankNetLoss, {}, lengths, logits, labels)
    lengths = [3, 1, 5]
    for k in (1, 2, 10):
        for name, scheme in SCHEMES.items():
            labels = torch.randint(3, (9,), generator=generator).double()
            config = {"weighting_scheme": name, "k": k}
            listed(LambdaLoss, config, lengths, draw(9, 1), labels, weighting_scheme=scheme(), k=k)
        listed(RankNetLoss, {"k": k}, lengths, draw(9, 1), labels, k=k)
    labels = torch.tensor([0.0, 2.0, 1.0, 0.0, 0.25, 0.0, 0.0, 0.0, 0.125])
    for config in (
        {"sigma": 2.5},
        {"reduction_log": "natural"},
        {"eps": 0.5, "k": 1},
        {"activation_fn": "Sigmoid", "mini_batch_size": 2},
        {"activation_fn": "ReLU", "mini_batch_size": -1},
        {"activation_fn": "Tanh", "sigma": 0.5, "reduction_log": "natural", "k": 3},
    ):
        own = {key: value for key, value in config.items() if key in ("sigma", "eps", "reduction_log", "k")}
        listed(LambdaLoss, config, lengths, draw(9, 1), labels, **own)
        listed(RankNetLoss, config, lengths, draw(9, 1), labels, **own)
    for mu in (0.0, 1.0, 25.0):
        config = {"weighting_scheme": "NDCGLoss2PPScheme", "mu": mu}
        listed(LambdaLoss, config, lengths, draw(9, 1), labels, weighting_scheme=NDCGLoss2PPScheme(mu))


def whole():
    for lengths, logits, labels in lists():
        listed(ListNetLoss, {}, lengths, logits, labels)
        for alpha in (1.0, 4.0):
            listed(ADRMSELoss, {"alpha": alpha}, lengths, logits, labels, alpha=alpha)
        for respect in (True, False):
            order = {"respect_input_order": respect}
            if not respect and max(lengths) > 16:
                # torch's sort leaves the order of equal labels open
                labels = torch.randperm(sum(lengths), generator=generator).double()
            listed(ListMLELoss, order, lengths, logits, labels, **order)
            for name, weight in (("None", None), ("PListMLELambdaWeight", PListMLELambdaWeight())):
                config = {**order, "lambda_weight": name}
                listed(PListMLELoss, config, lengths, logits, labels, **order, lambda_weight=weight)
    # more texts than powers of 2 have room in float32
    labels = torch.randint(2, (140,), generator=generator).double()
    listed(PListMLELoss, {}, [130, 10], draw(140, 1), labels)
    for activation in ("Sigmoid", "Tanh", "ReLU"):
        config = {"activation_fn": activation, "mini_batch_size": 2}
        labels = torch.randint(3, (9,), generator=generator).double()
        for kind in (ListNetLoss, ADRMSELoss, ListMLELoss, PListMLELoss):
            listed(kind, config, [4, 2, 3], draw(9, 1), labels)


def main():
    for make in (binary, classes, teacher, in_batch, weighted, whole):
        make()
    counts = {}
    for case in cases:
        counts[case["loss"]] = counts.get(case["loss"], 0) + 1
    print(counts)
    write("losses_pairs.json", {"about": versions(), "cases": cases})


if __name__ == "__main__":
    main()
