"""Measure how much the gradient of an update varies with stratified and with independent times.

    python benchmarks/strata.py [--updates 200] [--json]

On the embedded model, for a token at its start and after a run: the gradients of many updates at
the same vectors. variance is the mean squared distance to their mean, over the squared length of
the mean. Images, noise and prompts vary alike; only the times are drawn in another way.
"""

import argparse
import json
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

CONCEPTS = ("round-teapot", "green-fox")
TRAINED = 100  # updates of the run before the second measurement


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--updates", type=int, default=200, help="gradients of each estimate")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for concept in CONCEPTS:
        rows += measure(concept, options.updates)
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    print("| concept | after | independent | stratified | stratified / independent |")
    print("|---|---|---|---|---|")
    for row in rows:
        independent, stratified = row["independent"], row["stratified"]
        print(
            f"| {row['concept']} | {row['after']} | {independent:.2f} | {stratified:.2f} | "
            f"{stratified / independent:.2f} |"
        )


def measure(name: str, updates: int) -> list[dict[str, Any]]:
    """Return the variance of both ways for a concept, at the start and after a run."""
    from dti_geom.models.catalog import profile_of
    from dti_geom.models.pipelines import open_text_to_image
    from dti_geom.training import ConceptConfig, DataConfig, RunConfig, Trainer

    facts = profile_of("mini").concepts()[name]
    model = open_text_to_image("mini", dtype=torch.float32)
    config = RunConfig(
        "mini", (ConceptConfig("<x>", str(facts.images), facts.init),), steps=TRAINED
    )
    trained = Trainer(model, config)
    rows = []
    for after in (0, TRAINED):
        if after:
            trained.run()
        row: dict[str, Any] = {"concept": name, "after": after}
        for way, stratified in (("independent", False), ("stratified", True)):
            # Another seed, so that the run has not seen these samples.
            asked = replace(config, seed=1, data=DataConfig(stratified=stratified))
            trainer = Trainer(model, asked)
            (vectors,) = trainer.concepts[0].trainable.parameters()
            vectors.data.copy_(trained.concepts[0].trainable.parameters()[0])
            row[way] = variance(trainer, vectors, updates)
        rows.append(row)
    return rows


def variance(trainer: Any, vectors: Tensor, updates: int) -> float:
    """Return the variance of the gradients of updates at fixed vectors, by their squared mean."""
    gradients = []
    for update in range(updates):
        trainer.step = update
        trainer._backward()
        assert vectors.grad is not None
        gradients.append(vectors.grad.flatten().clone())
        vectors.grad = None
    stacked = torch.stack(gradients)
    mean = stacked.mean(dim=0)
    spread = (stacked - mean).square().sum(dim=1).sum() / (updates - 1)
    return float(spread / mean.square().sum())


if __name__ == "__main__":
    main()
