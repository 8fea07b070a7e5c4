"""`dti-geom attention`."""

from typing import TYPE_CHECKING

from . import options
from .inputs import read_embeddings_or_skip
from .output import keep_report, print_json, print_line, print_table, working_progress

if TYPE_CHECKING:
    from dti_geom.probes import EncoderAttention


def attention(
    model: options.Model = "mini",
    embedding: options.Embeddings = None,
    out: options.Out = None,
    json: options.Json = False,
    overwrite: options.Overwrite = False,
    device: options.Device = "cpu",
    dtype: options.Dtype = options.Numbers.float32,
    seed: options.Seed = 0,
) -> None:
    """Attention and context: what a token gets and gives, and how it heeds its context, against its magnitude.

    Prints, for each text tower and layer, the attention other positions pay to the token, what it gives itself, the
    entropy of its row and its context sensitivity, at the mean norm and far beyond. --out writes attention.json, with
    every head, and index.html, with maps of one prompt.
    """
    import torch

    from dti_geom.models import open_encoders
    from dti_geom.probes import learned_vectors, model_attention, require_some_fit

    learned = learned_vectors(read_embeddings_or_skip(embedding))
    encoders = open_encoders(model, device=device, dtype=getattr(torch, dtype.value))
    require_some_fit(learned, [encoder.token_table.shape[1] for encoder in encoders], model)
    with working_progress() as progress:
        result = model_attention(model, encoders, learned, seed=seed, progress=progress)
    if out is not None:
        from dti_geom.reporting import Report

        keep_report(out, Report(model, attention=result), "attention.json", overwrite=overwrite)
    if json:
        print_json(result)
        return
    for measured in result.encoders:
        _print_encoder(model, measured)
    if out is not None:
        print_line(str(out / "index.html"))


def _print_encoder(model: str, measured: "EncoderAttention") -> None:
    from dti_geom.reporting.attention import layer_rows

    kind = "causal" if measured.causal else "bidirectional"
    print_line(f"{model} · {measured.name} · {len(measured.contexts)} prompts, {kind} attention", "bold")
    print_line(
        f"equal attention would be {measured.uniform:.4g}, the largest entropy {measured.most_entropy:.4g} nats\n"
    )
    words, *learned = measured.curves
    for scale in (1.0, words.scales[-1]):
        print_table(
            f"{words.directions} words at ×{scale:g} the mean norm",
            ["layer", "gets", "gives itself", "entropy", "context sensitivity"],
            layer_rows(words, scale),
        )
    if learned:
        print_table(
            "Learned vectors at their own norms, first layer",
            ["token", "own norm", "gets", "gives itself", "entropy", "context sensitivity"],
            [(one.token, f"×{one.inflation:.3g}", *layer_rows(one, one.inflation or 0)[0][1:]) for one in learned],
        )
