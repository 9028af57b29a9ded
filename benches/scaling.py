#!/usr/bin/env python3
"""How tallow's cost grows: with the tokens of a batch, and with the rows of the data.

    python benches/scaling.py

Trains MiniLM on batches of 32 pairs whose texts are 16 to 256 tokens long, and prints seconds a token: attention's
share grows with length, the rest is linear. Then trains on data of 2,000, 20,000 and 200,000 rows, for the same number
of steps, and prints peak memory, which should stay where it is. Needs `cargo build --release`; the model and the
sentences come from ../shared beside the project, a tiny model and generated words stand in for them.
"""

import tempfile

from side_by_side import ROOT, make_rows, train

TALLOW = str(ROOT / "target/release/tallow")
LOSS = "MultipleNegativesRankingLoss"


def main():
    print("| tokens of a text | f32, microseconds a token | bf16 |")
    print("|---|---|---|")
    for length in (16, 32, 64, 128, 250):
        work = dict(batch=32, steps=3, columns=2, lengths=(length, length))
        cells = []
        with tempfile.TemporaryDirectory() as folder:
            rows, names, _ = make_rows(work, folder, even=True)
            for precision in ("f32", "bf16"):
                training, _ = train(TALLOW, rows, names, folder, loss=LOSS, steps=5, batch=32, precision=precision)
                seconds = training["timings"]["forward"] + training["timings"]["backward"]
                cells.append(seconds / training["train_tokens"] * 1e6)
        print(f"| {length} | {cells[0]:.0f} | {cells[1]:.0f} |", flush=True)
    print()
    print("| rows | static 256-d, batch 256: peak memory | MiniLM, batch 8 |")
    print("|---|---|---|")
    for count in (2_000, 20_000, 200_000):
        with tempfile.TemporaryDirectory() as folder:
            work = dict(batch=256, steps=1, columns=2, lengths=(12, 20), rows=count)
            rows, names, _ = make_rows(work, folder)
            static, _ = train(TALLOW, rows, names, folder, loss=LOSS, steps=30, batch=256, static_dim=256)
            dense, _ = train(TALLOW, rows, names, folder, loss=LOSS, steps=5, batch=8)
        mb = lambda training: f"{training['peak_memory_bytes'] / 1e6:.0f} MB"
        print(f"| {count:,} | {mb(static)} | {mb(dense)} |", flush=True)


if __name__ == "__main__":
    main()
