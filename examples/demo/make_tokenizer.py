"""Makes tokenizer.json from the words of train.jsonl: WordPiece, lower-case.

    pip install tokenizers
    python make_tokenizer.py

The file is kept because training breaks ties between equally frequent pieces in no fixed order.
"""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

HERE = Path(__file__).parent
texts = []
for line in (HERE / "train.jsonl").read_text(encoding="utf-8").splitlines():
    row = json.loads(line)
    texts += [row["question"], row["passage"]]

tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
tokenizer.decoder = decoders.WordPiece()
tokenizer.train_from_iterator(
    texts, trainers.WordPieceTrainer(vocab_size=2400, min_frequency=2, special_tokens=["[UNK]"], show_progress=False)
)
tokenizer.save(str(HERE / "tokenizer.json"))
print(tokenizer.get_vocab_size(), "pieces")
