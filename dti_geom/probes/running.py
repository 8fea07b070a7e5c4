"""All probes of one encoder in one call, for notebooks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dti_geom.errors import DoesNotApply, DtiGeomError
from dti_geom.models import TextEncoder
from dti_geom.probes.angles import encoder_angles
from dti_geom.probes.attention import encoder_attention
from dti_geom.probes.attenuation import encoder_attenuation
from dti_geom.probes.drawing import Drawable
from dti_geom.probes.learned import LearnedVector
from dti_geom.probes.norms import encoder_norms
from dti_geom.probes.stagnation import encoder_stagnation
from dti_geom.probes.swap import encoder_swap
from dti_geom.progress import Progress, silent

PROBES: dict[str, Callable[..., Drawable]] = {
    "norms": lambda encoder, learned, *, seed, progress: encoder_norms(encoder, learned),
    "swap": encoder_swap,
    "attenuation": encoder_attenuation,
    "stagnation": encoder_stagnation,
    "attention": encoder_attention,
    "angles": lambda encoder, learned, *, seed, progress: encoder_angles(
        encoder, learned, seed=seed
    ),
}


@dataclass(frozen=True)
class NotMeasured:
    """A probe that has no meaning for this encoder."""

    reason: str


def run(
    encoder: TextEncoder,
    names: Sequence[str] | None = None,
    learned: Sequence[LearnedVector] = (),
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Drawable | NotMeasured]:
    """The results of these probes, or of all, by name; each draws itself with `.figure()`.

    names: of PROBES. Where a probe does not apply, its place holds the reason. Raises DtiGeomError for another name.
    """
    names = list(PROBES) if names is None else names
    for name in names:
        if name not in PROBES:
            raise DtiGeomError(f"no probe called '{name}'. Known: {', '.join(PROBES)}.")
    results: dict[str, Drawable | NotMeasured] = {}
    for name in names:
        try:
            results[name] = PROBES[name](encoder, learned, seed=seed, progress=progress)
        except DoesNotApply as reason:
            results[name] = NotMeasured(str(reason))
    return results
