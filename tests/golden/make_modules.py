"""Makes modules.json and ../fixtures/modules: tiny models of every module, with embeddings and gradients.

Each model is saved by sentence-transformers itself. Embeddings are computed text by text, since a convolution over a
padded batch would see the padding; gradients are of `sum(embeddings_k * sin(0.1 k))`, in double precision, without
dropout. Transformers' own parameters are left out: bert.json has them.
"""

import json
import shutil
import tempfile

from common import FIXTURES, torch, tensor, versions, write

import numpy as np
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router
from sentence_transformers.sentence_transformer.modules import (
    CNN,
    LSTM,
    BoW,
    Dropout,
    LayerNorm,
    Pooling,
    StaticEmbedding,
    Transformer,
    WeightedLayerPooling,
    WordEmbeddings,
)
from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer
from sentence_transformers.sentence_transformer.modules.word_weights import WordWeights
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, BertTokenizerFast

WORDS = "a the cat dog house river runs sleeps under over big small red blue and or not quickly slowly stone".split()
TEXTS = [
    "the big cat sleeps under the red house",
    "a dog runs",
    "river",
    "Quickly, the SMALL dog and the cat runs over a stone. Slowly not!",
    "stone and river or house the the the",
]
ACTIVATIONS = [
    "Tanh", "ReLU", "GELU", "Sigmoid", "SiLU", "ELU", "CELU", "SELU", "LeakyReLU", "ReLU6", "Softplus", "Softsign",
    "Mish", "Hardtanh", "Hardswish", "Hardsigmoid", "LogSigmoid", "Tanhshrink", "Softshrink", "Hardshrink",
]  # fmt: skip


def randomise(module, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in sorted(module.named_parameters()):
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return module


def words(seed, update=True, limit=1000000):
    table = np.random.default_rng(seed).normal(size=(len(WORDS) + 1, 6)).astype(np.float32)
    tokenizer = WhitespaceTokenizer(["PADDING_TOKEN", *WORDS], stop_words={"or"}, do_lower_case=False)
    return WordEmbeddings(tokenizer, table, update_embeddings=update, max_seq_length=limit)


def static(seed):
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["[UNK]", *WORDS])}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    weights = torch.randn(len(WORDS) + 1, 6, generator=torch.Generator().manual_seed(seed))
    return StaticEmbedding(tokenizer, embedding_weights=weights)


def bert(folder, layers, seed, **config):
    vocab = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ask", ":", ".", ",", "!", *WORDS])}
    tokenizer = BertTokenizerFast(vocab=vocab, do_lower_case=True, model_max_length=24)
    torch.manual_seed(seed)
    model = BertModel(
        BertConfig(
            vocab_size=len(vocab), hidden_size=8, num_hidden_layers=layers, num_attention_heads=2,
            intermediate_size=16, max_position_embeddings=24, initializer_range=0.3, **config,
        )
    )  # fmt: skip
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Transformer(folder)


def save(model, name):
    target = FIXTURES / "modules" / name
    if target.exists():
        shutil.rmtree(target)
    target.parent.mkdir(exist_ok=True)
    model.save(str(target), create_model_card=False)
    for file in target.rglob("*.safetensors"):
        file.chmod(0o644)
    return target


def case(name, model, prompt=None, task=None, gradients=True):
    model = model.double().eval()
    for dropout in model.modules():
        if isinstance(dropout, torch.nn.LSTM):
            dropout.dropout = 0.0
    model.zero_grad()
    rows = []
    for text in TEXTS:
        features = model.preprocess([text], prompt=prompt, **({"task": task} if task else {}))
        features = {k: v.double() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in features.items()}
        rows.append(model(features, **({"task": task} if task else {}))["sentence_embedding"][0].double())
    embeddings = torch.stack(rows)
    found = {}
    if gradients and any(p.requires_grad for p in model.parameters()):
        weights = torch.sin(0.1 * torch.arange(embeddings.numel(), dtype=torch.float64)).reshape(embeddings.shape)
        (embeddings * weights).sum().backward()
        found = {
            n: tensor(p.grad.float())
            for n, p in model.named_parameters()
            if p.grad is not None and "auto_model" not in n and not n.startswith("0.model.")
        }
    return {
        "model": f"fixtures/modules/{name}",
        "modules": sorted({type(m).__name__ for m in model.modules() if type(m).__module__.startswith("sentence_t")}),
        "prompt": prompt,
        "task": task,
        "texts": TEXTS,
        "embeddings": tensor(embeddings.float()),
        "gradients": found,
    }


def old_names(source, target):
    """The same model as older versions wrote it."""
    target = source.parent / target
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target)
    modules = json.loads((target / "modules.json").read_text())
    for module in modules:
        module["type"] = "sentence_transformers.models." + module["type"].rsplit(".", 1)[1]
    (target / "modules.json").write_text(json.dumps(modules, indent=2))
    file = target / "1_Pooling" / "config.json"
    config = json.loads(file.read_text())
    keys = {
        "cls": "cls_token", "max": "max_tokens", "mean": "mean_tokens", "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
        "weightedmean": "weightedmean_tokens", "lasttoken": "lasttoken",
    }  # fmt: skip
    old = {"word_embedding_dimension": config["embedding_dimension"]}
    old.update({f"pooling_mode_{key}": mode in config["pooling_mode"] for mode, key in keys.items()})
    file.write_text(json.dumps({**old, "include_prompt": config["include_prompt"]}, indent=2))
    (target / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 24, "do_lower_case": False}))
    return target


