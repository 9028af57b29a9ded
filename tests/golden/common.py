"""Helpers shared by the golden-value scripts: paths, seeds, number formatting.

Import this first: it makes torch single-threaded and keeps the Hugging Face libraries offline.
"""

import json
import math
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import numpy as np
import torch

torch.set_num_threads(1)

HERE = Path(__file__).resolve().parent
FIXTURES = HERE.parent / "fixtures"
ROOT = HERE.parent.parent


def number(value, digits):
    """A JSON token: shortest of the `digits`-digit form; integers stay short; NaN and infinity become null."""
    value = float(value)
    if math.isnan(value) or math.isinf(value):
        return "null"
    if value == 0.0:
        return "0"
    return f"{value:.{digits}g}"


class Raw(str):
    """A ready-made JSON fragment that `dumps` inserts as it is."""


def tensor(value):
    """{"shape": [...], "data": [...]}: 9 digits for float32, 17 for float64, integers as they are."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    value = np.asarray(value)
    flat = value.reshape(-1)
    if value.dtype == np.float32:
        data = ",".join(number(x, 9) for x in flat)
    elif value.dtype == np.float64:
        data = ",".join(number(x, 17) for x in flat)
    else:
        data = ",".join(str(int(x)) for x in flat)
    return Raw('{"shape":[%s],"data":[%s]}' % (",".join(str(d) for d in value.shape), data))


def dumps(value, depth=0, break_to=3):
    """Compact JSON; line breaks only down to the nesting level `break_to`, so that files stay readable in a diff."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        items = [json.dumps(str(k)) + ":" + dumps(v, depth + 1, break_to) for k, v in value.items()]
        opening, closing = "{", "}"
    elif isinstance(value, (list, tuple)):
        items = [dumps(v, depth + 1, break_to) for v in value]
        opening, closing = "[", "]"
    elif isinstance(value, bool) or value is None:
        return json.dumps(value)
    elif isinstance(value, (float, np.floating)):
        return number(value, 17 if isinstance(value, (float, np.float64)) else 9)
    elif isinstance(value, np.integer):
        return str(int(value))
    else:
        return json.dumps(value, ensure_ascii=False)
    if not items:
        return opening + closing
    if depth < break_to and any(len(item) > 60 for item in items):
        return opening + "\n" + ",\n".join(items) + "\n" + closing
    return opening + ",".join(items) + closing


def versions():
    import sentence_transformers
    import transformers

    return {
        "sentence_transformers": sentence_transformers.__version__,
        "transformers": transformers.__version__,
        "torch": torch.__version__.split("+")[0],
    }


def write(name, value, break_to=3):
    path = HERE / name
    text = dumps(value, break_to=break_to) + "\n"
    json.loads(text)
    path.write_text(text, encoding="utf-8")
    print(f"{name}: {len(text) / 1024:.1f} KiB")
