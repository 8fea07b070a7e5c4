"""Compare libraries that lay out directions in two dimensions: neighbours kept, seconds, megabytes.

    pip install openTSNE umap-learn pacmap
    python benchmarks/map.py [--rows 49408] [--dim 768] [--methods openTSNE ours ...] [--json]
    python benchmarks/map.py --page build/map

Three tables are laid out: the token table of `mini`, and two seeded tables of the size of CLIP's,
one of independent random directions, one of directions in clusters of uneven size, as in
`benchmarks/nearest.py`. Each library runs with its defaults on unit vectors, in a process of its
own; seconds include its import, its compilation and its search for neighbours. kept is the share
of the 10 nearest rows by cosine, exact, that are among the 10 nearest on the map, mean over rows.
placed is the same for 10 % of the rows of mini that are left out and then placed on the map of the
others. MB is the size of the library with what it needs beside NumPy, SciPy and scikit-learn, as
installed. `ours` is `dti_geom.geometry.layout`, openTSNE with exact neighbours; `pca` are the first
two principal components.

--page writes the page of a map with as many rows, at random positions, and times it in headless
Chromium without a GPU: milliseconds until it is drawn, until a search shows a token, until pointing
does, and until a selected half of the norms is a table. drawn_cpu is the processor time of the
page's process until it is drawn, which other work on the machine hardly changes.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

THREADS = 2
K = 10
SEED = 0
# What each library needs beside what is installed anyway.
PACKAGES = {
    "pca": [],
    "openTSNE": ["openTSNE"],
    "ours": ["openTSNE"],
    "umap": ["umap-learn", "pynndescent", "numba", "llvmlite"],
    "pacmap": ["pacmap", "faiss-cpu", "numba", "llvmlite"],
}
Fitted = tuple[Any, Callable[[Any], Any] | None]  # positions, and how others are placed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=49408)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--tables", nargs="+", default=["mini", "clustered", "random"])
    parser.add_argument("--methods", nargs="+", default=list(PACKAGES), choices=list(PACKAGES))
    parser.add_argument("--page", type=Path, help="a folder; time the page and nothing else")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.page:
        print(json.dumps(timed_page(options.page, options.rows, options.dim), indent=1))
        return
    if options.one:
        (table,), (method,) = options.tables, options.methods
        print(json.dumps(measured(table, options.rows, options.dim, method)))
        return
    results = []
    for table in options.tables:
        for method in options.methods:
            command = [sys.executable, __file__, "--one", "--tables", table, "--methods", method]
            command += ["--rows", str(options.rows), "--dim", str(options.dim)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
            if not options.json:
                print(results[-1], flush=True)
    if options.json:
        print(json.dumps(results, indent=1))


def measured(table: str, rows: int, dim: int, method: str) -> dict[str, Any]:
    """Lay out one table with one library."""
    os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))
    import torch

    from dti_geom.geometry import nearest
    from dti_geom.geometry.layout import kept_neighbors

    directions = table_of(table, rows, dim)
    neighbors = nearest(directions, directions, K + 1, metric="cosine").indices[:, 1:]
    wall, processor = time.perf_counter(), time.process_time()
    positions, _ = METHODS[method](directions.numpy())
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return {
        "table": table,
        "rows": len(directions),
        "method": method,
        "kept": round(kept_neighbors(neighbors, torch.as_tensor(positions)), 4),
        "chance": round(K / (len(directions) - 1), 5),
        "placed": placed(directions, method) if table == "mini" else None,
        "seconds": round(wall, 1),
        "cpu_seconds": round(processor, 1),
        "mb": round(sum(map(installed_mb, PACKAGES[method])), 1),
    }


def table_of(name: str, rows: int, dim: int) -> Any:
    """Return unit rows (n, d)."""
    import torch

    from dti_geom.geometry import normalize

    if name == "mini":
        from dti_geom.models import open_encoders

        (encoder,) = open_encoders("mini")
        return normalize(encoder.token_table.float())
    generator = torch.Generator().manual_seed(SEED)
    if name == "random":
        return normalize(torch.randn(rows, dim, generator=generator))
    centres = torch.randn(max(1, rows // 20), dim, generator=generator)
    sizes = 1 / torch.arange(1.0, len(centres) + 1)
    member = torch.multinomial(sizes, rows, replacement=True, generator=generator)
    return normalize(centres[member] + 1.7 * torch.randn(rows, dim, generator=generator))


def placed(directions: Any, method: str) -> float | None:
    """Place every tenth row on the map of the others; return the share of neighbours kept."""
    import torch

    from dti_geom.geometry import nearest

    out = torch.arange(len(directions)) % 10 == 0
    positions, place = METHODS[method](directions[~out].numpy())
    if place is None:
        return None
    found = torch.as_tensor(place(directions[out].numpy())).double()
    true = nearest(directions[out], directions[~out], K, metric="cosine").indices
    on_map = torch.cdist(found, torch.as_tensor(positions).double()).topk(K, largest=False).indices
    kept = (true[:, :, None] == on_map[:, None]).any(dim=-1).double().mean()
    return round(float(kept), 3)


def pca(x: Any) -> Fitted:
    from sklearn.decomposition import PCA

    fitted = PCA(2, random_state=SEED).fit(x)
    return fitted.transform(x), fitted.transform


def opentsne(x: Any) -> Fitted:
    from openTSNE import TSNE

    fitted = TSNE(metric="cosine", n_jobs=THREADS, random_state=SEED).fit(x)
    return fitted, fitted.transform


def ours(x: Any) -> Fitted:
    import torch

    from dti_geom.geometry.layout import lay_out

    fitted = lay_out(torch.from_numpy(x), seed=SEED)
    return fitted.positions, lambda others: fitted.place(torch.from_numpy(others))


def umap(x: Any) -> Fitted:
    from umap import UMAP

    fitted = UMAP(metric="cosine", n_jobs=THREADS).fit(x)  # a seed would leave it one thread
    return fitted.embedding_, fitted.transform


def pacmap(x: Any) -> Fitted:
    from pacmap import PaCMAP

    fitted = PaCMAP(distance="angular", random_state=SEED, save_tree=True)
    return fitted.fit_transform(x), lambda others: fitted.transform(others, basis=x)


METHODS: dict[str, Callable[[Any], Fitted]] = {
    "pca": pca,
    "openTSNE": opentsne,
    "ours": ours,
    "umap": umap,
    "pacmap": pacmap,
}


def timed_page(folder: Path, rows: int, dim: int) -> dict[str, Any]:
    """Write the page of a map and return its megabytes and milliseconds."""
    from statistics import median

    import torch
    from pages import browser_path
    from playwright.sync_api import sync_playwright

    from dti_geom.files.packed import pack
    from dti_geom.geometry import nearest
    from dti_geom.probes.map import COSINE_UNIT, MapResult
    from dti_geom.probes.measuring import Measurement
    from dti_geom.reporting.folder import write_result_page

    generator = torch.Generator().manual_seed(SEED)
    directions = table_of("clustered", rows, dim)
    found = nearest(directions, directions, K + 1, metric="cosine")
    letters = torch.randint(97, 123, (rows, 7), generator=generator).tolist()
    norms = 0.387 + 0.0177 * torch.randn(rows, generator=generator)
    positions = torch.randn(rows, 2, generator=generator)
    result = MapResult(
        name="text_encoder",
        dim=dim,
        rows=rows,
        equal_rows=0,
        mean_norm=float(norms.mean()),
        perplexity=30.0,
        k=K,
        kept=K / (rows - 1),
        kept_by_chance=K / (rows - 1),
        tokens=tuple("".join(map(chr, word)) for word in letters),
        ids=pack(torch.arange(rows).numpy(), "uint32"),
        norms=pack(norms.numpy(), "float32"),
        positions=pack(positions.numpy(), "float32"),
        neighbors=pack(found.indices[:, 1:].numpy(), "uint16" if rows <= 1 << 16 else "uint32"),
        cosines=pack((found.values[:, 1:] / COSINE_UNIT).round().numpy(), "int16"),
        learned=(),
    )
    measurement = Measurement("map", "seeded", (result,), ())
    page_file = write_result_page(folder, "map", "seeded", measurement, overwrite=True)
    times: dict[str, list[float]] = {}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=browser_path(), args=["--no-sandbox", "--disable-gpu"]
        )
        for _ in range(5):
            page = browser.new_page(viewport={"width": 1280, "height": 1300})
            page.set_default_timeout(120_000)
            meter = page.context.new_cdp_session(page)
            meter.send("Performance.enable")
            page.goto(page_file.resolve().as_uri())
            page.wait_for_selector("html[data-drawn]")
            page.evaluate(_TIMED.format(action=""))
            times.setdefault("drawn", []).append(page.evaluate("performance.now()"))
            metrics = meter.send("Performance.getMetrics")["metrics"]
            used = {metric["name"]: metric["value"] for metric in metrics}
            times.setdefault("drawn_cpu", []).append(1000 * used["ProcessTime"])
            for name, script in ACTIONS.items():
                times.setdefault(name, []).append(page.evaluate(script))
            page.close()
        browser.close()
    return {
        "rows": rows,
        "page_mb": round(page_file.stat().st_size / 1e6, 2),
        "result_mb": round((folder / "map.json").stat().st_size / 1e6, 2),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "median_ms": {name: round(median(values)) for name, values in times.items()},
        "fastest_ms": {name: round(min(values)) for name, values in times.items()},
    }


# Each returns milliseconds from the user's action to the frame that shows its outcome.
_TIMED = """async () => {{
  const shown = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const start = performance.now();
  {action}
  await shown();
  return performance.now() - start;
}}"""
ACTIONS = {
    "search": _TIMED.format(
        action="""const field = document.querySelector('.map .search');
  field.value = 'ab';
  field.dispatchEvent(new Event('input'));
  document.querySelector('.matches button').click();
  if (document.querySelectorAll('.card li').length !== 10) throw new Error('no neighbours');"""
    ),
    "pointing": _TIMED.format(
        action="""const cloud = document.querySelector('.cloud');
  Plotly.Fx.hover(cloud, [{ curveNumber: 0, pointNumber: 1234 }]);
  while (!cloud.layout.annotations.length) await shown();"""
    ),
    "selection": _TIMED.format(
        action="""const bars = document.querySelector('.bars-of-norms');
  bars.emit('plotly_selected', { range: { x: [0.387, 9] } });
  while (!document.querySelector('.selected tbody tr')) await shown();"""
    ),
}


def installed_mb(package: str) -> float:
    """Return the size of a package's files."""
    files = metadata.files(package) or []
    return sum(file.size or 0 for file in files) / 1e6


if __name__ == "__main__":
    main()
