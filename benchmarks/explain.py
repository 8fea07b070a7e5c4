"""Measure how well sums of words are found again, how often chance is believed, and at what cost.

    python benchmarks/explain.py [--rows 49408] [--dim 768] [--trials 16] [--solvers] [--json]
    python benchmarks/explain.py --tokens reports/effects/tokens.safetensors

Sums of 1 to 8 words with weights from 0.25 to 1.25 are planted in the token table of `mini` and in
a seeded table of random directions. noise is the norm of a random direction that is added, over the
norm of the sum. found counts sums whose words are all found, and no others, among as many; order
counts those whose words also come in the order of their weights. error is the median, over the
weights of found sums, of the relative error. chance counts random directions that `explain` calls
explained on `mini`. --solvers times the path on the whole table, the Lasso at one penalty of it,
and ours. --tokens explains the tokens of TI and DTI that the effects were measured with.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import normalize

from dti_geom.geometry.sparse import sparse_sums
from dti_geom.models import open_encoders
from dti_geom.probes.explain import measure_explain
from dti_geom.probes.learned import LearnedVector
from dti_geom.statistics import bootstrap_test

WORDS = (1, 2, 4, 8)
NOISES = (0.0, 0.1, 0.3, 0.5, 1.0)
LARGEST = 8


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=49408, help="of the random table")
    parser.add_argument("--dim", type=int, default=768, help="of the random table")
    parser.add_argument("--trials", type=int, default=16, help="sums of each kind")
    parser.add_argument("--chance", type=int, default=200, help="random directions on mini")
    parser.add_argument("--solvers", action="store_true", help="also compare solvers")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--tokens", type=Path, help="explain these tokens of mini, nothing else")
    options = parser.parse_args()
    (mini,) = open_encoders("mini")
    if options.tokens:
        print(json.dumps(trained(mini, options.tokens), indent=1))
        return
    generator = torch.Generator().manual_seed(0)
    random = normalize(torch.randn(options.rows, options.dim, generator=generator), dim=1)
    result: dict[str, Any] = {"recovery": []}
    for name, table in (("mini", mini.token_table), ("random", random)):
        for words in WORDS:
            for noise in NOISES:
                row = recovery(table, words, noise, options.trials)
                result["recovery"].append({"table": name, "words": words, "noise": noise, **row})
                if not options.json:
                    print(result["recovery"][-1], flush=True)
    result["chance"] = {"called": believed(mini, options.chance), "of": options.chance}
    if options.solvers:
        result["solvers"] = solvers(random)
    print(json.dumps(result) if options.json else f"{result['chance']}\n{result.get('solvers')}")


def recovery(table: Tensor, words: int, noise: float, trials: int) -> dict[str, Any]:
    """Plant sums and find them again."""
    generator = torch.Generator().manual_seed(words)
    planted = [plant(table, words, noise, generator) for _ in range(trials)]
    start = time.perf_counter()
    sums = sparse_sums(torch.stack([vector for _, _, vector in planted]), table, LARGEST)
    seconds = (time.perf_counter() - start) / trials
    found = order = 0
    errors: list[float] = []
    for (rows, weights, vector), candidates in zip(planted, sums, strict=True):
        same = [one for one in candidates if sorted(one.rows) == sorted(rows)]
        found += bool(same)
        order += bool(same) and same[0].rows == tuple(rows)
        if same:
            by_row = dict(zip(rows, weights.tolist(), strict=True))
            fitted = zip(same[0].rows, same[0].weights, strict=True)
            errors += [abs(value * float(vector.norm()) / by_row[row] - 1) for row, value in fitted]
    return {
        "found": found,
        "order": order,
        "of": trials,
        "error": float(f"{median(errors):.2g}") if errors else None,
        "seconds": round(seconds, 3),
    }


def plant(
    table: Tensor, words: int, noise: float, generator: torch.Generator
) -> tuple[list[int], Tensor, Tensor]:
    """Return rows and weights of a sum, heaviest first, and the sum with noise."""
    rows = torch.randperm(len(table), generator=generator)[:words]
    weights = 0.25 + torch.rand(words, generator=generator, dtype=torch.float64)
    weights = weights.sort(descending=True).values
    vector = weights @ normalize(table[rows].double(), dim=1)
    direction = torch.randn(len(vector), generator=generator, dtype=torch.float64)
    return rows.tolist(), weights, vector + noise * vector.norm() * normalize(direction, dim=0)


def believed(encoder: Any, count: int) -> int:
    """Return how many random directions are called explained."""
    generator = torch.Generator().manual_seed(100)
    vectors = torch.randn(count, encoder.token_table.shape[1], generator=generator)
    learned = [
        LearnedVector(f"<{place}>", 0, None, Path("random"), vector, f"<{place}>")
        for place, vector in enumerate(vectors)
    ]
    names = [vector.token for vector in learned]
    (space,) = measure_explain(encoder, learned, tokens=names, seed=5).spaces
    return sum(token.explained for token in space.tokens)


def trained(encoder: Any, file: Path) -> dict[str, Any]:
    """Explain the published tokens: by method, how many and how well; DTI less TI, paired.

    file: vectors named METHOD/CONCEPT/SEED, as `benchmarks/effects.py --publish` writes them.
    """
    stored = load_file(file)
    learned = [
        LearnedVector(name, 0, None, file, vector.float(), name) for name, vector in stored.items()
    ]
    (space,) = measure_explain(encoder, learned, tokens=list(stored), words=LARGEST).spaces
    names = [tuple(name.split("/")) for name in stored]
    found = dict(zip(names, space.tokens, strict=True))
    shares = {key: token.share for key, token in found.items()}
    by_concept: dict[str, list[list[float]]] = {}
    for method, concept, seed in found:
        if method == "dti":
            more = shares[method, concept, seed] - shares["ti", concept, seed]
            by_concept.setdefault(concept, []).append([more])
    interval, p = bootstrap_test(list(by_concept.values()))
    methods = sorted({method for method, _, _ in found})
    return {
        "explained": {
            method: sum(token.explained for key, token in found.items() if key[0] == method)
            for method in methods
        },
        "share": {
            method: fmean(share for key, share in shares.items() if key[0] == method)
            for method in methods
        },
        "of": len(found) // len(methods),
        "dti less ti": asdict(interval) | {"p": p},
    }


def solvers(table: Tensor) -> dict[str, Any]:
    """Time three ways to one path of a noisy sum of 8 words."""
    from sklearn.linear_model import Lasso, lars_path

    rows, _, vector = plant(table, LARGEST, 0.3, torch.Generator().manual_seed(1))
    target = normalize(vector, dim=0).numpy()
    units = np.asfortranarray(table.double().numpy().T)
    seconds: dict[str, float] = {}
    start = time.perf_counter()
    bounds, _, weights = lars_path(
        units.copy(order="F"), target, method="lasso", positive=True, max_iter=16, copy_X=False
    )
    seconds["lars_path on the whole table"] = time.perf_counter() - start
    at = int(np.flatnonzero((weights > 0).sum(axis=0) == LARGEST)[0])
    start = time.perf_counter()
    lasso = Lasso(alpha=float(bounds[at]), positive=True, fit_intercept=False, tol=1e-6)
    lasso.fit(units, target)
    seconds["Lasso at one penalty"] = time.perf_counter() - start
    start = time.perf_counter()
    (sums,) = sparse_sums(vector[None], table, LARGEST)
    seconds["ours, with every size fitted again"] = time.perf_counter() - start
    return {
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "largest difference of Lasso and lars_path": float(
            np.abs(lasso.coef_ - weights[:, at]).max()
        ),
        "planted rows among ours": len(set(sums[-1].rows) & set(rows)),
    }


if __name__ == "__main__":
    main()
