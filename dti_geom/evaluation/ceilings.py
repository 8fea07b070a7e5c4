"""The most that a painted picture can score: what a reader of pictures makes of true ones."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from dti_geom.mini.ceilings import ConceptCeiling
from dti_geom.models.catalog import known_concepts
from dti_geom.models.image_encoders import ImageEncoder
from dti_geom.models.profiles import load_by_name

# By name of the reader: "module:function" that returns the ceilings of its concepts by name.
CEILINGS = {"mini": "dti_geom.mini.ceilings:shipped_ceilings"}


def ceilings_of(
    references: Mapping[str, Sequence[str]], encoder: ImageEncoder
) -> dict[str, ConceptCeiling]:
    """Return the ceilings of those subjects that are bundled concepts, by subject.

    references: by subject its image files. A subject is a bundled concept if these are the
    concept's own files, whatever it is called. Other subjects have no ceilings, and other image
    encoders than `CEILINGS` names have none of any subject.
    """
    if encoder.name not in CEILINGS:
        return {}
    shipped: dict[str, ConceptCeiling] = load_by_name(CEILINGS[encoder.name])()
    named = {
        frozenset(map(Path.resolve, concept.files)): name
        for name, concept in known_concepts().items()
        if name in shipped
    }
    found: dict[str, ConceptCeiling] = {}
    for subject, files in references.items():
        name = named.get(frozenset(Path(file).resolve() for file in files))
        if name is not None:
            found[subject] = shipped[name]
    return found


def undecided(ceilings: Iterable[ConceptCeiling | None]) -> frozenset[str]:
    """Return the checks that cannot decide about pictures of these concepts, shown together.

    Such a check misses true pictures too, so it would count against every method alike.
    """
    names: set[str] = set()
    for ceiling in ceilings:
        if ceiling is not None:
            names |= {*ceiling.undecided}
    return frozenset(names)


def text_ceiling(ceiling: ConceptCeiling | None, checks: Iterable[str]) -> float | None:
    """Return the mean of these checks over true pictures through the model's autoencoder.

    None where it is not known for each of them.
    """
    names = list(checks)
    if ceiling is None or not names or any(name not in ceiling.checks for name in names):
        return None
    return fmean(ceiling.checks[name].reconstructions.share for name in names)
