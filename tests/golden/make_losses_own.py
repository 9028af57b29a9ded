"""losses_own.json: losses that have parameters of their own or a guide, float64: value, gradients by embeddings and
by parameters, from the library's own classes."""

from types import SimpleNamespace

from common import tensor, torch, versions, write

from sentence_transformers import SentenceTransformer

from sentence_transformers.sentence_transformer.losses import (
    AdaptiveLayerLoss,
    CachedGISTEmbedLoss,
    ContrastiveTensionLoss,
    ContrastiveTensionLossInBatchNegatives,
    CoSENTLoss,
    CosineSimilarityLoss,
    EmbedDistillLoss,
    GISTEmbedLoss,
    Matryoshka2dLoss,
    MSELoss,
    MultipleNegativesRankingLoss,
    SoftmaxLoss,
)
from sentence_transformers.util import cos_sim, dot_score

cases = []
generator = torch.Generator().manual_seed(43)


class Stub(torch.nn.Module):
    """Stands in for a model: its forward looks up the given embeddings by column number."""

    device = "cpu"

    def __init__(self, columns=()):
        super().__init__()
        self.columns = columns

    def forward(self, features):
        return {"sentence_embedding": self.columns[features["column"]]}

    def get_embedding_dimension(self):
        return self.columns[0].shape[1]


def draw(rows, dim, scale=0.6):
    return torch.round(torch.randn(rows, dim, generator=generator, dtype=torch.float64) * scale * 1000) / 1000


def columns(count, batch, dim=4):
    anchor = draw(batch, dim)
    return [anchor] + [torch.round((0.5 * anchor + draw(batch, dim)) * 1000) / 1000 for _ in range(count - 1)]


def record(loss, config, make, embeddings, labels=None, guide=None):
    leaves = [e.clone().requires_grad_(True) for e in embeddings]
    instance = make(Stub(leaves)).double()
    params = dict(instance.named_parameters())
    with torch.no_grad():
        for param in params.values():
            param.copy_(torch.round(param * 1000) / 1000)
    value = instance([{"column": i} for i in range(len(leaves))], labels)
    assert value.dtype == torch.float64 and torch.isfinite(value), (loss, config)
    value.backward()
    # scores, not classes or lists
    scores = labels is not None and labels.is_floating_point() and labels.ndim == 1
    case = {
        "loss": loss,
        "config": config,
        "embeddings": [tensor(e) for e in embeddings],
        "labels": None if labels is None else tensor(labels) if scores else labels.tolist(),
        "value": value.item(),
        "grads": [tensor(e.grad) for e in leaves],
    }
    if guide is not None:
        case["guide"] = [tensor(e) for e in guide]
    if params:
        case["params"] = [
            {"name": name, "value": tensor(torch.atleast_2d(param.detach()) if param.ndim == 0 else param.detach()),
             "grad": tensor(param.grad)}
            for name, param in params.items()
        ]
    cases.append(case)


def softmax():
    torch.manual_seed(5)
    for batch, classes, change in (
        (4, 3, {}),
        (1, 2, {}),
        (7, 5, {"concatenation_sent_multiplication": True}),
        (3, 3, {"concatenation_sent_rep": False}),
        (5, 4, {"concatenation_sent_difference": False, "concatenation_sent_multiplication": True}),
    ):
        config = {
            "num_labels": classes,
            "concatenation_sent_rep": True,
            "concatenation_sent_difference": True,
            "concatenation_sent_multiplication": False,
            **change,
        }
        make = lambda model: SoftmaxLoss(model, 4, **config)
        hard = torch.randint(classes, (batch,), generator=generator)
        soft = torch.softmax(draw(batch, classes, 2.0), dim=1)
        # labels come to the loss in f32 from a file
        soft = (torch.round(soft * 64) / 64).double()
        record("SoftmaxLoss", config, make, columns(2, batch), hard)
        record("SoftmaxLoss", config, make, columns(2, batch), soft)


class Guide(Stub):
    max_seq_length = 8


