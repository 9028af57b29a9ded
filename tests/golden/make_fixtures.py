"""Makes the tiny model directories in ../fixtures, each saved by sentence-transformers itself.

Training the tokenizer breaks ties in no fixed order, so its vocabulary is kept in vocab.txt and reused;
`--retrain` makes a new one (all other golden files must then be made again).
"""

import shutil
import sys
import tempfile

from common import FIXTURES, HERE, torch

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, StaticEmbedding, Transformer
from sentences import all_sentences
from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertModel, BertTokenizerFast

VOCAB = 600


SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def vocabulary():
    file = HERE / "vocab.txt"
    if "--retrain" in sys.argv:
        trainer = BertWordPieceTokenizer(lowercase=True)
        trainer.train_from_iterator(
            all_sentences(), vocab_size=VOCAB, min_frequency=1, special_tokens=SPECIAL, show_progress=False
        )
        ids = trainer.get_vocab()
        file.write_text("".join(f"{token}\n" for token in sorted(ids, key=ids.get)), encoding="utf-8")
    return {token: i for i, token in enumerate(file.read_text(encoding="utf-8").splitlines())}


def build_tokenizer(folder):
    plain = BertWordPieceTokenizer(vocab=vocabulary(), lowercase=True)
    file = f"{folder}/plain.json"
    plain.save(file)
    return BertTokenizerFast(tokenizer_file=file, vocab=plain.get_vocab(), do_lower_case=True, model_max_length=64)


def bert(tokenizer, folder, hidden, layers, heads, intermediate, seed):
    """A randomly initialised BERT whose numbers are large enough to matter in a comparison."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=intermediate,
        max_position_embeddings=64,
        initializer_range=0.2,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = BertModel(config)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if "LayerNorm.weight" in name:
                parameter.copy_(1.0 + 0.2 * torch.randn_like(parameter))
            elif name.endswith("bias"):
                parameter.copy_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save(model, name):
    target = FIXTURES / name
    if target.exists():
        shutil.rmtree(target)
    model.save(str(target), create_model_card=False)
    for file in target.rglob("*.safetensors"):
        file.chmod(0o644)
    size = sum(f.stat().st_size for f in target.rglob("*") if f.is_file())
    print(f"{name}: {size / 1024:.1f} KiB", sorted(str(f.relative_to(target)) for f in target.rglob("*") if f.is_file()))


def main():
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = build_tokenizer(folder)
        print("vocabulary", len(tokenizer))

        bert(tokenizer, f"{folder}/bert", 32, 2, 4, 64, seed=1)
        transformer = Transformer(f"{folder}/bert", max_seq_length=32)
        save(SentenceTransformer(modules=[transformer, Pooling(32, "mean"), Normalize()], device="cpu"), "tiny-bert")

        torch.manual_seed(2)
        weights = torch.randn(len(tokenizer), 24)
        save(SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights)], device="cpu"), "tiny-static")

        bert(tokenizer, f"{folder}/modules", 16, 1, 2, 32, seed=3)
        transformer = Transformer(f"{folder}/modules", max_seq_length=32)
        torch.manual_seed(4)
        dense = Dense(48, 12, bias=True, activation_function=torch.nn.Tanh())
        with torch.no_grad():
            dense.linear.weight.normal_(0.0, 0.2)
            dense.linear.bias.normal_(0.0, 0.2)
        pooling = Pooling(16, ("cls", "mean", "max"))
        save(SentenceTransformer(modules=[transformer, pooling, dense, Normalize()], device="cpu"), "tiny-modules")


if __name__ == "__main__":
    main()
