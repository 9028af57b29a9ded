"""curves_more.json: twenty steps of the real trainer with losses of many families and with several data sets, without
dropout and without shuffling. Each case holds the recipe that has to follow it; `$FIXTURES` and `$GOLDEN` stand for
folders."""

import json
import random
import tempfile

from common import FIXTURES, HERE, tensor, versions, write
from datasets import Dataset
from make_curves import PROBES, Notes, Recording, in_order, load, read_rows, write_rows
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer import losses
from sentence_transformers.sentence_transformer.losses import TripletDistanceMetric
from sentences import PEOPLE, pairs, scored

ROWS = 160
BATCH = 8
RATE = 2e-4
LABELLED = "curves_labelled.jsonl"
EQUAL = "curves_equal.jsonl"


def labelled():
    """Triplets with a class, a margin and two scores: all that losses with labels want of the same small rows."""
    rng = random.Random(17)
    rows, other = pairs(ROWS), scored(ROWS)
    out = []
    for i, row in enumerate(rows):
        negative = rows[(i + 37) % len(rows)]["positive"]
        first = other[i]["sentence1"]
        out.append({
            "anchor": row["anchor"], "positive": row["positive"], "negative": negative,
            "sentence": first, "class": next(k for k, who in enumerate(PEOPLE) if first.startswith(who)) // 2,
            "same": int(other[i]["score"] > 0.5), "margin": round(rng.uniform(-0.5, 1.5), 2),
            "scores": [round(rng.uniform(0, 2), 2), round(rng.uniform(-1, 1), 2)],
        })
    return out


def steps(name, recipe, datasets, make_loss, mixing=None, prompts=None, folder=FIXTURES / "tiny-bert"):
    model = load(folder)
    data = {key: Dataset.from_list(rows) for key, rows in datasets.items()}
    with tempfile.TemporaryDirectory() as out:
        args = SentenceTransformerTrainingArguments(
            output_dir=out, num_train_epochs=1, per_device_train_batch_size=BATCH, learning_rate=RATE,
            lr_scheduler_type="linear", weight_decay=0.01, max_grad_norm=1.0, optim="adamw_torch", logging_steps=1,
            logging_nan_inf_filter=False, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
            batch_sampler=in_order, seed=1, prompts=prompts, **({"multi_dataset_batch_sampler": mixing} if mixing else {}),
        )
        notes = Notes()
        loss = make_loss(model)
        trainer = Recording(
            model=model, args=args, train_dataset=data if len(data) > 1 else next(iter(data.values())), loss=loss,
            callbacks=[notes],
        )
        trainer.micro_losses = []
        trainer.train()
    print(name, len(notes.losses), "steps", notes.losses[0], "to", notes.losses[-1], flush=True)
    return {
        "name": name, "recipe": recipe, "losses": notes.losses, "grad_norms": notes.norms, "probes": PROBES[:2],
        "embeddings_after": tensor(model.eval().encode(PROBES[:2], convert_to_tensor=True)),
    }


def one(name, file, columns, make_loss, loss, label=None, prompts=None):
    """One data set; `columns` in the loss's order, the label under the name the reference looks for."""
    rows = read_rows(HERE / file, ROWS)
    keep = [*columns, *([label] if label else [])]
    rows = [{("label" if key == label else key): row[key] for key in keep} for row in rows]
    recipe = f'[[train_dataset]]\npath = "$GOLDEN/{file}"\ncolumns = {json.dumps(columns)}\n'
    recipe += f'label = "{label}"\n' if label else ""
    recipe += "[loss]\n" + loss
    recipe += f"[args]\nprompts = {table(prompts)}\n" if prompts else ""
    return steps(name, recipe, {"train": rows}, make_loss, prompts=prompts)


def table(prompts):
    """A dictionary of texts as TOML has it in one line."""
    if isinstance(prompts, str):
        return json.dumps(prompts)
    return "{ " + ", ".join(f"{key} = {table(value)}" for key, value in prompts.items()) + " }"


def mixed(mixing, prompts=None):
    """Two data sets of different length, each with its loss."""
    first, second = read_rows(HERE / "curves_pairs.jsonl", 80), read_rows(HERE / "curves_scored.jsonl", 96)
    second = [{"sentence1": r["sentence1"], "sentence2": r["sentence2"], "label": r["score"]} for r in second]
    recipe = f"""[[train_dataset]]
path = "$GOLDEN/curves_pairs.jsonl"
name = "pairs"
columns = ["anchor", "positive"]
limit = 80
loss = {{ name = "MultipleNegativesRankingLoss" }}
[[train_dataset]]
path = "$GOLDEN/curves_scored.jsonl"
name = "scored"
columns = ["sentence1", "sentence2"]
label = "score"
limit = 96
loss = {{ name = "CoSENTLoss" }}
[args]
multi_dataset_batch_sampler = "{mixing}"
"""
    recipe += f"prompts = {table(prompts)}\n" if prompts else ""
    make = lambda model: {
        "pairs": losses.MultipleNegativesRankingLoss(model), "scored": losses.CoSENTLoss(model),
    }
    name = f"sets_{mixing}{'_prompts' if prompts else ''}"
    return steps(name, recipe, {"pairs": first, "scored": second}, make, mixing, prompts)


