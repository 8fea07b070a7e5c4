"""Train ten updates of DTI on photographs, on a tiny model of every pipeline family.

python benchmarks/families.py --images PHOTOGRAPHS

The models have the published layout and random weights, so the tokens mean nothing. That every
family trains end to end on real photographs, turns its vectors and leaves their norm alone does.
"""

import argparse
import math
import sys
import tempfile
from pathlib import Path

import torch

TESTS = Path(__file__).parents[1] / "tests"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    sys.path.insert(0, str(TESTS))
    from dti_geom.training import ConceptConfig, PreviewConfig, RunConfig, train
    from pipelines import FAMILIES

    print("| family | vectors | turned | norm ÷ mean |")
    print("|---|---|---|---|")
    for name, family in FAMILIES.items():
        with tempfile.TemporaryDirectory() as place:
            torch.manual_seed(0)
            family.build(Path(place) / "model")
            config = RunConfig(
                f"{place}/model",
                (ConceptConfig("<x>", str(options.images), family.word),),
                preview=PreviewConfig(every=0),
                steps=options.steps,
                batch_size=2,
                dtype="float32",
            )
            vectors = train(config, f"{place}/run").vectors
        turned = ", ".join(f"{math.degrees(vector.angle_to_start):.1f}°" for vector in vectors)
        kept = ", ".join(f"{vector.inflation:.4f}" for vector in vectors)
        print(f"| {name} | {len(vectors)} | {turned} | ×{kept} |", flush=True)


if __name__ == "__main__":
    main()
