"""Command line of the recipe.

python -m dti_geom.mini.recipe --work DIR [--stage S] [--device cuda]
    Run every stage, or one. A stopped run resumes.
python -m dti_geom.mini.recipe eval --work DIR [--per-row N]
    Measure the shipped model; write its figures, its concepts' ceilings and its card.
python -m dti_geom.mini.recipe controls --work DIR [--tower T …]
    Give the reading lesson to encoders of other architectures, for controls. Nothing is shipped.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from dti_geom.mini.concepts import load_concepts
from dti_geom.mini.figures import FIGURES_FILE, load_figures
from dti_geom.mini.recipe import artwork
from dti_geom.mini.recipe.card import write_card
from dti_geom.mini.recipe.ceilings import measure_ceilings, save_ceilings
from dti_geom.mini.recipe.controls import TOWERS, train_controls
from dti_geom.mini.recipe.evaluate import evaluate, fresh_renders
from dti_geom.mini.recipe.export import SHIPPED
from dti_geom.mini.recipe.generate import open_pipeline
from dti_geom.mini.recipe.stages import STAGES, Recipe
from dti_geom.mini.recipe.targets import missed_targets
from dti_geom.mini.scorer import load_scorer

DEFAULT_WORK = Path("build/mini")


def train(arguments: list[str]) -> None:
    """Run the recipe, or one of its stages."""
    parser = argparse.ArgumentParser(prog="python -m dti_geom.mini.recipe", description=__doc__)
    parser.add_argument(
        "--work",
        type=Path,
        default=DEFAULT_WORK,
        help="folder of artwork, pictures and checkpoints",
    )
    parser.add_argument("--stage", choices=list(STAGES), help="run only this stage")
    parser.add_argument("--device", default="cpu", help="a device of PyTorch")
    parser.add_argument(
        "--joint-steps",
        type=int,
        help="training steps of the joint stage; more make a better model",
    )
    chosen = parser.parse_args(arguments)
    recipe = Recipe(chosen.work, chosen.device)
    if chosen.joint_steps:
        recipe = replace(recipe, joint_steps=chosen.joint_steps)
    for name, stage in STAGES.items():
        if chosen.stage in (None, name):
            print(f"stage {name}", flush=True)
            stage(recipe)


def measure(arguments: list[str]) -> None:
    """Measure the shipped model; write its figures, ceilings and card into its folder."""
    parser = argparse.ArgumentParser(prog="python -m dti_geom.mini.recipe eval")
    parser.add_argument(
        "--work", type=Path, default=DEFAULT_WORK, help="folder of the artwork; fetched if missing"
    )
    parser.add_argument("--model", type=Path, default=SHIPPED, help="the pipeline folder")
    parser.add_argument("--per-row", type=int, default=200, help="pictures per exam")
    parser.add_argument("--device", default="cpu", help="a device of PyTorch")
    parser.add_argument(
        "--per-prompt", type=int, default=40, help="true pictures of each concept and prompt"
    )
    parser.add_argument(
        "--ceilings-only", action="store_true", help="keep the figures that are there"
    )
    chosen = parser.parse_args(arguments)
    artwork.extract(chosen.work / "artwork")
    pipeline = open_pipeline(chosen.model, chosen.device)
    scorer = load_scorer(chosen.model / "scorer")
    ceilings = measure_ceilings(
        scorer,
        pipeline.vae,
        load_concepts(chosen.model / "concepts"),
        chosen.model / "concepts",
        artwork.load_sprites(chosen.work / "artwork"),
        chosen.per_prompt,
    )
    save_ceilings(ceilings, chosen.model)
    if chosen.ceilings_only:
        write_card(load_figures(chosen.model / FIGURES_FILE), ceilings, chosen.model)
        return
    figures = evaluate(
        pipeline,
        scorer,
        fresh_renders(chosen.work / "artwork", 4 * chosen.per_row),
        chosen.per_row,
        grids=chosen.work / "grids",
    )
    figures.save(chosen.model / FIGURES_FILE)
    write_card(figures, ceilings, chosen.model)
    missed = missed_targets(figures)
    print("\n".join(["missed:", *missed]) if missed else "every target is reached")


def controls(arguments: list[str]) -> None:
    """Train control towers into DIR/controls."""
    parser = argparse.ArgumentParser(prog="python -m dti_geom.mini.recipe controls")
    recipe = Recipe(DEFAULT_WORK)
    parser.add_argument(
        "--work", type=Path, default=DEFAULT_WORK, help="the towers are written to its `controls`"
    )
    parser.add_argument("--tower", nargs="+", choices=list(TOWERS), default=list(TOWERS))
    parser.add_argument("--steps", type=int, default=recipe.reading_steps, help="of the lesson")
    parser.add_argument(
        "--scenes", type=int, default=recipe.pictures, help="whose captions are read"
    )
    parser.add_argument("--seed", type=int, default=recipe.seed)
    chosen = parser.parse_args(arguments)
    train_controls(
        chosen.work / "controls",
        chosen.tower,
        scenes=chosen.scenes,
        in_pieces=recipe.in_pieces,
        steps=chosen.steps,
        seed=chosen.seed,
    )


def main() -> None:
    """Run the subcommand that the first argument names."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["eval"]:
        measure(arguments[1:])
    elif arguments[:1] == ["controls"]:
        controls(arguments[1:])
    else:
        train(arguments)


if __name__ == "__main__":
    main()
