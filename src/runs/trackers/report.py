"""Reports the metrics of a tallow run to Trackio, Weights & Biases or MLflow, by their documented Python interfaces.

Reads JSON lines on standard input: {"start": {...}} first, {"log": {"step": n, "metrics": {...}}} for each step, and
{"finish": "done" | "failed" | "cancelled"} last. Whatever is printed goes to standard error.
"""

import sys

# `python -c` looks for modules in the current directory first, where a file may be called as a module is
sys.path[:] = [path for path in sys.path if path]

import importlib
import json
import os
import re
import signal

# the terminal's Ctrl-C is for the run, which says how it ended
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.stdout = sys.stderr


def rewritten(metrics):
    """Names as the Trainer rewrites them."""
    return {f"eval/{k[5:]}" if k.startswith("eval_") else f"train/{k}": v for k, v in metrics.items()}


class Wandb:
    def __init__(self, package, start):
        self.wandb = package
        os.environ.setdefault("WANDB_SILENT", "true")
        known = {} if os.environ.get("WANDB_RUN_ID") else {"id": start["run_id"], "resume": "allow"}
        name = os.environ.get("WANDB_NAME") or start["run_name"]
        package.init(project=start["project"], name=name, dir=start["run_dir"], **known)
        package.config.update(start["config"], allow_val_change=True)
        package.define_metric("train/global_step")
        package.define_metric("*", step_metric="train/global_step", step_sync=True)

    def log(self, step, metrics):
        self.wandb.log({**rewritten(metrics), "train/global_step": step})

    def finish(self, end):
        self.wandb.finish(exit_code=0 if end == "done" else 1)


class Trackio:
    def __init__(self, package, start):
        self.trackio = package
        # a run of the same name is gone on with, so the name is the run's id
        space = {"space_id": start["space_id"], "private": start["private"]} if start["space_id"] else {}
        package.init(project=start["project"], name=start["run_id"], resume="allow", config=start["config"], **space)

    def log(self, step, metrics):
        self.trackio.log({**rewritten(metrics), "train/global_step": step})

    def finish(self, end):
        self.trackio.finish()


class Mlflow:
    ENDS = {"done": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}

    def __init__(self, package, start):
        self.mlflow = package
        if os.environ.get("MLFLOW_TRACKING_URI"):
            package.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
        if os.environ.get("MLFLOW_EXPERIMENT_NAME"):
            package.set_experiment(os.environ["MLFLOW_EXPERIMENT_NAME"])
        known = os.path.join(start["run_dir"], "mlflow-run-id")
        run_id = os.environ.get("MLFLOW_RUN_ID")
        if not run_id and start["resumed"] and os.path.exists(known):
            with open(known, encoding="utf-8") as file:
                run_id = file.read().strip()
        if run_id:
            package.start_run(run_id=run_id)
        else:
            package.start_run(run_name=start["run_name"])
        with open(known, "w", encoding="utf-8") as file:
            file.write(package.active_run().info.run_id)
        most = int(os.environ.get("MLFLOW_MAX_LOG_PARAMS") or 0) or None
        allowed = lambda name: re.sub(r"[^0-9A-Za-z_\-\.\ :/]", "_", name)
        # MLflow's limits: 250 characters a name, 500 a value in old versions, 100 values a call
        params = [(allowed(k)[:250], str(v)) for k, v in start["config"].items() if len(str(v)) <= 500][:most]
        for i in range(0, len(params), 100):
            package.log_params(dict(params[i : i + 100]))
        tags = {"tallow.run_id": start["run_id"]}
        if os.environ.get("MLFLOW_TAGS"):
            tags.update(json.loads(os.environ["MLFLOW_TAGS"]))
        package.set_tags(tags)
        self.allowed = allowed

    def log(self, step, metrics):
        self.mlflow.log_metrics({self.allowed(k): v for k, v in metrics.items()}, step=step)

    def finish(self, end):
        self.mlflow.end_run(status=self.ENDS[end])


def main():
    name = sys.argv[1]
    try:
        package = importlib.import_module(name)
    except ImportError as error:
        print(error)
        sys.exit(3)
    tracker = None
    for line in sys.stdin:
        message = json.loads(line)
        if "start" in message:
            tracker = {"wandb": Wandb, "trackio": Trackio, "mlflow": Mlflow}[name](package, message["start"])
        elif "log" in message:
            metrics = {k: v for k, v in message["log"]["metrics"].items() if v is not None}
            tracker.log(message["log"]["step"], metrics)
        else:
            tracker.finish(message["finish"])
            return
    # the run is gone without a word
    if tracker is not None:
        tracker.finish("failed")


main()
