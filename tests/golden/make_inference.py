"""inference.json: what `sentence_transformers.util` makes of fixed float32 embeddings: pairs, communities, fewer bits."""

import warnings

import numpy as np
from common import tensor, torch, versions, write

from sentence_transformers.util import community_detection, paraphrase_mining_embeddings, quantize_embeddings

warnings.simplefilter("ignore")
rng = np.random.default_rng(77)


def clustered(rows, dim, middles, spread):
    middle = rng.standard_normal((middles, dim))
    return np.round(middle[rng.integers(0, middles, rows)] + spread * rng.standard_normal((rows, dim)), 3).astype(np.float32)


def margin(embeddings, thresholds):
    """How near a cosine comes to a threshold, and two cosines of a row to each other: rounding must not decide."""
    unit = embeddings.astype(np.float64) / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = unit @ unit.T
    off = cosines[np.triu_indices(len(cosines), 1)]
    return min(min(np.abs(off - t).min() for t in thresholds), np.diff(np.sort(off)).min())


def apart(make, thresholds):
    while True:
        embeddings = make()
        if margin(embeddings, thresholds) > 2e-6:
            return embeddings


def main():
    pairs = []
    embeddings = apart(lambda: clustered(24, 6, 5, 0.5), [0.5])
    for options in [{}, {"top_k": 2}, {"top_k": 3, "max_pairs": 10}, {"max_pairs": 7, "query_chunk_size": 5, "corpus_chunk_size": 9}]:
        found = paraphrase_mining_embeddings(torch.from_numpy(embeddings), **options)
        pairs.append({"options": options, "pairs": found})
    mining = {"embeddings": tensor(embeddings), "cases": pairs}

    thresholds = [0.6, 0.75, 0.9]
    embeddings = apart(lambda: clustered(70, 6, 6, 0.45), thresholds)
    cases = []
    for threshold in thresholds:
        for size in [1, 3, 10, 71]:
            found = community_detection(embeddings, threshold=threshold, min_community_size=size, batch_size=16)
            cases.append({"threshold": threshold, "min_community_size": size, "communities": found})
    communities = {"embeddings": tensor(embeddings), "cases": cases}

    values = np.round(rng.standard_normal((9, 11)), 3).astype(np.float32)
    values[:, 3] = 0.25  # a dimension without a range
    values[2, 5] = 0.0  # not positive
    calibration = np.round(0.7 * rng.standard_normal((12, 11)), 3).astype(np.float32)
    made = {}
    for precision in ["int8", "uint8", "binary", "ubinary"]:
        made[precision] = tensor(quantize_embeddings(values, precision).astype(np.int64))
    for precision in ["int8", "uint8"]:
        with_ranges = quantize_embeddings(values, precision, calibration_embeddings=calibration)
        made[f"{precision} calibrated"] = tensor(with_ranges.astype(np.int64))
    quantized = {"embeddings": tensor(values), "calibration": tensor(calibration), "made": made}
    write("inference.json", {"about": versions(), "mining": mining, "communities": communities, "quantized": quantized})
    for case in cases:
        print(case["threshold"], case["min_community_size"], [len(c) for c in case["communities"]])


if __name__ == "__main__":
    main()
