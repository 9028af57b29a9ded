"""backbones.json and fixtures/backbones: tiny random networks of every architecture but plain BERT, with both heads.

Each folder is what transformers saves, with the tensors of the classifier and of the masked-LM head in one file, and a
tokenizer that frames texts and pairs as the architecture's own does. Values are computed text by text, so that nothing
is padded, in float64 where the architecture lets one.
"""

import shutil

from common import FIXTURES, tensor, torch, versions, write
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers import PreTrainedTokenizerFast

FOLDER = FIXTURES / "backbones"
TEXTS = ["bees carry pollen", "sugar", "the old clock strikes twelve in the hall", "a thin fox crosses the road at dusk"]
# longer than two blocks of the windowed kernel
LONG = " ".join(f"{a} {b}" for a in "fox bee jam hat".split() for b in "runs over the wet field at noon and".split())
PAIRS = [["who sells the box", "a tall woman"], ["bees", "bees carry pollen from flower to flower"], ["a", "b"]]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
MERGES = ["t h", "th e", "e r", "o r", "i n", "o w", "l l"]


def byte_pairs(special, post):
    """A byte-level BPE that knows letters only; what it does not know is its fourth token."""
    space = "Ġ"
    words = [*special, *LETTERS, space, *(merge.replace(" ", "") for merge in MERGES)]
    merges = [tuple(merge.split()) for merge in MERGES]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merges, unk_token=special[3]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = post
    return tokenizer


def roberta_tokenizer():
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = byte_pairs(special, processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False))
    return tokenizer, dict(zip(["bos", "pad", "eos", "unk", "mask"], special)) | {"cls": "<s>", "sep": "</s>"}, False


def xlm_tokenizer():
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pieces = [(token, 0.0) for token in special]
    pieces += [("▁", -3.0), ("▁the", -2.5), ("ing", -3.5), *((letter, -4.0 - 0.1 * i) for i, letter in enumerate(LETTERS))]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return tokenizer, dict(zip(["bos", "pad", "eos", "unk", "mask"], special)) | {"cls": "<s>", "sep": "</s>"}, False


def word_pieces(types):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *LETTERS, *(f"##{letter}" for letter in LETTERS), "the", "##er", "bee", "##s"]
    words = list(dict.fromkeys(words))
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return tokenizer, dict(zip(["pad", "unk", "cls", "sep", "mask"], special)), types


def mpnet_tokenizer():
    special = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]
    words = list(dict.fromkeys([*special, *LETTERS, *(f"##{letter}" for letter in LETTERS), "the", "##er", "bee", "##s"]))
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=False, add_prefix_space=False)
    return tokenizer, dict(zip(["bos", "pad", "eos", "unk", "mask"], special)) | {"cls": "<s>", "sep": "</s>"}, False


def modern_tokenizer():
    special = ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"]
    post = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:0 [SEP]:0", special_tokens=[("[CLS]", 0), ("[SEP]", 2)])
    return byte_pairs(special, post), dict(zip(["cls", "pad", "sep", "unk", "mask"], special)), False


def make(name, model_type, tokenizer, seed, **keys):
    """A folder with a random network and its heads."""
    plain, special, types = tokenizer
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    inputs = ["input_ids", *(["token_type_ids"] if types else []), "attention_mask"]
    fast = PreTrainedTokenizerFast(
        tokenizer_object=plain, model_input_names=inputs, model_max_length=keys.pop("limit", 64),
        **{f"{what}_token": token for what, token in special.items()})
    fast.save_pretrained(folder)
    ids = {f"{what}_token_id": fast.convert_tokens_to_ids(token) for what, token in special.items() if what in ("pad", "bos", "eos")}
    config = AutoConfig.for_model(model_type, vocab_size=len(fast), initializer_range=0.3, num_labels=2, **ids, **keys)
    torch.manual_seed(seed)
    lm = AutoModelForMaskedLM.from_config(config)
    classifier = AutoModelForSequenceClassification.from_config(config)
    state = classifier.state_dict() | lm.state_dict()
    with torch.no_grad():
        for key, value in state.items():
            if key.lower().endswith("norm.weight"):
                value.copy_(1.0 + 0.2 * torch.randn_like(value))
            elif key.endswith("bias"):
                value.copy_(0.1 * torch.randn_like(value))
            elif "classifier" in key or "transform" in key or "head" in key or "predictions" in key:
                value.copy_(0.3 * torch.randn_like(value))
        # most words are to have a score above 0
        for key, value in lm.state_dict().items():
            if key.endswith("bias") and value.shape == (len(fast),):
                value.add_(1.0)
    seen, tensors = {}, {}
    for key, value in state.items():
        if value.is_floating_point() and value.data_ptr() not in seen:
            seen[value.data_ptr()] = key
            tensors[key] = value.contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config.architectures = [type(lm).__name__.replace("ForMaskedLM", "Model")]
    config.dtype = "float32"
    config.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)
    print(name, sum(value.numel() for value in tensors.values()), "numbers", sorted(tensors)[:3])
    return folder


def pattern(values):
    flat = values.reshape(-1)
    return (flat * torch.sin(0.1 * torch.arange(flat.numel(), dtype=torch.float64)).to(flat.dtype)).sum()


