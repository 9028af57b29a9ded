"""cross_encoder.json and fixtures/tiny-cross-encoder, tiny-classifier: rerankers' scores, and twenty steps of the real
trainer with losses of several families, without dropout and without shuffling.

tiny-cross-encoder is saved as sentence-transformers 6 does it, tiny-classifier (three labels) as versions before 4 did:
a transformers directory whose config.json names the activation.
"""

import json
import random
import shutil
import tempfile

from common import FIXTURES, HERE, tensor, torch, versions, write
from datasets import Dataset
from make_curves import Notes, in_order, read_rows, write_rows
from sentence_transformers import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder import losses
from sentences import pairs

ROWS = 160
BATCH = 8
RATE = 2e-4
LISTS = "curves_lists.jsonl"
CONFIG = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def load(folder, **settings):
    return CrossEncoder(str(folder), device="cpu", config_kwargs=dict(CONFIG), local_files_only=True, **settings)


def fixtures():
    torch.manual_seed(11)
    model = CrossEncoder(str(FIXTURES / "tiny-bert"), device="cpu", num_labels=1, max_length=40)
    torch.nn.init.normal_(model.model.classifier.weight, std=0.5)
    torch.nn.init.normal_(model.model.bert.pooler.dense.weight, std=0.3)
    torch.nn.init.normal_(model.model.classifier.bias, std=0.2)
    folder = FIXTURES / "tiny-cross-encoder"
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(str(folder), create_model_card=False)
    classifier = CrossEncoder(str(FIXTURES / "tiny-bert"), device="cpu", num_labels=3)
    torch.nn.init.normal_(classifier.model.classifier.weight, std=0.5)
    torch.nn.init.normal_(classifier.model.bert.pooler.dense.weight, std=0.3)
    folder = FIXTURES / "tiny-classifier"
    shutil.rmtree(folder, ignore_errors=True)
    classifier.model.config.sbert_ce_default_activation_function = "torch.nn.modules.linear.Identity"
    classifier.model.save_pretrained(str(folder))
    classifier.tokenizer.save_pretrained(str(folder))


def questions():
    """Pairs of all lengths, some too long together: by the first text, by the second, by both."""
    rows = pairs(12)
    out = [[row["anchor"], row["positive"]] for row in rows]
    long = " ".join(row["positive"] for row in rows)
    return out + [[long, "a red bicycle"], ["Who carries the box?", long], [long, long], ["bees", "bees"]]


def lists():
    """A query and two to four documents with grades, as listwise losses take them."""
    rng = random.Random(29)
    rows = pairs(ROWS)
    out = []
    for i, row in enumerate(rows):
        count = rng.randint(2, 4)
        others = [rows[(i + 17 * (k + 1)) % ROWS]["positive"] for k in range(count - 1)]
        grades = [3] + [rng.randint(0, 2) for _ in others]
        order = list(range(count))
        rng.shuffle(order)
        documents = [row["positive"], *others]
        out.append({"query": row["anchor"], "docs": [documents[k] for k in order], "labels": [grades[k] for k in order]})
    return out


def steps(name, recipe, rows, make_loss, **model_settings):
    model = load(FIXTURES / "tiny-cross-encoder", **model_settings)
    with tempfile.TemporaryDirectory() as out:
        args = CrossEncoderTrainingArguments(
            output_dir=out, num_train_epochs=1, per_device_train_batch_size=BATCH, learning_rate=RATE,
            lr_scheduler_type="linear", weight_decay=0.01, max_grad_norm=1.0, optim="adamw_torch", logging_steps=1,
            logging_nan_inf_filter=False, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
            batch_sampler=in_order, seed=1,
        )
        notes = Notes()
        trainer = CrossEncoderTrainer(
            model=model, args=args, train_dataset=Dataset.from_list(rows), loss=make_loss(model), callbacks=[notes],
        )
        trainer.train()
    print(name, len(notes.losses), "steps", notes.losses[0], "to", notes.losses[-1], flush=True)
    probes = [(row["anchor"], row["positive"]) for row in pairs(6)]
    scores = model.eval().predict(probes, activation_fn=torch.nn.Identity(), convert_to_tensor=True)
    return {
        "name": name, "recipe": recipe, "losses": notes.losses, "grad_norms": notes.norms,
        "probes": [list(probe) for probe in probes], "logits_after": tensor(scores),
    }


