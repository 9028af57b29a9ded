"""curves.json: twenty optimizer steps of the real trainer on the fixtures, without dropout and without shuffling.

Rows stay in file order: `batch_sampler` is given a function that returns the library's DefaultBatchSampler over a
SequentialSampler. Dropout is set to 0 in the model's config while loading. The loss of every micro-batch is noted in
`compute_loss`, before the Trainer rounds or averages anything.

For any other model and file (the output path is relative to this folder):

    python make_curves.py --model DIR --data FILE --loss mnrl|cosent [--data FILE --loss ...] --output NAME.json
        [--batch-size 16] [--steps 20] [--learning-rate 2e-5] [--warmup-steps 0]
"""

import argparse
import json
import logging
import tempfile
import warnings
from pathlib import Path

from common import FIXTURES, HERE, ROOT, tensor, torch, versions, write
from datasets import Dataset
from torch.utils.data import SequentialSampler
from transformers import TrainerCallback

from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.base.sampler import DefaultBatchSampler
from sentence_transformers.sentence_transformer.losses import CoSENTLoss, MultipleNegativesRankingLoss
from sentences import pairs, scored

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)

LOSSES = {
    "mnrl": (MultipleNegativesRankingLoss, ["anchor", "positive"]),
    "cosent": (CoSENTLoss, ["sentence1", "sentence2", "score"]),
}
PROBES = [
    "The farmer repairs a red bicycle in the garden.",
    "Who carries the heavy box near the harbour?",
    "It was the torn map, lost behind the school.",
    "Bees carry pollen from flower to flower.",
]


def in_order(dataset, batch_size, drop_last, valid_label_columns=None, generator=None, seed=0):
    return DefaultBatchSampler(SequentialSampler(dataset), batch_size=batch_size, drop_last=drop_last)


class Recording(SentenceTransformerTrainer):
    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        self.micro_losses.append(loss.item())
        return loss


class Notes(TrainerCallback):
    def __init__(self):
        self.rates, self.losses, self.norms = [], [], []

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.losses.append(logs["loss"])
            self.norms.append(logs["grad_norm"])


def load(folder):
    config = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = SentenceTransformer(str(folder), device="cpu", config_kwargs=config, local_files_only=True)
    assert all(m.p == 0.0 for m in model.modules() if isinstance(m, torch.nn.Dropout))
    return model


def train(folder, rows, loss_name, double, accumulation=1, **settings):
    model = load(folder)
    if double:
        model.double()
    loss_class, names = LOSSES[loss_name]
    data = Dataset.from_dict({name: [row[name] for row in rows] for name in names})
    with tempfile.TemporaryDirectory() as out:
        args = SentenceTransformerTrainingArguments(
            output_dir=out,
            num_train_epochs=1,
            per_device_train_batch_size=settings["batch_size"],
            gradient_accumulation_steps=accumulation,
            learning_rate=settings["learning_rate"],
            lr_scheduler_type="linear",
            warmup_steps=settings["warmup_steps"],
            weight_decay=0.01,
            max_grad_norm=1.0,
            optim="adamw_torch",
            logging_steps=1,
            logging_nan_inf_filter=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            fp16=False,
            bf16=False,
            batch_sampler=in_order,
            seed=1,
        )
        notes = Notes()
        trainer = Recording(model=model, args=args, train_dataset=data, loss=loss_class(model), callbacks=[notes])
        trainer.micro_losses = []
        trainer.train()
        decayed = set(trainer.get_decay_parameter_names(trainer.model))
    named = [n for n, p in model.named_parameters() if p.requires_grad]
    return {
        "model": model.eval(),
        "micro": trainer.micro_losses,
        "notes": notes,
        "decay": [n for n in named if n in decayed],
        "no_decay": [n for n in named if n not in decayed],
    }


