"""schedules.json: learning rates and step arithmetic, taken from real runs of SentenceTransformerTrainer.

Every run trains the static fixture for real; the callback below notes what the Trainer does at each step.
"""

import logging
import tempfile
import warnings

from common import FIXTURES, torch, versions, write
from datasets import Dataset
from transformers import TrainerCallback

from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss
from sentences import scored

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
ROWS = scored(500)
MODEL = SentenceTransformer(str(FIXTURES / "tiny-static"), device="cpu")


class Notes(TrainerCallback):
    def __init__(self):
        self.used, self.logged, self.epochs, self.epoch_values = [], [], [], []
        self.events = {"log": [], "evaluate": [], "save": []}

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        self.used.append(optimizer.param_groups[0]["lr"])

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.epochs.append(0)

    def on_step_end(self, args, state, control, **kwargs):
        self.epochs[-1] += 1
        self.epoch_values.append(state.epoch)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.events["log"].append(state.global_step)
            self.logged.append(logs["learning_rate"])

    def on_evaluate(self, args, state, control, **kwargs):
        self.events["evaluate"].append(state.global_step)

    def on_save(self, args, state, control, **kwargs):
        self.events["save"].append(state.global_step)


def run(rows, **arguments):
    """Trains on the first `rows` rows and returns the trainer and the notes."""
    columns = {key: [row[key] for row in ROWS[:rows]] for key in ("sentence1", "sentence2", "score")}
    data = Dataset.from_dict(columns)
    with tempfile.TemporaryDirectory() as folder:
        defaults = dict(output_dir=folder, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True, seed=1)
        args = SentenceTransformerTrainingArguments(**{**defaults, **arguments})
        notes = Notes()
        trainer = SentenceTransformerTrainer(
            model=MODEL,
            args=args,
            train_dataset=data,
            eval_dataset=data.select(range(4)) if args.eval_strategy != "no" else None,
            loss=CosineSimilarityLoss(MODEL),
            callbacks=[notes],
        )
        trainer.train()
        warmup = args.get_warmup_steps(trainer.state.max_steps)
    return trainer, notes, warmup


def schedules():
    out = []
    for kind in ("linear", "cosine", "constant", "constant_with_warmup"):
        for warmup in (0, 6, 0.1):
            trainer, notes, warmup_steps = run(
                57,
                per_device_train_batch_size=1,
                num_train_epochs=1,
                learning_rate=2e-5,
                lr_scheduler_type=kind,
                warmup_steps=warmup,
                logging_steps=1,
            )
            assert trainer.state.max_steps == 57 and notes.logged == notes.used
            out.append(
                {
                    "lr_scheduler_type": kind,
                    "warmup_steps_argument": warmup,
                    "warmup_steps": warmup_steps,
                    "total_steps": 57,
                    "base_lr": 2e-5,
                    "learning_rates": notes.used,
                    "after_last_step": trainer.lr_scheduler.get_last_lr()[0],
                }
            )
    return out


def warmup_fractions():
    out = []
    for total in (1, 9, 10, 19, 57, 100, 101, 1000):
        for value in (0, 0.03, 0.1, 0.25, 0.5, 0.999, 1, 1.9, 6):
            args = SentenceTransformerTrainingArguments(output_dir="unused", warmup_steps=value, use_cpu=True)
            out.append({"total_steps": total, "warmup_steps_argument": value, "warmup_steps": args.get_warmup_steps(total)})
    return out


