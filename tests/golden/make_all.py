"""Makes every golden file again, in the order in which they depend on each other.

curves_minilm.json is left alone unless `--minilm` is given: it needs the model and data in ../shared beside the project.
distill.json is left alone unless `--distill` is given: it needs model2vec, which asks for an older transformers.
"""

import subprocess
import sys

from common import HERE

SCRIPTS = [
    "fixtures", "modules", "bert", "ops", "losses", "losses_labels", "losses_own", "losses_pairs", "losses_sparse", "evaluators",
    "evaluators_pairs", "inference", "optim", "schedules", "curves", "curves_more", "denoising", "cross_encoder",
    "samplers", "negatives", "tokenizers", "backbones", "backbones_decoders", "backbones_encoders", "borrowed",
    "sparse_encoder", "sparse_more", "multi_vector", "lora", "dora", "students", "hub_splits",
]


def main():
    for name in SCRIPTS:
        print(f"== make_{name}.py", flush=True)
        subprocess.run([sys.executable, f"make_{name}.py"], cwd=HERE, check=True)
    if "--distill" in sys.argv:
        subprocess.run([sys.executable, "make_distill.py"], cwd=HERE, check=True)
    if "--minilm" in sys.argv:
        subprocess.run([sys.executable, "make_curves.py", "--minilm"], cwd=HERE, check=True)


if __name__ == "__main__":
    main()