def one(name, file, columns, make_loss, loss, label=None, model="", count=ROWS, **settings):
    rows = read_rows(HERE / file, count)
    keep = [*columns, *([label] if label else [])]
    rows = [{("label" if key == label else key): row[key] for key in keep} for row in rows]
    recipe = f'[[train_dataset]]\npath = "$GOLDEN/{file}"\ncolumns = {json.dumps(columns)}\n'
    recipe += f'label = "{label}"\n' if label else ""
    recipe += f"limit = {count}\n"
    recipe = f"[model]\nbase = \"$FIXTURES/tiny-cross-encoder\"\ndropout = 0.0\n{model}{recipe}[loss]\n{loss}"
    return steps(name, recipe, rows, make_loss, **settings)


def main():
    fixtures()
    write_rows(LISTS, lists())
    predictions = []
    for fixture in ("tiny-cross-encoder", "tiny-classifier"):
        model = CrossEncoder(str(FIXTURES / fixture), device="cpu", local_files_only=True)
        for prompt in (None, "who is: "):
            for activation in (None, "Identity", "Sigmoid"):
                function = activation and getattr(torch.nn, activation)()
                scores = model.predict(questions(), prompt=prompt, activation_fn=function, convert_to_tensor=True)
                predictions.append({"fixture": fixture, "prompt": prompt, "activation_fn": activation, "scores": tensor(scores)})
    ranker = CrossEncoder(str(FIXTURES / "tiny-cross-encoder"), device="cpu", local_files_only=True)
    query, documents = questions()[0][0], [pair[1] for pair in questions()]
    ranking = [[hit["corpus_id"], float(hit["score"])] for hit in ranker.rank(query, documents)]
    labelled, triplet, listed = "curves_labelled.jsonl", ["anchor", "positive", "negative"], ["query", "docs"]
    identity = {"activation_fn": torch.nn.Identity()}
    cases = [
        one("binary_cross_entropy", labelled, ["anchor", "negative"],
            lambda m: losses.BinaryCrossEntropyLoss(m, pos_weight=torch.tensor(2.0)),
            'name = "BinaryCrossEntropyLoss"\npos_weight = 2.0\n', label="same"),
        one("margin_mse", labelled, triplet, lambda m: losses.MarginMSELoss(m), 'name = "MarginMSELoss"\n',
            label="margin", **identity),
        one("mse", labelled, ["anchor", "positive"], lambda m: losses.MSELoss(m), 'name = "MSELoss"\n', label="margin", **identity),
        one("multiple_negatives_ranking", labelled, triplet,
            lambda m: losses.MultipleNegativesRankingLoss(m, num_negatives=None),
            # further on a batch has a text twice, which is no negative of its own anchor here
            'name = "MultipleNegativesRankingLoss"\nnum_negatives = 14\n', count=136, **identity),
        one("lambda", LISTS, listed, lambda m: losses.LambdaLoss(m), 'name = "LambdaLoss"\n', label="labels", **identity),
        one("list_net", LISTS, listed, lambda m: losses.ListNetLoss(m), 'name = "ListNetLoss"\n', label="labels", **identity),
        one("plist_mle", LISTS, listed, lambda m: losses.PListMLELoss(m, respect_input_order=False),
            'name = "PListMLELoss"\nrespect_input_order = false\n', label="labels", **identity),
        one("rank_net", LISTS, listed, lambda m: losses.RankNetLoss(m), 'name = "RankNetLoss"\n', label="labels", **identity),
    ]
    write("cross_encoder.json", {
        "about": versions(), "pairs": questions(), "predictions": predictions,
        "ranking": {"query": query, "documents": documents, "hits": ranking}, "cases": cases,
    })


if __name__ == "__main__":
    main()