def gist():
    for count in (2, 3):
        for batch, change in (
            (4, {}),
            (1, {}),
            (6, {"temperature": 0.1, "margin": 0.1}),
            (6, {"temperature": 0.2, "margin_strategy": "relative", "margin": 0.3}),
            (5, {"temperature": 0.1, "contrast_anchors": False}),
            (5, {"temperature": 0.1, "contrast_positives": False, "margin": -0.2}),
        ):
            config = {
                "temperature": 0.01,
                "margin_strategy": "absolute",
                "margin": 0.0,
                "contrast_anchors": True,
                "contrast_positives": True,
                **change,
            }
            # the guide is wider than the model
            guide = columns(count, batch, dim=6)

            def make(model):
                instance = GISTEmbedLoss.__new__(GISTEmbedLoss)
                torch.nn.Module.__init__(instance)
                instance.model, instance.guide = model, Guide(guide)
                for name, value in config.items():
                    setattr(instance, name, value)
                instance.similarity_fct = torch.nn.CosineSimilarity(dim=-1)
                instance.cross_entropy_loss = torch.nn.CrossEntropyLoss()
                instance.must_retokenize = False
                instance.gather_across_devices = False
                return instance

            record("GISTEmbedLoss", config, make, columns(count, batch), guide=guide)


def cached_gist():
    """Its computation on given embeddings, cut into parts as the passes over the model would."""
    for count, batch, change in (
        (2, 5, {}),
        (3, 6, {"temperature": 0.1, "margin": 0.1, "mini_batch_size": 4}),
        (4, 5, {"temperature": 0.2, "margin_strategy": "relative", "margin": 0.3, "mini_batch_size": 2}),
        (5, 4, {"temperature": 0.1, "contrast_anchors": False}),
        (3, 1, {"temperature": 0.1, "contrast_positives": False, "margin": -0.2}),
    ):
        config = {
            "temperature": 0.01,
            "mini_batch_size": 32,
            "mini_batch_num_tokens": None,
            "show_progress_bar": False,
            "margin_strategy": "absolute",
            "margin": 0.0,
            "contrast_anchors": True,
            "contrast_positives": True,
            "gather_across_devices": False,
            **change,
        }
        guide = columns(count, batch, dim=6)

        class Parts(CachedGISTEmbedLoss):
            def forward(self, features, labels):
                parts = lambda embeddings: list(embeddings.split(self.mini_batch_size))
                return self.calculate_loss([parts(e) for e in self.model.columns], [parts(e) for e in guide])

        def make(model):
            instance = Parts.__new__(Parts)
            torch.nn.Module.__init__(instance)
            instance.model = model
            for name, value in config.items():
                setattr(instance, name, value)
            instance.similarity_fct = torch.nn.CosineSimilarity(dim=-1)
            instance.cross_entropy_loss = torch.nn.CrossEntropyLoss()
            return instance

        record("CachedGISTEmbedLoss", config, make, columns(count, batch), guide=guide)


class Shifted(torch.nn.Module):
    """The model beside its twin: it answers with the embeddings that the case has for it."""

    def __init__(self, stub):
        super().__init__()
        self.stub = stub

    def forward(self, features):
        return self.stub({"column": features["column"] + 1})


def contrastive_tension():
    for batch, values in ((4, [1, 0, 0, 0]), (1, [1]), (8, [1, 0, 0, 0, 1, 0, 0, 0]), (3, [0.0, 0.25, 1.0])):
        def make(model):
            instance = ContrastiveTensionLoss(Stub())
            instance.model1 = instance.model2 = model
            return instance

        record("ContrastiveTensionLoss", {}, make, columns(2, batch), torch.tensor(values, dtype=torch.float32))
    # far from zero the exponential must neither overflow nor vanish
    record("ContrastiveTensionLoss", {}, make, [30 * e for e in columns(2, 4)], torch.tensor([1, 0, 1, 0]))
    for batch, scale, name, function in (
        (4, 20.0, "cos_sim", cos_sim), (1, 20.0, "cos_sim", cos_sim), (7, 5.0, "cos_sim", cos_sim),
        (5, 1.0, "dot_score", dot_score),
    ):
        def make(model):
            instance = ContrastiveTensionLossInBatchNegatives(Stub(), scale=scale, similarity_fct=function)
            instance.model1, instance.model2 = model, Shifted(model)
            return instance

        config = {"scale": scale, "similarity_fct": name}
        record("ContrastiveTensionLossInBatchNegatives", config, make, columns(2, batch))


def distill():
    torch.manual_seed(6)
    for metric in ("cosine", "l2", "mse"):
        for count, batch in ((1, 4), (2, 3)):
            config = {"distance_metric": metric, "projection_dim": 6}
            make = lambda model: EmbedDistillLoss(model, **config)
            record("EmbedDistillLoss", config, make, columns(count, batch), torch.round(draw(batch, 6) * 64) / 64)
    config = {"projection_dim": 3}
    record("MSELoss", config, lambda model: MSELoss(model, **config), columns(2, 4), torch.round(draw(4, 3) * 64) / 64)


