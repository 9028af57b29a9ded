"""losses_own.json: losses that have parameters of their own or a guide, float64: value, gradients by embeddings and
by parameters, from the library's own classes."""

from common import tensor, torch, versions, write

from sentence_transformers.sentence_transformer.losses import EmbedDistillLoss, GISTEmbedLoss, MSELoss, SoftmaxLoss

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
    case = {
        "loss": loss,
        "config": config,
        "embeddings": [tensor(e) for e in embeddings],
        "labels": None if labels is None else labels.tolist(),
        "value": value.item(),
        "grads": [tensor(e.grad) for e in leaves],
    }
    if guide is not None:
        case["guide"] = [tensor(e) for e in guide]
    if params:
        case["params"] = [
            {"name": name, "value": tensor(param.detach()), "grad": tensor(param.grad)} for name, param in params.items()
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


def distill():
    torch.manual_seed(6)
    for metric in ("cosine", "l2", "mse"):
        for count, batch in ((1, 4), (2, 3)):
            config = {"distance_metric": metric, "projection_dim": 6}
            make = lambda model: EmbedDistillLoss(model, **config)
            record("EmbedDistillLoss", config, make, columns(count, batch), torch.round(draw(batch, 6) * 64) / 64)
    config = {"projection_dim": 3}
    record("MSELoss", config, lambda model: MSELoss(model, **config), columns(2, 4), torch.round(draw(4, 3) * 64) / 64)


softmax()
gist()
distill()
write("losses_own.json", {"about": versions(), "cases": cases})
print(len(cases), "cases")
