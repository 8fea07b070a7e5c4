"""`dti-geom norms`."""

from typing import TYPE_CHECKING

from . import options
from .inputs import read_embeddings_or_skip
from .output import keep_report, print_json, print_line, print_table, reading_progress

if TYPE_CHECKING:
    from dti_geom.probes import EncoderNorms


def norms(
    model: options.Model = "mini",
    embedding: options.Embeddings = None,
    out: options.Out = None,
    json: options.Json = False,
    overwrite: options.Overwrite = False,
    device: options.Device = "cpu",
) -> None:
    """How long tokens are, which are unusual, where mine fall.

    Prints, for each text tower, the norms' summary, the special tokens, the ten longest and shortest tokens, and each
    learned vector's place among them. --out writes norms.json, one .npy array of row norms per tower, and index.html.
    """
    from dti_geom.models import open_encoders
    from dti_geom.probes import Norms, encoder_norms, learned_vectors, require_some_fit

    learned = learned_vectors(read_embeddings_or_skip(embedding))
    with reading_progress() as progress:
        encoders = open_encoders(model, device=device, progress=progress)
        require_some_fit(learned, [encoder.token_table.shape[1] for encoder in encoders], model)
        result = Norms(model, tuple(encoder_norms(encoder, learned) for encoder in encoders))
    if out is not None:
        import numpy

        from dti_geom import geometry
        from dti_geom.files import atomic_path
        from dti_geom.reporting import Report

        keep_report(out, Report(model, norms=result), "norms.json", overwrite=overwrite)
        for encoder in encoders:
            with atomic_path(out / f"{encoder.name}.npy", overwrite=overwrite) as path:
                numpy.save(path, geometry.row_norms(encoder.token_table).cpu().numpy())
    if json:
        print_json(result)
        return
    for measured in result.encoders:
        _print_encoder(model, measured)
    if out is not None:
        print_line(str(out / "index.html"))


def _print_encoder(model: str, measured: "EncoderNorms") -> None:
    from dti_geom.geometry import PERCENTILES

    summary = measured.norms
    print_line(
        f"{model} · {measured.name} · {measured.vocab_size} tokens of width {measured.dim}", "bold"
    )
    print_line(
        f"mean {summary.mean:.4g} ± {summary.std:.4g} (std) over {summary.count} rows, "
        f"from {summary.min:.4g} to {summary.max:.4g}; zero rows left out: {summary.zero_rows}\n"
    )
    print_table(
        "Percentiles of the norm",
        [f"{percent} %" for percent in PERCENTILES],
        [summary.percentiles],
    )
    if measured.special:
        print_table(
            "Special tokens",
            ["token", "id", "norm"],
            [(t.token, t.id, t.norm) for t in measured.special],
        )
    print_table(
        "Longest and shortest tokens",
        ["longest", "id", "norm", "shortest", "id", "norm"],
        [
            (long.token, long.id, long.norm, short.token, short.id, short.norm)
            for long, short in zip(measured.longest, measured.shortest, strict=True)
        ],
    )
    if measured.learned:
        print_table(
            "Learned vectors",
            ["token", "index", "norm", "z-score", "percentile", "inflation"],
            [
                (
                    one.token,
                    one.index,
                    one.norm,
                    one.z_score,
                    one.percentile,
                    f"×{one.inflation:.3g}",
                )
                for one in measured.learned
            ],
            [one.path for one in measured.learned],
        )
