"""Time `nearest` for a whole table against itself, beside faiss-cpu and scikit-learn.

    pip install -e '.[bench]'
    python benchmarks/nearest.py [--rows 49408 --dim 768 --k 10 --json]

The baselines are faiss-cpu's flat indexes and scikit-learn's brute force. Two tables are searched,
both with CLIP-like norms (0.387 ± 0.018 and two long special tokens). The first has independent
random directions: all similarities are close together and few rows can be excluded early. The
second has directions in clusters of uneven size, like a vocabulary. The methods run in turn in the
same process on the same rows. Times include building the index.
"""

import argparse
import ctypes
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

THREADS = 2
os.environ["OMP_NUM_THREADS"] = str(THREADS)  # read when the libraries below are loaded

import faiss  # noqa: E402
import sklearn  # noqa: E402
import torch  # noqa: E402
from sklearn.neighbors import NearestNeighbors  # noqa: E402

from dti_geom.geometry import nearest, normalize  # noqa: E402

Found = tuple[torch.Tensor, torch.Tensor]  # values, indices


def random_table(rows: int, dim: int, generator: torch.Generator) -> torch.Tensor:
    return with_clip_norms(torch.randn(rows, dim, generator=generator), generator)


def clustered_table(rows: int, dim: int, generator: torch.Generator) -> torch.Tensor:
    """Rows at a cosine near 0.5 to one of rows/20 centres; cluster sizes fall off like 1/rank."""
    centres = torch.randn(max(1, rows // 20), dim, generator=generator)
    sizes = 1 / torch.arange(1.0, len(centres) + 1)
    member = torch.multinomial(sizes, rows, replacement=True, generator=generator)
    return with_clip_norms(
        centres[member] + 1.7 * torch.randn(rows, dim, generator=generator), generator
    )


def with_clip_norms(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    size = 0.387 + 0.0177 * torch.randn(len(x), 1, generator=generator)
    size[-2:] = torch.tensor([[0.661], [1.097]])
    return normalize(x) * size


def faiss_search(index: faiss.Index, x: torch.Tensor, k: int) -> Found:
    index.add(x.numpy())
    values, indices = index.search(x.numpy(), k)
    return torch.from_numpy(values), torch.from_numpy(indices)


def sklearn_search(x: torch.Tensor, k: int) -> Found:
    search = NearestNeighbors(
        n_neighbors=k, algorithm="brute", metric="cosine", n_jobs=THREADS
    ).fit(x.numpy())
    values, indices = search.kneighbors(x.numpy())
    return 1 - torch.from_numpy(values), torch.from_numpy(indices)


def measured(search: Callable[[], Found]) -> tuple[Found, dict[str, float | None]]:
    """Return the result, its wall and processor time, and the rise of the peak resident memory."""
    before = reset_peak()
    wall, processor = time.perf_counter(), time.process_time()
    found = search()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    peak = resident("VmHWM")
    return found, {
        "seconds": wall,
        "cpu_seconds": processor,
        "peak_mb": None if before is None or peak is None else peak - before,
    }


def reset_peak() -> float | None:
    try:
        ctypes.CDLL(None).malloc_trim(
            0
        )  # give back what the last method freed, lest the next reuse it unseen
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts again from here
    except (OSError, AttributeError):
        return None
    return resident("VmRSS")


def resident(field: str) -> float | None:
    lines = [
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith(field)
    ]
    return int(lines[0].split()[1]) / 1024 if lines else None


def agreement(x: torch.Tensor, metric: str, ours: Found, theirs: Found) -> dict[str, float]:
    """Count positions where two answers have different rows, and compare the rows in float64.

    worse: the largest amount by which our row is the worse; better: by which theirs is.
    """
    query, place = (ours[1] != theirs[1]).nonzero(as_tuple=True)

    def value(found: Found) -> torch.Tensor:
        parts = []
        for q, r in zip(query.split(4096), found[1][query, place].split(4096), strict=True):
            a, b = x[q].double(), x[r].double()
            if metric == "euclidean":
                parts.append(-(a - b).norm(dim=1))
            else:
                parts.append((a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1)))
        return torch.cat([*parts, torch.zeros(1, dtype=torch.float64)])

    gain = value(ours) - value(theirs)
    return {
        "other_row": len(query) / ours[1].numel(),
        "ours_worse": float((-gain).max()),
        "theirs_worse": float(gain.max()),
    }


def compare(name: str, x: torch.Tensor, k: int) -> dict[str, Any]:
    unit = normalize(x)
    runs = {
        "nearest cosine": lambda: nearest(x, x, k, "cosine"),
        "faiss IndexFlatIP": lambda: faiss_search(faiss.IndexFlatIP(x.shape[1]), unit, k),
        "nearest euclidean": lambda: nearest(x, x, k, "euclidean"),
        "faiss IndexFlatL2": lambda: faiss_search(faiss.IndexFlatL2(x.shape[1]), x, k),
        "scikit-learn cosine": lambda: sklearn_search(x, k),
    }
    found: dict[str, Found] = {}
    figures: dict[str, dict[str, Any]] = {}
    for label, run in runs.items():
        found[label], figures[label] = measured(run)
        print(f"{name}: {label} took {figures[label]['seconds']:.1f} s", file=sys.stderr)
    baselines = [v["seconds"] for label, v in figures.items() if not label.startswith("nearest")]
    for metric, others in (
        ("cosine", ["faiss IndexFlatIP", "scikit-learn cosine"]),
        ("euclidean", ["faiss IndexFlatL2"]),
    ):
        ours = f"nearest {metric}"
        figures[ours]["times_faster_than_fastest_baseline"] = (
            min(baselines) / figures[ours]["seconds"]
        )
        for other in others:
            figures[other]["agreement"] = agreement(x, metric, found[ours], found[other])
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=49408)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    faiss.omp_set_num_threads(THREADS)
    generator = torch.Generator().manual_seed(0)
    capability = torch.backends.cpu.get_cpu_capability()
    result: dict[str, Any] = {
        "rows": options.rows,
        "dim": options.dim,
        "k": options.k,
        "threads": THREADS,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {capability}",
        "versions": {
            "torch": torch.__version__,
            "faiss": faiss.__version__,
            "scikit-learn": sklearn.__version__,
        },
        "tables": {},
    }
    for name, build in (("random", random_table), ("clustered", clustered_table)):
        result["tables"][name] = compare(
            name, build(options.rows, options.dim, generator), options.k
        )
    if options.json:
        print(json.dumps(result, indent=1))
        return
    print(
        f"{options.rows} × {options.dim}, k = {options.k}, {THREADS} threads, {result['machine']}"
    )
    print(" ".join(f"{name} {version}" for name, version in result["versions"].items()))
    for name, figures in result["tables"].items():
        print(f"\n{name} table        seconds      cpu s    peak MB")
        for label, row in figures.items():
            memory = "—" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}"
            note = ""
            if "agreement" in row:
                note = (
                    "  {other_row:.3%} other rows, worse by ≤ {theirs_worse:.0e} "
                    "(ours by ≤ {ours_worse:.0e})"
                ).format(**row["agreement"])
            if "times_faster_than_fastest_baseline" in row:
                note = f"  {row['times_faster_than_fastest_baseline']:.2f}× the fastest baseline"
            print(
                f"{label:20s} {row['seconds']:10.2f} {row['cpu_seconds']:10.2f} {memory:>10s}{note}"
            )


if __name__ == "__main__":
    main()
