r"""Learn from references that share one background, on the embedded model.

The five references of a shipped concept stand on five backgrounds. Here they are painted anew, once
so and once all on the beach, with the same sizes and places. TI and DTI learn both. The scores tell
how often a token brings the beach along, and what that costs.

python benchmarks/entangled.py --work build/entangled --stage train
python benchmarks/entangled.py --work build/entangled --stage paint
python benchmarks/entangled.py --work build/entangled --stage summary \
    --out reports/entangled/result.json

The first two resume. The first fetches the model's artwork from the npm registry. What was expected
stands in reports/entangled/README.md.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments import (
    PAIRS,
    PLACES,
    SCORES,
    WORD,
    Arms,
    concepts_of,
    difference_lines,
    embedded_references,
    in_table,
    load_painted,
    options_of,
    read,
    run_stage,
    summarised,
    write_summary,
)
from PIL import Image

from dti_geom.mini.concepts import Concept
from dti_geom.mini.recipe import artwork
from dti_geom.mini.recipe.concept_pictures import REFERENCE_BACKGROUNDS, with_concepts
from dti_geom.mini.recipe.painting import Painter
from dti_geom.mini.scenes import Scene
from dti_geom.mini.scorer import Scorer, shipped_scorer
from dti_geom.training import MethodConfig

ONE = "beach"
METHODS = {"TI": MethodConfig("ti"), "DTI": MethodConfig("dti")}
REFERENCES = {"five": REFERENCE_BACKGROUNDS, "one": (ONE,) * len(REFERENCE_BACKGROUNDS)}


def paint_references(work: Path) -> None:
    """Paint both kinds of references of every test concept, unless they are there."""
    if all((work / kind / "done").exists() for kind in REFERENCES):
        return
    artwork.extract(work / "artwork")
    sprites = with_concepts(artwork.load_sprites(work / "artwork"))
    for kind, backgrounds in REFERENCES.items():
        for seed, concept in enumerate(concepts_of("test")):
            painter = Painter(sprites, seed)  # the same sizes and places of both kinds
            folder = work / kind / concept.name
            folder.mkdir(parents=True, exist_ok=True)
            for number, background in enumerate(backgrounds):
                picture = Image.fromarray(painter.paint(Scene(background, concept.item)))
                picture.save(folder / f"{number}.png")
        (work / kind / "done").touch()


def arms(work: Path, steps: int | None = None) -> dict[str, Arms]:
    """Return what is trained and painted, by the kind of references."""
    return {
        kind: Arms(work / f"runs-{kind}", "mini", METHODS, steps=steps, references=work / kind)
        for kind in REFERENCES
    }


def brought(arms: Arms, concept: Concept, seed: int, variant: str, scorer: Scorer) -> float:
    """Return how often a token alone stands on `ONE` where another background was asked for."""
    pictures = load_painted(arms.pictures(concept, seed, variant))[PAIRS:][: len(PLACES)]
    readings = read(scorer, pictures, embedded_references(scorer, concept))
    asked = zip(readings, PLACES, strict=True)
    return fmean(reading.answers["background"] == ONE for reading, place in asked if place != ONE)


def summary(
    kinds: dict[str, Arms], concepts: Sequence[Concept], seeds: Sequence[int]
) -> dict[str, Any]:
    """Return scores by method and references, and differences corrected over all rows."""
    scorer, cells = shipped_scorer(), []
    by_name = {concept.name: concept for concept in concepts}
    for kind, learned in kinds.items():
        for seed in seeds:
            for cell in learned.cells(concepts, seed, scorer):
                arm, concept = cell["variant"], by_name[cell["concept"]]
                if arm == WORD and kind != next(iter(kinds)):
                    continue  # it is the same for both
                cell["beach unasked"] = brought(learned, concept, seed, arm, scorer)
                cells.append(cell | {"variant": arm if arm == WORD else f"{arm}, {kind}"})
    compared = [(f"{method}, one", f"{method}, five") for method in METHODS]
    compared += [(f"DTI, {kind}", f"TI, {kind}") for kind in REFERENCES]
    found = summarised("entangled.py", cells, compared, concepts, seeds)
    found["beach unasked"] = {
        variant: fmean(cell["beach unasked"] for cell in cells if cell["variant"] == variant)
        for variant in found["variants"]
    }
    return found


def show(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of two tables in Markdown."""
    yield "| learned, references on | beach unasked | " + " | ".join(SCORES) + " |"
    yield "|" + "---|" * (2 + len(SCORES))
    for variant, row in found["variants"].items():
        yield f"| {variant} | {found['beach unasked'][variant]:.3f} | {in_table(row)} |"
    yield ""
    yield from difference_lines(found["differences"])


def main() -> None:
    options = options_of(__doc__, Path("build/entangled")).parse_args()
    kinds = arms(options.work, options.steps)
    if options.stage == "train":
        paint_references(options.work)
    if options.stage != "summary":
        run_stage(options, list(kinds.values()))
        return
    found = summary(kinds, options.concepts, options.seeds)
    write_summary(options.out, found)
    print("\n".join(show(found)))


if __name__ == "__main__":
    main()