class Layered(SentenceTransformer):
    """A model of given embeddings: `layers[l][c]` after l layers, of column c; the last are those of all."""

    device = "cpu"

    def __init__(self, layers):
        torch.nn.Module.__init__(self)
        self.layers = layers
        config = SimpleNamespace(output_hidden_states=False)
        self.network = SimpleNamespace(auto_model=SimpleNamespace(config=config), forward=self.states)

    def states(self, features):
        states = [columns[features["column"]] for columns in self.layers]
        return {**features, "token_embeddings": states[-1], "all_layer_embeddings": states}

    def __getitem__(self, index):
        return self.network

    def get_embedding_dimension(self):
        return self.layers[0][0].shape[1]

    def forward(self, features):
        # losses hand layers from call to call in the features
        features.update(self.network.forward(features))
        return {**features, "sentence_embedding": features["token_embeddings"]}


def layered(loss, config, wrap, inner, inner_config, count, batch, depth, labels=None):
    layers = [columns(count, batch) for _ in range(depth + 1)]
    leaves = [[e.clone().requires_grad_(True) for e in layer] for layer in layers]
    model = Layered(leaves)
    instance = wrap(model, inner(model))
    value = instance([{"column": i} for i in range(count)], labels)
    assert value.dtype == torch.float64 and torch.isfinite(value), (loss, config)
    value.backward()
    # the layers are all used, in order
    cases.append({
        "loss": loss,
        "config": {**config, "loss": inner.__name__, "loss_config": inner_config},
        "embeddings": [tensor(e) for e in layers[-1]],
        "layers": [[tensor(e) for e in layer] for layer in layers[:-1]],
        "labels": None if labels is None else tensor(labels),
        "value": value.item(),
        "grads": [tensor(e.grad) for e in leaves[-1]],
        "layer_grads": [[tensor(e.grad) for e in layer] for layer in leaves[:-1]],
    })


def adaptive():
    AdaptiveLayerLoss.__init__.__globals__["Transformer"] = object
    default = {"n_layers_per_step": -1}
    for change in (
        {},
        {"layer_weighting": "log", "kl_temperature": 1.0},
        {"layer_weighting": "linear", "last_layer_weight": 0.5, "prior_layers_weight": 2.0, "kl_div_weight": 0.3},
        {"kl_temperature": 0.0},
    ):
        config = {**default, **change}
        wrap = lambda model, loss: AdaptiveLayerLoss(model, loss, **config)
        layered("AdaptiveLayerLoss", config, wrap, MultipleNegativesRankingLoss, {}, 2, 5, 2)
    scores = torch.tensor([0.1, 0.5, 0.5, 1.0], dtype=torch.float32).double()
    layered("AdaptiveLayerLoss", config, wrap, CoSENTLoss, {}, 2, 4, 3, scores)
    for change in ({}, {"kl_temperature": 0.7, "layer_weighting": "log"}, {"kl_temperature": 0.0}):
        config = {"n_layers_per_step": -1, "n_dims_per_step": -1, **change}
        dims = {"matryoshka_dims": [4, 2, 1], "matryoshka_weights": [1.0, 0.5, 0.25]}
        wrap = lambda model, loss: Matryoshka2dLoss(model, loss, **dims, **config)
        layered("Matryoshka2dLoss", {**dims, **config}, wrap, MultipleNegativesRankingLoss, {}, 2, 5, 2)


class Exact(torch.Tensor):
    """Labels that stay in double precision where the loss asks for float32."""

    def float(self):
        return self


def cosine():
    fresh = torch.Generator().manual_seed(44)
    for loss_fct in ("L1Loss", "SmoothL1Loss", "HuberLoss", "MSELoss"):
        for transformation in ("Identity", "Sigmoid", "Tanh", "ReLU"):
            if (loss_fct, transformation) == ("MSELoss", "Identity"):
                continue
            config = {"loss_fct": loss_fct, "cos_score_transformation": transformation}
            make = lambda model: CosineSimilarityLoss(
                model, getattr(torch.nn, loss_fct)(), getattr(torch.nn, transformation)())
            pairs = [torch.round(torch.randn(5, 3, generator=fresh, dtype=torch.float64) * 100) / 100 for _ in range(2)]
            # differences on both sides of 1; labels come to the loss in f32
            labels = torch.tensor([-1.0, 0.25, 1.0, 0.5, -0.75], dtype=torch.float64).as_subclass(Exact)
            record("CosineSimilarityLoss", config, make, pairs, labels)


softmax()
gist()
distill()
adaptive()
cached_gist()
contrastive_tension()
cosine()
write("losses_own.json", {"about": versions(), "cases": cases})
print(len(cases), "cases")
