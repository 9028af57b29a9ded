"""What a run reports is what TensorBoard, Weights & Biases, Trackio and MLflow have of it.

    python tests/golden/check_trackers.py TALLOW FOLDER

Needs tensorboard, wandb, trackio and mlflow-skinny; nothing leaves the machine. Every value of metrics.jsonl is looked up
under the name that Hugging Face's integrations give it.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

TALLOW = os.path.abspath(sys.argv[1])
FOLDER = Path(sys.argv[2]).resolve()
ROOT = Path(__file__).resolve().parents[1]
OWN = {
    "TALLOW_PYTHON": sys.executable,
    "HF_HUB_OFFLINE": "1",
    "WANDB_MODE": "offline",
    "WANDB_PROJECT": "from-wandb",
    "TRACKIO_DIR": str(FOLDER / "trackio"),
    "MLFLOW_TRACKING_URI": f"file://{FOLDER}/mlruns",
    "MLFLOW_EXPERIMENT_NAME": "tiny-models",
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "XDG_CACHE_HOME": str(FOLDER / "cache"),
}
os.environ.update(OWN)

RECIPE = f"""run_name = "tiny"
[model]
base = {json.dumps(str(ROOT / "fixtures/tiny-bert"))}
[train_dataset]
path = "train.jsonl"
columns = ["sentence1", "sentence2"]
label = "score"
[loss]
name = "CoSENTLoss"
[[evaluator]]
type = "EmbeddingSimilarityEvaluator"
name = "dev"
path = "dev.jsonl"
[args]
max_steps = 6
per_device_train_batch_size = 4
logging_steps = 1
eval_steps = 3
save_steps = 3
report_to = ["tensorboard", "wandb", "trackio", "mlflow"]
project = "from-the-recipe"
"""


def tallow(*arguments):
    done = subprocess.run([TALLOW, *arguments, "--json"], cwd=FOLDER, capture_output=True, text=True)
    assert done.stdout, done.stderr
    return json.loads(done.stdout), done.stderr


def train(*arguments):
    tested, _ = tallow("smoke-test", *arguments)
    assert tested.get("ok"), tested
    run, log = tallow("run", *arguments)
    assert run["state"] == "done", run
    return Path(run["run_dir"]), log


def rewritten(name):
    return f"eval/{name[5:]}" if name.startswith("eval_") else f"train/{name}"


def metrics(run):
    """Name and step to value, of training and evaluation, without what only the file has."""
    found = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        step = row.pop("step")
        seconds = row.pop("seconds")
        if "loss" not in row:
            found["eval_runtime", step] = seconds
        for name, value in row.items():
            if name != "epoch" and value is not None:
                found[name, step] = value
    assert len(found) > 20, found
    return found


def near(a, b):
    return abs(a - b) <= 1e-6 * max(abs(a), abs(b), 1e-6)


def tensorboard(run, want):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    board.Reload()
    have = {(name, e.step): e.value for name in board.Tags()["scalars"] for e in board.Scalars(name)}
    for (name, step), value in want.items():
        assert near(have[rewritten(name), step], value), (name, step, value)
    text = board.Tensors("args/text_summary")[0].tensor_proto.string_val[0].decode()
    assert '"args.learning_rate"' in text, text
    return board


def wandb(run):
    files = list(run.glob("wandb/offline-run-*/run-*.wandb"))
    assert [file.stem for file in files] == [f"run-{run.name}"], files
    data = files[0].read_bytes()
    for word in (b"train/loss", b"eval/dev_spearman_cosine", b"train/global_step", b"from-wandb", b"args.learning_rate"):
        assert word in data, word


def trackio(run, want):
    from trackio import Api
    from trackio.sqlite_storage import SQLiteStorage

    (own,) = [own for own in Api().runs("from-the-recipe") if own.name == run.name]
    assert own.config["args.learning_rate"] == 5e-5, own.config
    have = {}
    for row in SQLiteStorage.get_logs("from-the-recipe", run.name, run_id=own.id):
        have.update({(name, row["train/global_step"]): value for name, value in row.items()})
    for (name, step), value in want.items():
        assert near(have[rewritten(name), step], value), (name, step, value)


def mlflow(run, want):
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("tiny-models")
    (own,) = client.search_runs([experiment.experiment_id], f"tags.`tallow.run_id` = '{run.name}'")
    assert own.info.status == "FINISHED" and own.data.params["args.learning_rate"] == "5e-05", own
    for name in {name for name, _ in want}:
        have = {m.step: m.value for m in client.get_metric_history(own.info.run_id, name)}
        for (other, step), value in want.items():
            assert other != name or near(have[step], value), (name, step, value)


def resumed():
    """A run that was stopped and goes on has each step once."""
    more = ["--set", "args.max_steps=1500", "--set", "args.save_steps=5", "--set", 'args.report_to="tensorboard"']
    tested, _ = tallow("smoke-test", "recipe.toml", *more)
    assert tested["ok"], tested
    started, _ = tallow("run", "recipe.toml", *more, "--detach")
    while True:
        status, _ = tallow("status", started["run_id"])
        if status["step"] > 12 or status["state"] != "running":
            break
        time.sleep(0.05)
    tallow("cancel", started["run_id"])
    ended, _ = tallow("run", "--resume", started["run_id"])
    assert ended["state"] == "done", ended
    run = Path(ended["run_dir"])
    assert len(list((run / "tensorboard").iterdir())) == 2
    board = tensorboard(run, metrics(run))
    steps = [event.step for event in board.Scalars("train/loss")]
    assert steps == list(range(1, 1501)), steps


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows = (ROOT / "golden/curves_scored.jsonl").read_text().splitlines()
    (FOLDER / "train.jsonl").write_text("\n".join(rows))
    (FOLDER / "dev.jsonl").write_text("\n".join(rows[:20]))
    (FOLDER / "recipe.toml").write_text(RECIPE)
    run, log = train("recipe.toml")
    assert "warning: nothing more is reported" not in log and "left alone" not in log, log
    want = metrics(run)
    tensorboard(run, want)
    print("ok      tensorboard", flush=True)
    wandb(run)
    print("ok      wandb", flush=True)
    trackio(run, want)
    print("ok      trackio", flush=True)
    mlflow(run, want)
    print("ok      mlflow", flush=True)
    resumed()
    print("ok      a resumed run in tensorboard", flush=True)
    os.environ["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    _, log = train("recipe.toml", "--set", 'args.report_to="mlflow"')
    assert "warning: nothing more is reported to mlflow" in log, log
    print("ok      a server that is not there", flush=True)


main()