def build():
    """The models by fixture, and what is asked of each: keyword arguments of `case`."""
    models_ = {}
    folder = tempfile.mkdtemp()
    modes = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
    ask = {"prompt": "ask: "}
    models_["pooling"] = [bert(f"{folder}/a", 1, 1), Pooling(8, modes, include_prompt=False)], [{}, ask]
    models_["pooling-order"] = [words(2), Pooling(6, ("lasttoken", "mean", "max"))], [{}]
    dense = Dense(6, 6, bias=False, activation_function=torch.nn.SiLU(), module_input_name="token_embeddings", use_residual=True)
    last = Dense(6, 5, activation_function=torch.nn.GELU(), use_residual=True)
    head = [dense, Pooling(6, "mean"), last, LayerNorm(5), Dropout(0.3), Normalize()]
    models_["dense"] = [words(3), *head], [{}]
    models_["frozen-words"] = [words(4, update=False, limit=4), Pooling(6, "max"), Dense(6, 3, activation_function=None)], [{}]
    weighted = WeightedLayerPooling(8, num_hidden_layers=3, layer_start=1)
    models_["weighted-layers"] = [bert(f"{folder}/b", 3, 5, output_hidden_states=True), weighted, Pooling(8, "mean")], [{}]
    idf = {w: 0.5 + 0.1 * i for i, w in enumerate(WORDS[:12])}
    models_["bow"] = [BoW(WORDS, idf, unknown_word_weight=0.25), Dense(len(WORDS), 4)], [{}, {"prompt": "the red "}]
    models_["bow-once"] = [BoW(WORDS, idf, cumulative_term_frequency=False)], [{}]
    means = ("mean", "mean_sqrt_len_tokens", "weightedmean", "max")
    models_["word-weights"] = [words(6), WordWeights(["PADDING_TOKEN", *WORDS], idf, 0.7), Pooling(6, means)], [{}]
    models_["cnn"] = [words(7), CNN(6, out_channels=4, kernel_sizes=[1, 3, 5]), Pooling(12, ("max", "mean"))], [{}]
    models_["lstm"] = [words(8), LSTM(6, 4, num_layers=2, dropout=0.2), Pooling(8, ("mean", "lasttoken"))], [{}]
    models_["lstm-forward"] = [words(9), LSTM(6, 3, bidirectional=False), Pooling(3, "max")], [{}]
    models_["static"] = [static(10), Normalize()], [{}]
    tasks = [{}, {"task": "query"}, {"task": "document"}]
    router = Router.for_query_document([static(11)], [static(12), Dense(6, 6)])
    models_["router"] = [router, Normalize()], tasks
    shared = Dense(6, 6)
    mapped = Router(
        {"short": [static(13), shared], "long": [words(14), Pooling(6, "mean"), shared]},
        default_route="short", allow_empty_key=False, route_mappings={("query", None): "short", ("document", "text"): "long"},
    )  # fmt: skip
    models_["router-mapped"] = [mapped], tasks
    return models_


def model2vec(name):
    """A directory as model2vec writes it: a smaller table, a row's number and a weight for each token."""
    target = FIXTURES / "modules" / name
    generator = torch.Generator().manual_seed(20)
    table = torch.randn(7, 5, generator=generator)
    mapping = torch.arange(len(WORDS) + 1) % 7
    weights = torch.rand(len(WORDS) + 1, generator=generator) + 0.5
    if target.exists():
        shutil.rmtree(target)
    target.mkdir()
    static(1).tokenizer.save(str(target / "tokenizer.json"))
    save_file({"embeddings": table, "mapping": mapping, "weights": weights}, str(target / "model.safetensors"))
    (target / "model.safetensors").chmod(0o644)
    config = {"model_type": "model2vec", "architectures": ["StaticModel"], "hidden_dim": 5, "normalize": True}
    (target / "config.json").write_text(json.dumps(config, indent=2))
    return SentenceTransformer(modules=[StaticEmbedding.load(str(target)), Normalize()], device="cpu")


def activations():
    x = torch.cat([torch.linspace(-7, 7, 29), torch.tensor([0.0, 0.5, -0.5, 1.0, -1.0, 3.0, -3.0, 6.0, 30.0, -30.0])]).double()
    cases = []
    for name in ACTIVATIONS:
        function = getattr(torch.nn, name)()
        at = x.clone().requires_grad_()
        y = function(at)
        y.sum().backward()
        path = f"{type(function).__module__}.{type(function).__name__}"
        cases.append({"activation_function": path, "x": tensor(x), "y": tensor(y), "dx": tensor(at.grad)})
    return cases


def main():
    cases = []
    for seed, (name, (modules, asked)) in enumerate(build().items()):
        model = SentenceTransformer(modules=modules, device="cpu")
        for index, module in enumerate(model):
            if not isinstance(module, Transformer):
                randomise(module, 100 * seed + index)
        source = save(model, name)
        for how in asked:
            # what was saved is what is asked: fresh from disk
            cases.append(case(name, SentenceTransformer(str(source), device="cpu"), **how))
        if name == "pooling":
            old = old_names(source, "pooling-old")
            for how in asked:
                cases.append(case("pooling-old", SentenceTransformer(str(old), device="cpu"), **how))
    cases.append(case("model2vec", model2vec("model2vec"), gradients=False))
    write("modules.json", {"about": versions(), "cases": cases, "activations": activations()}, break_to=3)


if __name__ == "__main__":
    main()
