"""dora.json and the fixture tiny-adapter-dora: an adapter with magnitudes (DoRA) as PEFT saves it, hidden states and
gradients with it, the weights that merging it gives, and three steps of the trainer."""

import json
import shutil
from pathlib import Path

import torch
from common import FIXTURES, tensor, versions, write
from make_curves import read_rows
from make_curves_more import HERE, steps
from make_lora import TEXTS, gradients
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from sentence_transformers.sentence_transformer import losses
from transformers import AutoModel, AutoTokenizer

TARGETS = ["query", "intermediate.dense"]


def adapt(network, folder):
    """Matrices that are not zero, and lengths that are not those of the weights."""
    config = LoraConfig(
        r=2, lora_alpha=4, lora_dropout=0.0, use_dora=True, target_modules=TARGETS, task_type="FEATURE_EXTRACTION")
    network = get_peft_model(network, config)
    generator = torch.Generator().manual_seed(12)
    for name, param in network.named_parameters():
        if "magnitude" in name:
            param.data = param.data * (1 + 0.2 * torch.randn(param.shape, generator=generator))
        elif "lora_" in name:
            param.data = 0.3 * torch.randn(param.shape, generator=generator)
    shutil.rmtree(folder, ignore_errors=True)
    network.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)
    (folder / "adapter_model.safetensors").chmod(0o644)
    saved = json.loads((folder / "adapter_config.json").read_text())
    saved["base_model_name_or_path"] = Path(saved["base_model_name_or_path"]).name
    (folder / "adapter_config.json").write_text(json.dumps(saved, indent=2) + "\n")
    return network


def main():
    torch.manual_seed(3)
    folder = FIXTURES / "tiny-adapter-dora"
    network = adapt(AutoModel.from_pretrained(FIXTURES / "tiny-bert"), folder).double().eval()
    tokenizer = AutoTokenizer.from_pretrained(FIXTURES / "tiny-bert")
    hidden = torch.cat([network(**tokenizer(text, return_tensors="pt")).last_hidden_state[0] for text in TEXTS])
    found = {
        # the file knows a vector and no module around it
        name.replace("vector.weight", "vector"): gradient for name, gradient in gradients(network, hidden).items()
    }
    case = {
        "token_ids": [tokenizer(text).input_ids for text in TEXTS], "hidden": tensor(hidden.float()),
        "gradients": {name: gradient for name, gradient in found.items()},
    }
    merged = network.merge_and_unload()
    case["merged"] = {"encoder.layer.1.attention.self.query.weight": tensor(
        merged.state_dict()["encoder.layer.1.attention.self.query.weight"].float())}

    def with_adapter(model):
        model[0].auto_model.load_adapter(str(folder), is_trainable=True)
        # transformers looks for the magnitudes by another name, and leaves them as they began
        saved = load_file(folder / "adapter_model.safetensors")
        missing = set(saved)
        for name, param in model.named_parameters():
            param.requires_grad = "lora_" in name
            inner = name.split("model.", 1)[-1].replace(".default", "").replace("vector.weight", "vector")
            if param.requires_grad:
                param.data.copy_(saved["base_model.model." + inner])
                missing.remove("base_model.model." + inner)
        assert not missing, missing
        return losses.MultipleNegativesRankingLoss(model)

    rows = [{key: row[key] for key in ["anchor", "positive"]} for row in read_rows(HERE / "curves_pairs.jsonl", 24)]
    recipe = """[model]
base = "$FIXTURES/tiny-bert"
dropout = 0.0
[model.lora]
r = 2
alpha = 4
use_dora = true
target_modules = ["query", "intermediate.dense"]
adapter = "$FIXTURES/tiny-adapter-dora"
[[train_dataset]]
path = "$GOLDEN/curves_pairs.jsonl"
columns = ["anchor", "positive"]
limit = 24
[loss]
name = "MultipleNegativesRankingLoss"
"""
    write("dora.json", {"about": versions(), "hidden": case, "curve": steps("dora", recipe, {"train": rows}, with_adapter)})


if __name__ == "__main__":
    main()