def arithmetic():
    table = [
        # rows, batch, accumulation, drop_last, epochs, max_steps
        (57, 8, 1, False, 1, -1),
        (57, 8, 1, True, 1, -1),
        (56, 8, 1, False, 3, -1),
        (57, 8, 2, False, 1, -1),
        (57, 8, 2, True, 1, -1),
        (57, 8, 3, False, 2, -1),
        (57, 8, 3, True, 2, -1),
        (57, 8, 16, False, 2, -1),
        (57, 8, 1, False, 0.5, -1),
        (57, 8, 1, False, 1.5, -1),
        (57, 8, 1, False, 2.3, -1),
        (57, 8, 2, False, 1.3, -1),
        (57, 8, 1, False, 3, 5),
        (57, 8, 1, False, 1, 20),
        (57, 8, 2, False, 1, 11),
        (5, 8, 1, False, 2, -1),
        (100, 16, 1, False, 1, -1),
        (100, 16, 4, False, 3, -1),
        (64, 64, 1, True, 2, -1),
        (1, 1, 1, False, 1, -1),
    ]
    out = []
    for rows, batch, accumulation, drop_last, epochs, max_steps in table:
        trainer, notes, _ = run(
            rows,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            dataloader_drop_last=drop_last,
            num_train_epochs=epochs,
            max_steps=max_steps,
            logging_strategy="no",
        )
        loader = trainer.get_train_dataloader()
        values = trainer.set_initial_training_values(trainer.args, loader)
        assert values[-1] == trainer.state.max_steps == trainer.state.global_step
        out.append(
            {
                "rows": rows,
                "batch_size": batch,
                "gradient_accumulation_steps": accumulation,
                "drop_last": drop_last,
                "num_train_epochs": epochs,
                "max_steps_argument": max_steps,
                "batches_per_epoch": len(loader),
                "steps_per_epoch": values[1],
                "epochs_entered": values[0],
                "total_steps": trainer.state.global_step,
                "steps_run_in_each_epoch": notes.epochs,
                "epoch_after_each_step": notes.epoch_values,
            }
        )
    return out


def intervals():
    out = []
    for rows, fraction in ((57, 0.1), (57, 0.25), (57, 0.5), (57, 0.01), (57, 0.999), (57, 10), (57, 57), (57, 100), (40, 0.1), (30, 0.1), (5, 0.1)):
        trainer, notes, _ = run(
            rows,
            per_device_train_batch_size=1,
            num_train_epochs=1,
            eval_strategy="steps",
            eval_steps=fraction,
            save_strategy="steps",
            save_steps=fraction,
            save_total_limit=1,
            logging_steps=fraction,
        )
        state = trainer.state
        out.append(
            {
                "total_steps": state.max_steps,
                "argument": fraction,
                "eval_steps": int(state.eval_steps),
                "save_steps": int(state.save_steps),
                "logging_steps": int(state.logging_steps),
                "evaluated_at": notes.events["evaluate"],
                "saved_at": notes.events["save"],
                "logged_at": notes.events["log"],
            }
        )
    return out


def strategies():
    """When things happen with the epoch strategies, and what the library's defaults are."""
    trainer, notes, _ = run(
        57, per_device_train_batch_size=8, num_train_epochs=2, eval_strategy="epoch", save_strategy="epoch", logging_strategy="epoch"
    )
    defaults = SentenceTransformerTrainingArguments(output_dir="unused", use_cpu=True)
    names = [
        "learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "num_train_epochs",
        "per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps", "warmup_steps",
        "logging_steps", "save_steps", "eval_steps", "seed", "dataloader_drop_last", "max_steps", "eval_delay",
        "logging_first_step", "load_best_model_at_end",
    ]
    enums = ["lr_scheduler_type", "optim", "logging_strategy", "save_strategy", "eval_strategy", "batch_sampler", "multi_dataset_batch_sampler"]
    return {
        "epoch_strategy": {
            "total_steps": trainer.state.max_steps,
            "evaluated_at": notes.events["evaluate"],
            "saved_at": notes.events["save"],
            "logged_at": notes.events["log"],
        },
        "default_arguments": {
            **{n: getattr(defaults, n) for n in names},
            **{n: str(getattr(getattr(defaults, n), "value", getattr(defaults, n))) for n in enums},
        },
    }


def main():
    write(
        "schedules.json",
        {
            "about": versions(),
            "schedules": schedules(),
            "warmup": warmup_fractions(),
            "arithmetic": arithmetic(),
            "intervals": intervals(),
            **strategies(),
        },
    )


if __name__ == "__main__":
    main()
