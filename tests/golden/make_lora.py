"""lora.json and the fixtures tiny-adapter and tiny-adapter-classifier: adapters as PEFT saves them, what models give with
them, the gradients of their matrices, and twenty steps of the trainer that change nothing else."""

import json
import shutil
from pathlib import Path

import torch
from common import FIXTURES, tensor, versions, write
from make_curves import PROBES, load, read_rows
from make_curves_more import HERE, steps
from peft import LoraConfig, get_peft_model
from sentence_transformers.sentence_transformer import losses
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

TARGETS = ["query", "value", "intermediate.dense"]
TEXTS = PROBES[:3]


def adapt(network, folder, **more):
    """An adapter whose second matrices are not zero, saved."""
    network = get_peft_model(network, LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, **more))
    generator = torch.Generator().manual_seed(11)
    for name, param in network.named_parameters():
        if "lora_" in name:
            param.data = 0.3 * torch.randn(param.shape, generator=generator)
    shutil.rmtree(folder, ignore_errors=True)
    network.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)
    (folder / "adapter_model.safetensors").chmod(0o644)
    # the base is named by its folder here, wherever that lies
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = Path(config["base_model_name_or_path"]).name
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return network


def gradients(network, outputs):
    """Of `sum(output_k * sin(0.1 k))`, by the names of the adapter's file."""
    flat = outputs.flatten()
    (flat * torch.sin(0.1 * torch.arange(flat.numel(), dtype=flat.dtype))).sum().backward()
    # the adapter's name stands in the module's names and not in the file's
    return {
        name.replace("modules_to_save.default.", "").replace(".default", ""): tensor(param.grad) for name, param in network.named_parameters() if param.requires_grad
    }


def bi_encoder():
    folder = FIXTURES / "tiny-adapter"
    network = adapt(
        AutoModel.from_pretrained(FIXTURES / "tiny-bert"), folder, target_modules=TARGETS, task_type="FEATURE_EXTRACTION"
    )
    network = network.double().eval()
    tokenizer = AutoTokenizer.from_pretrained(FIXTURES / "tiny-bert")
    hidden = torch.cat([network(**tokenizer(text, return_tensors="pt")).last_hidden_state[0] for text in TEXTS])
    ids = [tokenizer(text).input_ids for text in TEXTS]
    case = {"token_ids": ids, "hidden": tensor(hidden.detach()), "gradients": gradients(network, hidden)}

    def with_adapter(model):
        model[0].auto_model.load_adapter(str(folder), is_trainable=True)
        # as `add_adapter` leaves it: the network is frozen, the adapter is trained
        for name, param in model.named_parameters():
            param.requires_grad = "lora_" in name
        return losses.MultipleNegativesRankingLoss(model)

    rows = [{key: row[key] for key in ["anchor", "positive"]} for row in read_rows(HERE / "curves_pairs.jsonl", 160)]
    recipe = """[model]
base = "$FIXTURES/tiny-bert"
dropout = 0.0
[model.lora]
r = 4
alpha = 8
target_modules = ["query", "value", "intermediate.dense"]
adapter = "$FIXTURES/tiny-adapter"
[[train_dataset]]
path = "$GOLDEN/curves_pairs.jsonl"
columns = ["anchor", "positive"]
limit = 160
[loss]
name = "MultipleNegativesRankingLoss"
"""
    return case, steps("lora", recipe, {"train": rows}, with_adapter)


def classifier():
    folder = FIXTURES / "tiny-adapter-classifier"
    base = FIXTURES / "tiny-cross-encoder"
    network = adapt(
        AutoModelForSequenceClassification.from_pretrained(base), folder, target_modules=["query"], task_type="SEQ_CLS"
    )
    network = network.double().eval()
    tokenizer = AutoTokenizer.from_pretrained(base)
    pairs = [(TEXTS[0], TEXTS[1]), (TEXTS[2], TEXTS[0])]
    logits = torch.cat([network(**tokenizer(*pair, return_tensors="pt")).logits for pair in pairs])
    return {"pairs": pairs, "logits": tensor(logits.detach()), "gradients": gradients(network, logits)}


def main():
    torch.manual_seed(3)
    hidden, curve = bi_encoder()
    write("lora.json", {"about": versions(), "hidden": hidden, "classifier": classifier(), "curve": curve})


if __name__ == "__main__":
    main()
