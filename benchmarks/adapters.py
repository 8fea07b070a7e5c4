"""Tokens, adapters and objectives compared on the embedded model.

    python benchmarks/adapters.py --out work/adapters
    python benchmarks/adapters.py --out work/over-updates --concepts 1 --checkpoints 50 100 150 200
    python benchmarks/adapters.py --out work/try --concepts 1 --seeds 1 --arms both --steps 5

Runs the sweep in adapters.yaml over the test concepts and writes what `dti-geom sweep` writes:
sweep.json, results.csv and index.html. A stopped call resumes. One adapter learns one concept, so
no two concepts share a run. An adapter on mini learns at 1e-3: at the 5e-5 of SDXL it would hardly
move in 250 updates.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dti_geom.files.yaml_files import read_yaml
from dti_geom.mini.concepts import concepts_folder, load_concepts
from dti_geom.reporting.folder import write_result_page
from dti_geom.sweeps import LocalEngine, collect, read_finished, run_sweep
from dti_geom.sweeps.plan import Plan, plan_of
from dti_geom.sweeps.sweep import save_table

RARE = "q"  # a token of mini that no caption has as a word: its "sks"
FILE = Path(__file__).with_suffix(".yaml")


def plan(
    *,
    concepts: int | None = None,
    seeds: int | None = None,
    steps: int | None = None,
    arms: list[str] | None = None,
    checkpoints: Sequence[int] = (),
) -> Plan:
    """Return the plan of adapters.yaml, or a part of it. None takes all.

    checkpoints: updates after which it paints too; each costs as much as the end.
    steps: of training, for a try: its pictures are painted in two steps and mean nothing.
    """
    content: dict[str, Any] = read_yaml(FILE)
    tests = [concept for concept in load_concepts(concepts_folder()) if concept.split == "test"]
    names = [concept.name for concept in tests[:concepts]]
    content["concepts"] = names
    content["seeds"] = content["seeds"][:seeds]
    rare = content.pop("on a rare word")
    if arms:
        content["methods"], rare = (
            [arm for arm in group if arm["label"] in arms] for group in (content["methods"], rare)
        )
    content["evaluate"]["checkpoints"] = list(checkpoints)
    if steps:
        content["train"] |= {"steps": steps, "checkpoint_every": steps}
        content["evaluate"] = {"seeds": 1, "steps": 2}
    on_words = plan_of(content, "adapters") if content["methods"] else None
    content["concepts"] = [{"images": name, "init": RARE} for name in names]
    content["methods"] = rare
    on_rare = plan_of(content, "adapters") if rare else None
    plans = [found for found in (on_words, on_rare) if found]
    cells = [cell for found in plans for cell in found.cells]
    # Concept after concept, so that what a stopped run leaves compares all arms.
    cells.sort(key=lambda cell: (cell.run.seed, names.index(cell.subjects[0])))
    return replace(plans[0], cells=tuple(cells))


def main() -> None:
    """Run the sweep and write its result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--concepts", type=int)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--arms", nargs="*")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--checkpoints", type=int, nargs="*", default=[])
    asked = parser.parse_args()
    cells = plan(
        concepts=asked.concepts,
        seeds=asked.seeds,
        steps=asked.steps,
        arms=asked.arms,
        checkpoints=asked.checkpoints,
    )
    states = run_sweep(cells, asked.out, LocalEngine(asked.workers))
    for state in states:
        print(state.label, state.seed, *state.subjects, state.state, state.error or "")
    finished = read_finished(cells, asked.out)
    result = collect(finished)
    write_result_page(asked.out, "sweep", "mini", result, overwrite=True)
    save_table(asked.out / "results.csv", finished)


if __name__ == "__main__":
    main()