def curve(name, folder, rows, loss_name, probes, shown, names_of_groups=True, **settings):
    single = train(folder, rows, loss_name, False, **settings)
    double = train(folder, rows, loss_name, True, **settings)
    embeddings = single["model"].encode(probes, convert_to_tensor=True)
    exact = double["model"].encode(probes, convert_to_tensor=True)
    before = load(folder).encode(probes, convert_to_tensor=True)
    drift = {
        "losses": max(abs(a - b) for a, b in zip(single["micro"], double["micro"])),
        "embeddings": (embeddings - exact).abs().max().item(),
    }
    print(name, "first", single["micro"][0], "last", single["micro"][-1], "moved", (embeddings - before).abs().max().item(), "drift", drift)
    return {
        "name": name,
        **shown,
        "loss": LOSSES[loss_name][0].__name__,
        "columns": LOSSES[loss_name][1],
        "rows": len(rows),
        "gradient_accumulation_steps": 1,
        "lr_scheduler_type": "linear",
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "adam": {"betas": [0.9, 0.999], "eps": 1e-8},
        "dropout": 0.0,
        **{("gradient_accumulation_steps" if k == "accumulation" else k): v for k, v in settings.items()},
        **({"decayed_parameters": single["decay"], "undecayed_parameters": single["no_decay"]} if names_of_groups else {}),
        "losses": single["micro"],
        "losses_float64": double["micro"],
        "logged_losses": single["notes"].losses,
        "learning_rates": single["notes"].rates,
        "grad_norms": single["notes"].norms,
        "grad_norms_float64": double["notes"].norms,
        "probes": probes,
        "embeddings_before": tensor(before),
        "embeddings_after": tensor(embeddings),
        "embeddings_after_float64": tensor(exact),
        "float32_drift": drift,
    }


def write_rows(name, rows):
    (HERE / name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def read_rows(path, limit):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for _, line in zip(range(limit), lines)]


def fixtures():
    write_rows("curves_pairs.jsonl", pairs())
    write_rows("curves_scored.jsonl", scored())
    bert = dict(batch_size=8, learning_rate=2e-4, warmup_steps=0)
    static = dict(batch_size=8, learning_rate=0.05, warmup_steps=0)
    plan = [
        ("bert_mnrl", "tiny-bert", "curves_pairs.jsonl", "mnrl", bert),
        ("bert_mnrl_warmup", "tiny-bert", "curves_pairs.jsonl", "mnrl", {**bert, "warmup_steps": 0.1}),
        ("bert_cosent", "tiny-bert", "curves_scored.jsonl", "cosent", bert),
        ("static_mnrl", "tiny-static", "curves_pairs.jsonl", "mnrl", static),
        ("modules_mnrl", "tiny-modules", "curves_pairs.jsonl", "mnrl", bert),
        # 20 batches in groups of three: seven steps, the last of two batches only.
        ("bert_cosent_accumulated", "tiny-bert", "curves_scored.jsonl", "cosent", {**bert, "accumulation": 3}),
    ]
    cases = []
    for name, model, file, loss, settings in plan:
        rows = read_rows(HERE / file, 160)
        cases.append(curve(name, FIXTURES / model, rows, loss, PROBES, {"model": model, "data": file}, **settings))
    write("curves.json", {"about": versions(), "cases": cases})


def real(arguments):
    """Only numbers and our own probe texts are written: neither the rows nor where they lie."""
    cases = []
    settings = dict(
        batch_size=arguments.batch_size, learning_rate=arguments.learning_rate, warmup_steps=arguments.warmup_steps
    )
    for file, loss in zip(arguments.data, arguments.loss, strict=True):
        rows = read_rows(file, arguments.batch_size * arguments.steps)
        path = Path(file)
        shown = {"model": Path(arguments.model).name, "data": f"{path.parent.name}/{path.name}", "max_seq_length": load(arguments.model).max_seq_length}
        cases.append(curve(f"{shown['model']}_{loss}", arguments.model, rows, loss, PROBES[:3], shown, names_of_groups=False, **settings))
    write(arguments.output, {"about": versions(), "cases": cases})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--data", action="append", default=[])
    parser.add_argument("--loss", action="append", default=[], choices=sorted(LOSSES))
    parser.add_argument("--output", default="curves_other.json")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--warmup-steps", type=float, default=0)
    parser.add_argument("--minilm", action="store_true", help="the real model in ../shared beside the project")
    arguments = parser.parse_args()
    if arguments.minilm:
        shared = ROOT.parent / "shared"
        arguments.model = str(shared / "models" / "all-MiniLM-L6-v2")
        arguments.data = [str(shared / "data" / "pairs_squad" / "train.jsonl"), str(shared / "data" / "stsb" / "train.jsonl")]
        arguments.loss = ["mnrl", "cosent"]
        arguments.output = "curves_minilm.json"
    if arguments.model:
        real(arguments)
    else:
        fixtures()


if __name__ == "__main__":
    main()
