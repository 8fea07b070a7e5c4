"""Measure how often a planted prompt is found again, and what hard prompts of tokens reach.

    python benchmarks/harden.py [--trials 10] [--tokens FILE] [--out FILE]

planted: prompts of random words of `mini` that are searched by their states alone, from starts that
have nothing to do with them. tokens: those of TI and DTI of the first training seed, of all test
concepts; the share of their states that three words reach, and the likeness of what token, prompt,
best single word and class word paint (alone, on eight backgrounds, the same noise).
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from experiments import PLACES, alone, concepts_of, embedded_references, paint, paint_prompts, read
from safetensors.torch import load_file
from torch import Tensor

from dti_geom.mini.scorer import shipped_scorer
from dti_geom.models import open_encoders
from dti_geom.models.pipelines import open_text_to_image
from dti_geom.probes.harden import Search, measure_harden
from dti_geom.probes.learned import LearnedVector
from dti_geom.statistics import bootstrap_test

TOKENS = Path(__file__).parents[1] / "reports" / "effects" / "tokens.safetensors"
STARTS, UPDATES, WORDS, SEED = 8, 60, 3, 0


def planted(encoder: Any, words: int, trials: int) -> dict[str, Any]:
    """Return how many prompts of random words are found by their states."""
    search = Search(encoder, words)
    draw = torch.Generator().manual_seed(5)
    found, shares = 0, []
    for _ in range(trials):
        hidden, first = (
            torch.randint(len(search.candidates), (words,), generator=draw) for _ in range(2)
        )
        target = next(search.states(search.table[hidden][None]))[0]
        best = search.best(target, first, STARTS, UPDATES)
        found += best.ids == search.prompt(hidden, target).ids
        shares.append(best.share)
    return {"words": words, "found": found, "of": trials, "lowest share": min(shares)}


def hardened(encoder: Any, file: Path) -> list[dict[str, Any]]:
    """Return the prompts of stored tokens and the likeness of what they paint."""
    model, scorer = open_text_to_image("mini", dtype=torch.bfloat16), shipped_scorer()
    stored = load_file(file)
    rows = []
    for concept in concepts_of("test"):
        references = embedded_references(scorer, concept)
        for method in ("ti", "dti"):
            vector = stored[f"{method}/{concept.name}/{SEED}"].float().flatten()
            given = [LearnedVector("<x>", 0, None, file, vector, "<x>")]
            found = measure_harden(
                encoder, given, tokens="<x>", words=WORDS, starts=STARTS, updates=UPDATES
            )
            (token,) = found.tokens
            painted = {
                "token": paint(model, vector, alone(), seed=1000),
                "prompt": worded(model, token.prompt.text),
                "word": worded(model, token.word.text),
                "class word": worded(model, concept.initialiser),
            }
            rows.append(
                {"concept": concept.name, "method": method}
                | {name: getattr(token, name).text for name in ("prompt", "word", "nearest")}
                | {"shares": {n: getattr(token, n).share for n in ("prompt", "word", "nearest")}}
                | {"random": token.random}
                | {"likeness": {n: likeness(scorer, p, references) for n, p in painted.items()}}
            )
            print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
    return rows


def worded(model: Any, words: str) -> Tensor:
    """Return pictures of the words alone, as of a token."""
    return paint_prompts(model, [prompt.replace("{}", words) for prompt in alone()], 1000)


def likeness(scorer: Any, pixels: Tensor, references: Tensor) -> float:
    return fmean(reading.likeness for reading in read(scorer, pixels, references))


def compared(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return means by method, and DTI less TI with its interval over concepts."""
    by_method = {
        method: {
            "share": fmean(row["shares"]["prompt"] for row in rows if row["method"] == method),
            "share of the word": fmean(
                row["shares"]["word"] for row in rows if row["method"] == method
            ),
            "likeness": {
                shown: fmean(row["likeness"][shown] for row in rows if row["method"] == method)
                for shown in rows[0]["likeness"]
            },
        }
        for method in ("ti", "dti")
    }
    pairs: dict[str, list[float]] = {}
    for row in rows:
        pairs.setdefault(row["concept"], []).append(row["shares"]["prompt"])
    interval, p = bootstrap_test([[[dti - ti]] for ti, dti in pairs.values()], limits=(-10, 10))
    return {"by method": by_method, "share, dti less ti": {**asdict(interval), "p": p}}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=10, help="planted prompts of each length")
    parser.add_argument("--tokens", type=Path, default=TOKENS)
    parser.add_argument("--out", type=Path, help="also write the result here")
    options = parser.parse_args()
    (encoder,) = open_encoders("mini")
    result: dict[str, Any] = {
        "command": "python benchmarks/harden.py",
        "torch": torch.__version__,
        "backgrounds": len(PLACES),
        "planted": [planted(encoder, words, options.trials) for words in (2, 3)],
    }
    print(json.dumps(result["planted"]), flush=True)
    result["tokens"] = hardened(encoder, options.tokens)
    result |= compared(result["tokens"])
    print(json.dumps({n: result[n] for n in ("by method", "share, dti less ti")}, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
