"""Compare the law of inflation, ‖e_T‖² = ‖e_0‖² + η²·d·T, with norms that were measured.

Free vectors are trained on the embedded model under AdamW. One thing changes at a time: β₁ and rate
together, weight decay, the number of coordinates that learn, the number of vectors, and the gain of
the model's tables. With a gain, rates are multiplied by it, so that they stay the same share of a
word's norm. Beside the norms, each run measures what the law assumes:

    step        mean ‖Δ‖²/(η²d), over what β₁ alone makes of it: (1 − β₁)/(1 + β₁). Law: 1
    agreement   mean cosine of the gradients of two updates that follow each other. Law: 0
    radial      root mean square cosine of gradient and vector. Law: 0

docs/inflation.md derives the law. Published norms are compared as well: two runs, of which one is
read from --data if it is there, and the last tokens of another.

python benchmarks/law.py --work build/law                          # all runs; resumes
python benchmarks/law.py --work build/law --summary reports/inflation/law.json
"""

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from dti_geom import geometry
from dti_geom.files import atomic_path, read_embeddings
from dti_geom.geometry.inflation import BETA_2, Walk, implied_rate
from dti_geom.mini.concepts import concepts_folder, load_concepts
from dti_geom.models.pipelines import TextToImage, open_text_to_image
from dti_geom.training import ConceptConfig, MethodConfig, RunConfig, Trainer
from dti_geom.training.token_vectors import TokenVectors, TowerVectors

UPDATES = 400
SHOWN = (50, 100, 200, 400)  # updates that the table shows
CONCEPTS = ("green-fox", "round-teapot")  # learned together
DATA = Path("shared/data/embeddings/trajectory")

# Published: norms of a run on SD 1.x after 500 … 3000 updates, and two runs' last tokens.
SIX_NORMS = (1.35, 1.86, 2.21, 2.51, 2.76, 2.99)
LAST_TOKENS = (
    ("SDXL token, tower 1", 768, 0.387, 400, 1.84),
    ("SDXL token, tower 2", 1280, 0.4515, 400, 2.67),
)
LAST_RATES = (0.005, 0.02)  # of the launcher: as written, and multiplied by the batch of 4


@dataclass(frozen=True)
class Setting:
    """What a run changes; rate and decay are those of the model without a gain."""

    beta1: float = 0.9
    rate: float = 0.02
    weight_decay: float = 0.0
    coordinates: int = 256  # that learn, of 256: a random subspace that holds the start
    vectors: int = 1  # of a token
    gain: float = 1

    @property
    def name(self) -> str:
        """Name of its file."""
        parts = [f"{name}-{value:g}" for name, value in asdict(self).items()]
        return "_".join(parts)


def settings() -> list[Setting]:
    """Return every setting once, the usual one first."""
    rates = (0.02, 0.005, 0.001)
    listed = [Setting(rate=rate, beta1=beta1) for beta1 in (0.9, 0.5, 0.0) for rate in rates]
    for rate in (0.02, 0.005):
        listed += [Setting(rate=rate, weight_decay=decay) for decay in (0.01, 0.1, 1.0)]
        listed += [Setting(rate=rate, coordinates=count) for count in (16, 64)]
        listed += [Setting(rate=rate, gain=gain) for gain in (8, 64, 128)]
    listed += [Setting(vectors=count) for count in (2, 4)]
    listed += [Setting(beta1=0.0, gain=64), Setting(beta1=0.0, coordinates=64)]
    return list(dict.fromkeys(listed))


class Walker(TowerVectors):
    """Free vectors whose coordinates in a subspace learn under AdamW with a β₁ of choice."""

    def __init__(self, usual: TowerVectors, setting: Setting, generator: torch.Generator) -> None:
        """usual: the vectors as TI trains them."""
        super().__init__(
            start=usual.start,
            prior=usual.prior,
            magnitude=None,
            stats=usual.stats,
            settings=usual.settings,
        )
        self.basis = subspace(self.start[0], setting.coordinates, generator)
        # Several vectors of a word start equal. Their start is in the subspace, so that a gradient
        # that is orthogonal to them stays so in its coordinates.
        self.parameter = (self.start @ self.basis.T).requires_grad_()
        adamw = torch.optim.AdamW(
            [self.parameter],
            lr=usual.settings.learning_rate,
            betas=(setting.beta1, BETA_2),
            weight_decay=usual.settings.weight_decay,
        )
        self.optimizers = [(adamw, usual.settings.learning_rate)]

    def vectors(self) -> Tensor:
        """Return e, (n, d)."""
        return self.parameter @ self.basis


