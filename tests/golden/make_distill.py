"""distill.json: what `StaticEmbedding.from_distillation` makes of tiny transformers, by way of model2vec.

Needs `pip install "model2vec[distill]"` beside the reference; it may ask for an older transformers, so use an
environment of its own.
"""

import json
import shutil
import tempfile
import warnings
from pathlib import Path

from common import FIXTURES, tensor, write
from sentences import HAND
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from sentence_transformers.sentence_transformer.modules import StaticEmbedding

warnings.simplefilter("ignore")
LINES = list(HAND)
# Rows whose embeddings are kept: those at the beginning, and every 37th.
FIRST, EVERY = 12, 37

OPTIONS = [
    {},
    {"pca_dims": 16},
    {"pca_dims": 0.9},
    {"pca_dims": 0.5, "sif_coefficient": 1e-2},
    {"pca_dims": "auto", "sif_coefficient": None},
    {"pca_dims": None, "sif_coefficient": None},
    {"pca_dims": 8, "token_remove_pattern": "##|[0-9]"},
    {"pca_dims": None, "pooling": "first"},
    {"pca_dims": 12, "pooling": "last"},
]


def byte_level():
    """As RoBERTa's, with an added token that means nothing to a static embedding."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_tokens(["warm stove"])
    return tokenizer, {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}


def unigram():
    """As T5's: only an end of the text, scores in place of merges."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    words = sorted({word for line in LINES for word in line.replace(".", "").replace(",", "").lower().split()})
    pieces += [("\u2581" + word, -4.0 - i / 64) for i, word in enumerate(words[:200])]
    pieces += [(letter, -12.0) for letter in "\u2581abcdefghijklmnopqrstuvwxyz.,"]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer, {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"}


def kept(rows):
    return sorted({*range(min(FIRST, rows)), *range(0, rows, EVERY)})


def case(folder, teacher, options):
    made = StaticEmbedding.from_distillation(str(folder), device="cpu", **options)
    table = made.embedding.weight.detach()
    rows = kept(len(table))
    file = json.loads(made.tokenizer.to_str())
    return {
        "teacher": teacher, "options": options, "shape": list(table.shape), "rows": rows, "table": tensor(table[rows]),
    }, file


def main():
    cases, tokenizers = [], {}
    for options in OPTIONS:
        made, file = case(FIXTURES / "tiny-bert", "tiny-bert", options)
        cases.append(made)
        if not options:
            tokenizers["tiny-bert"] = {"made": file}
    for name, make in [("bpe", byte_level), ("unigram", unigram)]:
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            for file in ["config.json", "model.safetensors"]:
                shutil.copy(FIXTURES / "tiny-bert" / file, folder / file)
            tokenizer, names = make()
            PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, **names).save_pretrained(folder)
            for options in [{"pca_dims": 16}, {"pca_dims": None, "token_remove_pattern": "[abc\u0120\u2581]w"}]:
                made, file = case(folder, name, options)
                cases.append(made)
            given = {
                "tokenizer.json": json.loads((folder / "tokenizer.json").read_text()),
                "tokenizer_config.json": json.loads((folder / "tokenizer_config.json").read_text()),
            }
            tokenizers[name] = {"given": given, "made": file}
    about = {"model2vec": __import__("model2vec").__version__, "sentence_transformers": __import__("sentence_transformers").__version__}
    write("distill.json", {"about": about, "tokenizers": tokenizers, "cases": cases})


if __name__ == "__main__":
    main()
