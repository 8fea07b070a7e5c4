"""Measure whether a word's neighbours are of its own kind: by direction, and by distance.

Claim A of the paper says that neighbours by cosine are, and neighbours by distance are not. The
embedded model's words have kinds that are known: things, places, colours. Their neighbours are
sought twice: among all rows of the token table, where short rows without a kind crowd in, and among
the content words alone. Only words that are one token count.

python benchmarks/kinds.py
"""

import argparse
import json
from dataclasses import asdict
from statistics import fmean
from typing import Any, Literal

from dti_geom import geometry, open_encoders
from dti_geom.mini.domain import ACCESSORIES, BACKGROUNDS, COLOURS, PLURALS, SIZES, THING_NAMES
from dti_geom.models.encoders import TextEncoder
from dti_geom.statistics import bootstrap_test

NEAREST = 5
# Words of the places that name them; the others ("in", "front", "on") stand in many phrases.
LINKS = {"in", "on", "at", "the", "a", "of", "with", "under", "front", "behind", "background"}
METRICS: tuple[Literal["cosine", "euclidean"], ...] = ("cosine", "euclidean")


def kinds() -> dict[str, list[str]]:
    """Return the content words of the embedded model's world, by kind."""
    phrases = [phrase for phrases in BACKGROUNDS.values() for phrase in phrases]
    places = {word for phrase in phrases for word in phrase.split()} - LINKS
    return {
        "things": [*THING_NAMES, *(PLURALS[name] for name in THING_NAMES)],
        "places": sorted(places),
        "colours": [colour for colour in COLOURS if colour not in places],
        "accessories": list(ACCESSORIES),
        "sizes": [word for words in SIZES.values() for word in words],
    }


def same_kind(
    encoder: TextEncoder,
    words: dict[str, list[str]],
    metric: Literal["cosine", "euclidean"],
    among: str,
) -> dict[str, list[float]]:
    """Return by kind, for each word, the share of its nearest neighbours that are of its kind.

    among: "all rows" or "content words". A kind with no more than NEAREST words cannot fill the
    list, so it is not asked, only found.
    """
    single = {
        kind: [word for word in listed if encoder.vocabulary.is_word(word)]
        for kind, listed in words.items()
    }
    kind_of = {
        encoder.vocabulary.rows(word)[0]: kind for kind, listed in single.items() for word in listed
    }
    table = encoder.token_table.float()
    ids = list(range(len(table))) if among == "all rows" else list(kind_of)
    queries = [row for row, kind in kind_of.items() if len(single[kind]) > NEAREST]
    found = geometry.nearest(table[queries], table[ids], NEAREST + 1, metric=metric).indices
    shares: dict[str, list[float]] = {}
    for row, places in zip(queries, found.tolist(), strict=True):
        others = [ids[place] for place in places if ids[place] != row][:NEAREST]
        kind = kind_of[row]
        same = sum(kind_of.get(other) == kind for other in others)
        shares.setdefault(kind, []).append(same / NEAREST)
    return shares


def measure(encoder: TextEncoder) -> dict[str, Any]:
    """Return the shares under both metrics, and their paired difference over all words."""
    result: dict[str, Any] = {"nearest": NEAREST}
    words = kinds()
    for among in ("all rows", "content words"):
        shares = {metric: same_kind(encoder, words, metric, among) for metric in METRICS}
        by_word = {
            metric: [value for values in by_kind.values() for value in values]
            for metric, by_kind in shares.items()
        }
        differences = [a - b for a, b in zip(*by_word.values(), strict=True)]
        result["words"] = {kind: len(values) for kind, values in shares["cosine"].items()}
        result[among] = {
            metric: {kind: fmean(values) for kind, values in by_kind.items()}
            | {"all": fmean(by_word[metric])}
            for metric, by_kind in shares.items()
        }
        interval, p = bootstrap_test([[[difference]] for difference in differences])
        result[among]["cosine less euclidean"] = asdict(interval) | {"p": p}
    return result


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    (encoder,) = open_encoders("mini")
    print(json.dumps(measure(encoder), indent=1))


if __name__ == "__main__":
    main()