def gradients(model, value, names):
    model.zero_grad()
    value.backward()
    own = dict(model.named_parameters())
    return {name: tensor(own[name].grad.float()) for name in names}


def case(name, folder, wanted, heads, texts=TEXTS):
    """Hidden states, their gradients, and what the heads say."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encode = lambda *text: tokenizer(*text, return_tensors="pt", truncation=True)
    lm = AutoModelForMaskedLM.from_pretrained(folder).double().eval()
    network = lm.base_model
    features = [encode(text) for text in texts]
    hidden = torch.cat([network(**f).last_hidden_state[0] for f in features])
    value = pattern(hidden)
    out = {
        "model": name, "texts": texts, "token_ids": [f["input_ids"][0].tolist() for f in features],
        "hidden": tensor(hidden.float()), "gradients": gradients(network, value, wanted), "pairs": PAIRS,
    }
    scores = torch.stack([torch.log1p(torch.relu(lm(**f).logits[0])).amax(dim=0) for f in features])
    out["splade"] = tensor(scores.float())
    assert (scores > 0).double().mean() > 0.5
    features = [encode(*pair) for pair in PAIRS]
    out["pair_ids"] = [f["input_ids"][0].tolist() for f in features]
    classifier = AutoModelForSequenceClassification.from_pretrained(folder).double().eval()
    logits = torch.cat([classifier(**f).logits for f in features])
    return out | {"logits": tensor(logits.float()), "head_gradients": gradients(classifier, pattern(logits), heads)}


BERT = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, max_position_embeddings=66)
LAYER = ["encoder.layer.0.attention.self.query.weight", "encoder.layer.1.output.LayerNorm.weight"]
POSITIONS = "embeddings.position_embeddings.weight"


def main():
    roberta = dict(BERT, type_vocab_size=1, layer_norm_eps=1e-5)
    cases = [
        case("roberta", make("roberta", "roberta", roberta_tokenizer(), 1, **roberta),
             [*LAYER, POSITIONS, "embeddings.token_type_embeddings.weight"],
             ["classifier.dense.weight", "classifier.out_proj.bias"]),
        case("xlm-roberta", make("xlm-roberta", "xlm-roberta", xlm_tokenizer(), 2, **dict(roberta, num_hidden_layers=1)),
             LAYER[:1], ["classifier.dense.weight"]),
        case("distilbert", make("distilbert", "distilbert", word_pieces(False), 3, dim=16, n_layers=2, n_heads=2,
                                hidden_dim=24, max_position_embeddings=64),
             ["transformer.layer.0.attention.q_lin.weight", "transformer.layer.1.output_layer_norm.weight", POSITIONS],
             ["pre_classifier.weight", "classifier.bias"]),
        case("electra", make("electra", "electra", word_pieces(True), 4, **dict(BERT, embedding_size=12)),
             [*LAYER, "embeddings_project.weight", "embeddings.word_embeddings.weight"],
             ["classifier.dense.weight", "electra.embeddings.token_type_embeddings.weight"]),
        case("bert-untied", make("bert-untied", "bert", word_pieces(True), 5,
                                 **dict(BERT, num_hidden_layers=1, tie_word_embeddings=False)),
             LAYER[:1], ["bert.pooler.dense.weight"]),
    ]
    # long enough for all rows of the table of distances
    mpnet = dict(BERT, max_position_embeddings=322, limit=320)
    cases.append(case("mpnet", make("mpnet", "mpnet", mpnet_tokenizer(), 8, **mpnet),
                      ["encoder.relative_attention_bias.weight", "encoder.layer.0.attention.attn.q.weight", POSITIONS],
                      ["classifier.dense.weight", "mpnet.encoder.layer.1.attention.LayerNorm.bias"], texts=[*TEXTS, LONG]))
    modern = dict(hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=20,
                  max_position_embeddings=320, local_attention=8, global_attn_every_n_layers=3, classifier_pooling="mean", limit=320)
    names = ["embeddings.norm.weight", "layers.0.attn.Wqkv.weight", "layers.1.attn_norm.weight",
             "layers.2.attn.Wqkv.weight", "layers.3.mlp.Wi.weight", "final_norm.weight"]
    cases.append(case("modernbert", make("modernbert", "modernbert", modern_tokenizer(), 6, **modern), names,
                      ["head.dense.weight", "head.norm.weight", "classifier.bias"], texts=[*TEXTS, LONG]))
    biased = dict(modern, num_hidden_layers=2, norm_bias=True, attention_bias=True, mlp_bias=True, classifier_bias=True,
                  decoder_bias=False, classifier_pooling="cls", global_attn_every_n_layers=2)
    cases.append(case("modernbert-biases", make("modernbert-biases", "modernbert", modern_tokenizer(), 7, **biased),
                      ["layers.0.attn.Wqkv.bias", "layers.1.mlp.Wi.bias", "layers.1.attn_norm.bias"],
                      ["head.dense.bias", "head.norm.bias"]))
    write("backbones.json", {"about": versions(), "cases": cases})


if __name__ == "__main__":
    main()
