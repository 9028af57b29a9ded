"""denoising.json: DenoisingAutoEncoderLoss on the tiny BERT, value and gradients in float64, and twenty steps of the real
trainer with it.

What only a decoder has is written into a copy of the model's folder, by a formula that the test knows, too: `sin(0.37 (i
+ 1) + salt)` for the i-th value of the salt-th tensor, scaled (and 1 more for the weights of layer norms).
"""

import json
import math
import shutil
import tempfile
from pathlib import Path

from common import FIXTURES, HERE, tensor, torch, versions, write
from make_curves import read_rows, write_rows
from make_curves_more import ROWS, load, steps
from safetensors.torch import load_file, save_file
from sentences import pairs

from sentence_transformers.sentence_transformer.losses import DenoisingAutoEncoderLoss

FILE = "curves_damaged.jsonl"


def decoder_folder(out):
    """A copy of the tiny BERT with a decoder's tensors."""
    folder = Path(out) / "tiny-decoder"
    shutil.copytree(FIXTURES / "tiny-bert", folder)
    weights = {f"bert.{name}": value for name, value in load_file(folder / "model.safetensors").items()}
    shapes = []
    for i in range(2):
        at = f"bert.encoder.layer.{i}.crossattention"
        shapes += [(f"{at}.self.value.weight", (32, 32)), (f"{at}.self.value.bias", (32,))]
        shapes += [(f"{at}.output.dense.weight", (32, 32)), (f"{at}.output.dense.bias", (32,))]
        shapes += [(f"{at}.output.LayerNorm.weight", (32,)), (f"{at}.output.LayerNorm.bias", (32,))]
    head = "cls.predictions"
    shapes += [(f"{head}.transform.dense.weight", (32, 32)), (f"{head}.transform.dense.bias", (32,))]
    shapes += [(f"{head}.transform.LayerNorm.weight", (32,)), (f"{head}.transform.LayerNorm.bias", (32,))]
    shapes += [(f"{head}.bias", (600,))]
    for salt, (name, shape) in enumerate(shapes):
        values = [0.15 * math.sin(0.37 * (i + 1) + salt) for i in range(math.prod(shape))]
        if name.endswith("LayerNorm.weight"):
            values = [1 + value for value in values]
        weights[name] = torch.tensor(values, dtype=torch.float64).float().reshape(shape)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def described(prefix, named):
    out = []
    for name, param in named:
        if param.grad is None or param.grad.norm() < 1e-10:
            continue
        grad = param.grad.reshape(-1)
        out.append({"name": prefix + name.removeprefix("bert."), "norm": grad.norm().item(), "first": tensor(grad[:5])})
    return out


def gradients(folder, tied):
    model = load(folder)
    options = {} if tied else {"decoder_name_or_path": str(folder), "tie_encoder_decoder": False}
    loss = DenoisingAutoEncoderLoss(model, **options).double()
    original = [
        "The farmer repairs a red bicycle in the garden.", "Bees.", "Who carries the heavy box near the harbour?",
        "It was the torn map, lost behind the school.",
    ]
    damaged = ["farmer red garden", "Bees.", "carries the", "map, behind the school."]
    value = loss([model.preprocess(damaged), model.preprocess(original)], None)
    value.backward()
    names = described("decoder: ", loss.decoder.named_parameters())
    if not tied:
        names += described("model: ", model.transformers_model.named_parameters())
    return {"tied": tied, "damaged": damaged, "original": original, "value": value.item(), "gradients": names}


def main():
    rows = [{"original": r["positive"], "damaged": " ".join(r["positive"].split()[::2])} for r in pairs(ROWS)]
    write_rows(FILE, [{"damaged": r["damaged"], "original": r["original"]} for r in rows])
    rows = read_rows(HERE / FILE, ROWS)
    with tempfile.TemporaryDirectory() as out:
        folder = decoder_folder(out)
        cases = [gradients(folder, tied) for tied in (True, False)]
        curves = [
            steps("denoising", "", {"train": rows}, lambda m: DenoisingAutoEncoderLoss(m), folder=folder),
            steps("denoising_untied", "", {"train": rows}, lambda m: DenoisingAutoEncoderLoss(
                m, decoder_name_or_path=str(folder), tie_encoder_decoder=False), folder=folder),
        ]
    write("denoising.json", {"about": versions(), "cases": cases, "curves": curves})


if __name__ == "__main__":
    main()
