"""hub_splits.json: which rows `datasets` takes for a split with slices and sums."""

import json
import tempfile
from pathlib import Path

import datasets
from common import HERE, write
from datasets import ReadInstruction, load_dataset

TERMS = [
    "train", "train[:10]", "train[10:]", "train[10:20]", "train[-7:]", "train[:-7]", "train[-20:-10]", "train[:1_0]",
    "train[:10%]", "train[10%:20%]", "train[-10%:]", "train[:-33%]", "train[33%:66%]", "train[99%:]", "train[:0]",
    "train[5:10%]", "train[5%:10]", "train[:100%]", "train[-100%:]", "train[-1000:]", "train[:1000]", "train[1000:]",
    "train[20:10]", "train[:5]+validation[5%:]", "train[:1%]+train[50%:51%]", "train + validation", "train[:5]+train[:5]",
    "train[:17%](pct1_dropremainder)", "train[17%:34%](pct1_dropremainder)", "train[-3%:](pct1_dropremainder)",
    "train[:17%](closest)", "train[:5%]+validation[:5%](pct1_dropremainder)", "train[:5](closest)", "train[:101%]",
    "train[5]", "train[a:b]", "train+", "", "train[:5%](up)",
]
SIZES = [1, 7, 50, 99, 150, 199, 1000, 1250]
# how many of the rows of curves_pairs.jsonl each split has
FILES = {"train": 50, "validation": 30}
LOADED = ["train[10:20]", "train[-5:]+validation[:10%]", "train[45%:]", "validation[3:6]+train[:2]"]


def bounds(spec, size):
    try:
        parts = ReadInstruction.from_spec(spec).to_absolute({"train": size, "validation": 30})
    except (ValueError, AssertionError):
        return None
    return [[part.splitname, part.from_, part.to] for part in parts]


def main():
    cases = [{"spec": spec, "rows": [[size, bounds(spec, size)] for size in SIZES]} for spec in TERMS]
    lines = (HERE / "curves_pairs.jsonl").read_text().splitlines()
    loaded = []
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for split, count in FILES.items():
            files[split] = str(Path(folder) / f"{split}.jsonl")
            Path(files[split]).write_text("\n".join(lines[:count]) + "\n")
        all_rows = [json.loads(line) for line in lines]
        for spec in LOADED:
            rows = load_dataset("json", data_files=files, split=spec, cache_dir=folder)
            # of equal rows the first
            numbers = [all_rows.index(dict(row)) for row in rows]
            loaded.append({"spec": spec, "rows": numbers})
    about = {"datasets": datasets.__version__, "validation": 30, "files": FILES}
    write("hub_splits.json", {"about": about, "cases": cases, "loaded": loaded})


if __name__ == "__main__":
    main()