def subspace(inside: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return an orthonormal basis, (count, d), of a random subspace that holds the vector `inside`.

    All coordinates: the vector's own, so that AdamW moves those of the model.
    """
    width = len(inside)
    if count == width:
        return torch.eye(width)
    drawn = torch.randn(width, count, generator=generator)
    drawn[:, 0] = inside
    basis, _ = torch.linalg.qr(drawn)
    turn, _ = torch.linalg.qr(torch.randn(count, count, generator=generator))
    turned: Tensor = turn @ basis.T  # the start has a part along every coordinate
    return turned


def measure(setting: Setting, seed: int, model: TextToImage) -> dict[str, Any]:
    """Train and return norms and what the law assumes, by vector."""
    started = time.process_time()
    by_name = {concept.name: concept for concept in load_concepts(concepts_folder())}
    config = RunConfig(
        model.name,
        tuple(
            ConceptConfig(
                f"<{name}-{setting.vectors}>",
                str(concepts_folder() / name),
                by_name[name].initialiser,
                vectors=setting.vectors,
            )
            for name in CONCEPTS
        ),
        MethodConfig(
            "ti",
            learning_rate=setting.rate * setting.gain,
            weight_decay=setting.weight_decay / setting.gain,
        ),
        steps=UPDATES,
        seed=seed,
        dtype="bfloat16",
    )

    def build(model: TextToImage, concept: ConceptConfig, method: MethodConfig, seed: int) -> Any:
        usual = TokenVectors.build(model, concept, method, seed)
        generator = torch.Generator().manual_seed(seed)
        walkers = [Walker(vectors, setting, generator) for vectors in usual.vectors]
        return TokenVectors(usual.token, usual.towers, walkers)

    trainer = Trainer(model, config, build=build)
    walks = [concept.trainable.vectors[0] for concept in trainer.concepts]  # type: ignore[attr-defined]
    course = Course(walks)
    for _ in trainer.updates():
        course.keep()
    model.forget()
    return {
        **asdict(setting),
        "seed": seed,
        "runs": course.summary(setting),
        "core_seconds": time.process_time() - started,
    }


class Course:
    """What vectors did over a run, in the coordinates that learn."""

    def __init__(self, walks: Sequence[TowerVectors]) -> None:
        self.walks = walks
        self.places = [[self._now(walk)] for walk in walks]
        self.gradients: list[list[Tensor]] = [[] for _ in walks]

    def keep(self) -> None:
        """Keep the vectors and the gradients of an update."""
        for number, walk in enumerate(self.walks):
            self.places[number].append(self._now(walk))
            self.gradients[number].append(walk.gradient.detach().clone())

    @staticmethod
    def _now(walk: TowerVectors) -> Tensor:
        return walk.parameter.detach().clone()

    def summary(self, setting: Setting) -> list[dict[str, Any]]:
        """Return the norms and the three figures of each vector."""
        rows = []
        for places, gradients in zip(self.places, self.gradients, strict=True):
            e, g = torch.stack(places).double(), torch.stack(gradients).double()  # (T, n, k)
            rows += [self._row(e[:, i], g[:, i], setting) for i in range(e.shape[1])]
        return rows

    @staticmethod
    def _row(e: Tensor, g: Tensor, setting: Setting) -> dict[str, Any]:
        """e: (T + 1, k), one row per update and the start. g: (T, k)."""
        rate = setting.rate * setting.gain
        expected = rate**2 * e.shape[1]  # of a squared step without momentum
        decayed = e[:-1] * (1 - setting.rate * setting.weight_decay)
        steps = e[1:] - decayed  # Adam's own, without decay
        white = (1 - setting.beta1) / (1 + setting.beta1)
        return {
            "norms": geometry.norms(e).tolist(),
            "step": float((steps.square().sum(dim=1) / expected).mean()) / white,
            "agreement": float(torch.cosine_similarity(g[1:], g[:-1]).mean()),
            "radial": float(torch.cosine_similarity(g, e[:-1]).square().mean().sqrt()),
        }


def run(work: Path, seeds: Sequence[int]) -> None:
    """Measure every setting and seed that has no file yet."""
    model: TextToImage | None = None
    total = 0.0
    for setting in sorted(settings(), key=lambda setting: setting.gain):
        for seed in seeds:
            path = work / f"{setting.name}_{seed}.json"
            if not path.exists():
                name = f"mini:gain={setting.gain:g}"
                if model is None or model.name != name:
                    model = open_text_to_image(name, dtype=torch.bfloat16)
                result = measure(setting, seed, model)
                with atomic_path(path) as beside:
                    beside.write_text(json.dumps(result) + "\n")
                row = line(setting, [result])
                print(
                    f"{setting.name} seed {seed}: law {row['law'][-1]:.3g}, measured "
                    f"{row['measured'][-1]:.3g}, {result['core_seconds']:.0f} core-seconds",
                    flush=True,
                )
            total += json.loads(path.read_text())["core_seconds"]
    print(f"{total:.0f} core-seconds in all", flush=True)


def line(setting: Setting, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return predicted beside measured norms of a setting, at the updates in SHOWN.

    Norms are divided by the gain; means are over seeds, concepts and vectors.
    """
    vectors = [vector for result in found for vector in result["runs"]]
    laws, slowed, measured = [], [], []
    for vector in vectors:
        walk = Walk(
            width=setting.coordinates,
            start_norm=vector["norms"][0] / setting.gain,
            learning_rate=setting.rate,
            weight_decay=setting.weight_decay,
        )
        slow = walk.slowed_norms(UPDATES)
        laws.append([walk.norm(step) for step in SHOWN])
        slowed.append([slow[step] for step in SHOWN])
        measured.append([vector["norms"][step] / setting.gain for step in SHOWN])
    row: dict[str, Any] = {**asdict(setting), "vectors_measured": len(vectors)}
    for name, values in (("law", laws), ("slowed", slowed), ("measured", measured)):
        row[name] = [fmean(column) for column in zip(*values, strict=True)]
    # The ratio of each vector, so that a spread over vectors can be said.
    last = [m[-1] / law[-1] for m, law in zip(measured, laws, strict=True)]
    row["measured / law"] = [fmean(last), min(last), max(last)]
    squared = [m[-1] ** 2 for m in measured]
    # The rate that the growth of the squared norm amounts to, over the run's own.
    growth = fmean(squared) - fmean((v["norms"][0] / setting.gain) ** 2 for v in vectors)
    row["implied rate / rate"] = math.sqrt(
        max(0.0, growth) / (setting.coordinates * UPDATES * setting.rate**2)
    )
    for name in ("step", "agreement", "radial"):
        row[name] = fmean(vector[name] for vector in vectors)
    return row


def published(data: Path) -> list[dict[str, Any]]:
    """Return published norms beside the law; those in files where the files are."""
    rows: list[dict[str, Any]] = []
    runs = {"six norms of a run on SD 1.x": (list(range(500, 3001, 500)), list(SIX_NORMS))}
    files = sorted(data.glob("step-*.bin"))
    if files:
        steps = [int(path.stem.split("-")[1]) for path in files]
        norms = [
            float(geometry.norms(read_embeddings(path).tokens[0].vectors[0])) for path in files
        ]
        runs[f"{len(files)} checkpoints of a run on SD 1.x"] = (steps, norms)
    for name, (steps, norms) in runs.items():
        found = implied_rate(steps, norms, 768)
        assert found is not None
        rows.append({"run": name, "updates": max(steps), "last": norms[-1], **asdict(found)})
    for name, width, start, updates, last in LAST_TOKENS:
        for rate in LAST_RATES:
            walk = Walk(width, start, rate, 0.01)
            rows.append(
                {
                    "run": name,
                    "rate": rate,
                    "updates": updates,
                    "last": last,
                    "law": walk.norm(updates),
                    "slowed": walk.slowed_norms(updates)[-1],
                }
            )
    return rows


def summary(work: Path, data: Path) -> dict[str, Any]:
    """Return the table over everything that was measured."""
    found: dict[Setting, list[dict[str, Any]]] = {setting: [] for setting in settings()}
    names = {setting.name: setting for setting in found}
    results = [(path, json.loads(path.read_text())) for path in sorted(work.glob("*.json"))]
    for path, result in results:
        setting = names.get(path.stem.rpartition("_")[0])
        if setting is not None:
            found[setting].append(result)
    return {
        "command": "python benchmarks/law.py",
        "torch": torch.__version__,
        "updates": list(SHOWN),
        "concepts": list(CONCEPTS),
        "core_seconds": sum(result["core_seconds"] for _, result in results),
        "mini": [line(setting, runs) for setting, runs in found.items() if runs],
        "published": published(data),
    }


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of a table in Markdown."""
    yield (
        "| β₁ | rate | decay | coordinates | vectors | gain | law | slowed | measured | "
        "measured/law (range) | step | agreement | radial |"
    )
    yield "|" + "---|" * 13
    for row in rows:
        low, high = row["measured / law"][1:]
        yield (
            f"| {row['beta1']:g} | {row['rate']:g} | {row['weight_decay']:g} | "
            f"{row['coordinates']} | {row['vectors']} | {row['gain']:g} | {row['law'][-1]:.3g} | "
            f"{row['slowed'][-1]:.3g} | {row['measured'][-1]:.3g} | "
            f"{row['measured / law'][0]:.2f} ({low:.2f}–{high:.2f}) | {row['step']:.2f} | "
            f"{row['agreement']:.2f} | {row['radial']:.3f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("build/law"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of published checkpoints")
    parser.add_argument(
        "--summary", type=Path, help="write the table of what is there, and measure nothing"
    )
    options = parser.parse_args()
    if options.summary:
        found = summary(options.work, options.data)
        with atomic_path(options.summary, overwrite=True) as beside:
            beside.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        print("\n".join(table(found["mini"])))
        for row in found["published"]:
            print(row)
        return
    run(options.work, options.seeds)


if __name__ == "__main__":
    main()
