"""samplers.json: which rows the library's samplers put together, with torch's permutations replaced by the order of the
data, since other random numbers would say nothing of the rules."""

import random

from common import torch, versions, write
from datasets import Dataset
from torch.utils.data import ConcatDataset, SequentialSampler

from sentence_transformers.base.sampler import (
    DefaultBatchSampler,
    GroupByLabelBatchSampler,
    NoDuplicatesBatchSampler,
    ProportionalBatchSampler,
    RoundRobinBatchSampler,
)

torch.randperm = lambda n, generator=None, dtype=torch.int64, **_: torch.arange(n, dtype=dtype)
rng = random.Random(3)
cases = []


def texts(rows, columns, distinct):
    """The texts are numbers; cubes make a few of them common."""
    return [[int(rng.random() ** 3 * distinct) for _ in range(columns)] for _ in range(rows)]


def dataset(rows):
    return Dataset.from_dict({f"c{i}": [str(row[i]) for row in rows] for i in range(len(rows[0]))})


def main():
    for rows, size in ((10, 3), (9, 3), (1, 4)):
        for drop_last in (False, True):
            data = dataset(texts(rows, 1, 50))
            sampler = DefaultBatchSampler(SequentialSampler(data), batch_size=size, drop_last=drop_last)
            cases.append({
                "sampler": "batch_sampler", "texts": [[0]] * rows, "batch_size": size, "drop_last": drop_last,
                "batches": list(sampler),
            })
    for rows, columns, distinct, size in ((30, 1, 12, 4), (40, 2, 60, 8), (60, 3, 200, 8), (25, 2, 8, 3), (50, 2, 1000, 16)):
        for drop_last in (False, True):
            made = texts(rows, columns, distinct)
            sampler = NoDuplicatesBatchSampler(dataset(made), batch_size=size, drop_last=drop_last)
            plain = lambda i: {str(t) for t in made[i]}
            one = list(sampler._iter_one_pass(plain, lambda sample, batch: not sample.isdisjoint(batch)))
            for name in ("no_duplicates", "no_duplicates_hashed"):
                cases.append({
                    "sampler": name, "texts": made, "batch_size": size, "drop_last": drop_last, "batches": one,
                })
    for counts in ([6, 4, 9], [2, 3], [5, 1, 1, 8, 2], [11, 12]):
        labels = [label for label, n in enumerate(counts) for _ in range(n)]
        rng.shuffle(labels)
        for size in (4, 6):
            for drop_last in (False, True):
                data = Dataset.from_dict({"c0": [str(i) for i in range(len(labels))], "label": labels})
                sampler = GroupByLabelBatchSampler(data, size, drop_last, valid_label_columns=["label"])
                batches = list(sampler)
                assert len(batches) == len(sampler)
                cases.append({
                    "sampler": "group_by_label", "texts": [[i] for i in range(len(labels))], "labels": labels,
                    "batch_size": size, "drop_last": drop_last, "batches": batches,
                })
    for lengths in ([12, 5, 7], [4, 4], [9]):
        data = [Dataset.from_dict({"c0": [str(i) for i in range(n)]}) for n in lengths]
        for name, kind in (("round_robin", RoundRobinBatchSampler), ("proportional", ProportionalBatchSampler)):
            own = [DefaultBatchSampler(SequentialSampler(d), batch_size=2, drop_last=False) for d in data]
            mixed = list(kind(ConcatDataset(data), own, generator=torch.Generator(), seed=1))
            starts = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
            sets = [next(i for i in range(len(lengths)) if batch[0] < starts[i + 1]) for batch in mixed]
            cases.append({
                "sampler": name, "lengths": lengths, "batch_size": 2,
                "batches": [[i - starts[s] for i in batch] for s, batch in zip(sets, mixed)], "sets": sets,
            })
    write("samplers.json", {"about": versions(), "cases": cases})
    print(len(cases), "cases")


if __name__ == "__main__":
    main()