def equal():
    """Pairs of which every third is a text with itself."""
    rows = pairs(ROWS)
    return [{"anchor": r["anchor"], "positive": r["anchor" if i % 3 == 0 else "positive"]} for i, r in enumerate(rows)]


def main():
    write_rows(LABELLED, labelled())
    write_rows(EQUAL, equal())
    pair, triplet, scores = ["anchor", "positive"], ["anchor", "positive", "negative"], ["sentence1", "sentence2"]
    guide = SentenceTransformer(str(FIXTURES / "tiny-bert"), device="cpu")
    guide_line = 'guide = "$FIXTURES/tiny-bert"\n'
    cases = [
        one("symmetric", "curves_pairs.jsonl", pair,
            lambda m: losses.MultipleNegativesSymmetricRankingLoss(m), 'name = "MultipleNegativesSymmetricRankingLoss"\n'),
        one("mnrl_hard_negatives", LABELLED, triplet,
            lambda m: losses.MultipleNegativesRankingLoss(m), 'name = "MultipleNegativesRankingLoss"\n'),
        one("matryoshka", "curves_pairs.jsonl", pair,
            lambda m: losses.MatryoshkaLoss(m, losses.MultipleNegativesRankingLoss(m), [32, 16, 8]),
            'name = "MultipleNegativesRankingLoss"\n[loss.matryoshka]\ndims = [32, 16, 8]\n'),
        one("adaptive_layer", "curves_pairs.jsonl", pair,
            lambda m: losses.AdaptiveLayerLoss(m, losses.MultipleNegativesRankingLoss(m), n_layers_per_step=-1),
            'name = "MultipleNegativesRankingLoss"\n[loss.adaptive_layer]\nn_layers_per_step = -1\n'),
        one("matryoshka_2d", "curves_pairs.jsonl", pair,
            lambda m: losses.Matryoshka2dLoss(
                m, losses.MultipleNegativesRankingLoss(m), [32, 8], n_layers_per_step=-1, n_dims_per_step=-1),
            'name = "Matryoshka2dLoss"\nloss = { name = "MultipleNegativesRankingLoss" }\ndims = [32, 8]\n'
            "n_layers_per_step = -1\nn_dims_per_step = -1\n"),
        one("gist", LABELLED, triplet, lambda m: losses.GISTEmbedLoss(m, guide, temperature=0.05),
            f'name = "GISTEmbedLoss"\ntemperature = 0.05\n{guide_line}'),
        one("mega_batch_margin", "curves_pairs.jsonl", pair,
            lambda m: losses.MegaBatchMarginLoss(m, use_mini_batched_version=False),
            'name = "MegaBatchMarginLoss"\nuse_mini_batched_version = false\n'),
        one("triplet", LABELLED, triplet,
            lambda m: losses.TripletLoss(m, TripletDistanceMetric.COSINE, 0.3),
            'name = "TripletLoss"\ndistance_metric = "cosine"\ntriplet_margin = 0.3\n'),
        one("batch_all_triplet", LABELLED, ["sentence"], lambda m: losses.BatchAllTripletLoss(m, margin=0.5),
            'name = "BatchAllTripletLoss"\nmargin = 0.5\n', label="class"),
        one("contrastive", LABELLED, ["anchor", "negative"], lambda m: losses.ContrastiveLoss(m),
            'name = "ContrastiveLoss"\n', label="same"),
        one("online_contrastive", LABELLED, ["anchor", "negative"], lambda m: losses.OnlineContrastiveLoss(m),
            'name = "OnlineContrastiveLoss"\n', label="same"),
        one("cosine_similarity", "curves_scored.jsonl", scores, lambda m: losses.CosineSimilarityLoss(m),
            'name = "CosineSimilarityLoss"\n', label="score"),
        one("angle", "curves_scored.jsonl", scores, lambda m: losses.AnglELoss(m),
            'name = "AnglELoss"\n', label="score"),
        one("margin_mse", LABELLED, triplet, lambda m: losses.MarginMSELoss(m), 'name = "MarginMSELoss"\n', label="margin"),
        one("distill_kl_div", LABELLED, triplet, lambda m: losses.DistillKLDivLoss(m, temperature=2.0),
            'name = "DistillKLDivLoss"\ntemperature = 2.0\n', label="scores"),
        one("contrastive_tension", LABELLED, ["anchor", "negative"], lambda m: losses.ContrastiveTensionLoss(m),
            'name = "ContrastiveTensionLoss"\n', label="same"),
        one("contrastive_tension_without_labels", EQUAL, pair, lambda m: losses.ContrastiveTensionLoss(m),
            'name = "ContrastiveTensionLoss"\n'),
        one("contrastive_tension_in_batch_negatives", "curves_pairs.jsonl", ["anchor"],
            lambda m: losses.ContrastiveTensionLossInBatchNegatives(m),
            'name = "ContrastiveTensionLossInBatchNegatives"\n'),
        mixed("round_robin"),
        one("prompts", LABELLED, triplet, lambda m: losses.MultipleNegativesRankingLoss(m),
            'name = "MultipleNegativesRankingLoss"\n',
            prompts={"anchor": "the question: ", "positive": "the answer: ", "negative": "the answer: "}),
        mixed("round_robin", {"pairs": {"anchor": "the question: "}, "scored": "who sells it? "}),
    ]
    write("curves_more.json", {"about": versions(), "cases": cases})


if __name__ == "__main__":
    main()
