"""tokenizers.json: a byte-level BPE tokenizer that the `tokenizers` library learns from the rows of curves_pairs.jsonl."""

import json

from common import HERE, write
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from tokenizers import __version__ as version


def main():
    rows = [json.loads(line) for line in (HERE / "curves_pairs.jsonl").read_text().splitlines()]
    texts = [row[column] for row in rows for column in ["anchor", "positive"]]
    cases = []
    for vocab_size, lowercase in [(420, True), (600, False)]:
        tokenizer = Tokenizer(models.BPE())
        steps = [normalizers.NFC()] + ([normalizers.Lowercase()] if lowercase else [])
        tokenizer.normalizer = normalizers.Sequence(steps)
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=vocab_size, min_frequency=2, show_progress=False, initial_alphabet=alphabet)
        tokenizer.train_from_iterator(texts, trainer)
        model = json.loads(tokenizer.to_str())["model"]
        vocab = sorted(model["vocab"], key=model["vocab"].get)
        # without the bytes, which are always there
        merges = [" ".join(merge) for merge in model["merges"]]
        cases.append({"vocab_size": vocab_size, "lowercase": lowercase, "tokens": vocab[256:], "merges": merges})
    write("tokenizers.json", {"about": {"tokenizers": version}, "cases": cases})


if __name__ == "__main__":
    main()
