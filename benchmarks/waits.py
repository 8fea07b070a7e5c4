"""Count where one update of the trainer waits for a GPU.

    python benchmarks/waits.py [--json]

A training step asks a GPU for more work than it has done yet. It waits when it reads a number back,
and at every plain copy to the device. The count is made without a GPU: a real trainer is moved to
torch's meta device after its start, and every operation that would wait is counted and answered
with ones. The number does not depend on the size of a model, so the tests' tiny pipelines serve.

read   numbers and tensors read from the device
sent   copies to the device that do not run beside other work
"""

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

TESTS = Path(__file__).parents[1] / "tests"
META = torch.device("meta")
FAMILIES = ("sd15", "sd21", "sdxl", "sana")
METHODS = ("dti", "ti")
ATEN = torch.ops.aten


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    sys.path.insert(0, str(TESTS))
    import pipelines

    counts: list[dict[str, Any]] = []
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as place:
            facts = pipelines.FAMILIES[family]
            facts.build(Path(place))
            for method in METHODS:
                waits = count(place, method, facts.word)
                row = {"family": family, "method": method, "read": waits.read, "sent": waits.sent}
                counts.append(row)
    if options.json:
        print(json.dumps(counts, indent=1))
        return
    print(f"{'family':<8} {'method':<8} {'read':>5} {'sent':>5}")
    for row in counts:
        print(f"{row['family']:<8} {row['method']:<8} {row['read']:>5} {row['sent']:>5}")


class Waits(TorchDispatchMode):
    """Counts the operations that wait for the meta device, as if it computed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.read = 0
        self.sent = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, options)) if isinstance(leaf, Tensor)]
        there = any(tensor.device == META for tensor in tensors)
        if func is ATEN._local_scalar_dense.default and there:
            self.read += 1
            return args[0].dtype == torch.bool or 1
        if func is ATEN._to_copy.default and "device" in options:
            to_device = torch.device(options["device"]) == META
            if there and not to_device:
                self.read += 1
                return torch.ones(args[0].shape, dtype=options.get("dtype") or args[0].dtype)
            if to_device and not there and not options.get("non_blocking"):
                self.sent += 1
        if func is ATEN.lift_fresh.default and there:  # torch.tensor(numbers, device=…)
            self.sent += 1
        return func(*args, **options)


def count(folder: str, method: str, word: str) -> Waits:
    """Return the waits of an update that is not the first and looks up no nearest words.

    word: one that is a single token of the model.
    """
    from dti_geom.models.catalog import profile_of
    from dti_geom.models.pipelines import open_text_to_image
    from dti_geom.training import ConceptConfig, DataConfig, MethodConfig, RunConfig, Trainer

    images = str(profile_of("mini").concepts()["round-teapot"].images)
    config = RunConfig(
        model=folder,
        concepts=(ConceptConfig("<x>", images, word),),
        method=MethodConfig(method),
        data=DataConfig(resolution=64),
        steps=100,
    )
    trainer = Trainer(open_text_to_image(folder, dtype=torch.float32), config)
    updates = trainer.updates()
    next(updates)
    move(trainer)
    with Waits():  # tables and the instruction go to the device once
        next(updates)
    waits = Waits()
    with waits:
        next(updates)
    return waits


def move(trainer: Any) -> None:
    """Move a trainer, which runs on the CPU, to the meta device with everything it needs."""
    trainer.model.pipeline.to(META)
    trainer._ahead = None  # the next batch, drawn for the CPU
    for concept in trainer.concepts:
        encoded = concept.samples.encoded
        std = None if encoded.latents.std is None else encoded.latents.std.to(META)
        latents = replace(encoded.latents, mean=encoded.latents.mean.to(META), std=std)
        concept.samples.encoded = replace(encoded, latents=latents)
        for vectors in concept.trainable.vectors:
            for name in ("start", "prior", "magnitude"):
                setattr(vectors, name, getattr(vectors, name).to(META))
            vectors.parameter = vectors.parameter.detach().to(META).requires_grad_()
            ((optimizer, _),) = vectors.optimizers
            state = optimizer.state.popitem()[1]
            for name, value in state.items():
                state[name] = value if value.ndim == 0 else value.to(META)
            optimizer.state[vectors.parameter] = state
            (group,) = optimizer.param_groups
            group["params"] = [vectors.parameter]
            if group.get("prior_direction") is not None:
                group["prior_direction"] = group["prior_direction"].to(META)


if __name__ == "__main__":
    main()
