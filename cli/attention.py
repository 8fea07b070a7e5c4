"""`dti-geom attention`."""

from typing import TYPE_CHECKING

from . import options
from .output import print_line, print_table, working_progress
from .probing import open_for_probe, show

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
    """A token's attention and use of context, by its magnitude.

    Prints, for each text tower and layer, the attention other positions pay to the token, what it gives itself, the
    entropy of its row and its context sensitivity, at the mean norm and far beyond. --out writes attention.json, with
    every head, and index.html, with maps of one prompt.
    """
    from dti_geom.probes import model_attention

    encoders, learned = open_for_probe(model, embedding, device, dtype)
    with working_progress() as progress:
        result = model_attention(model, encoders, learned, seed=seed, progress=progress)
    show(result, "attention", _print_encoder, out=out, json=json, overwrite=overwrite)


def _print_encoder(model: str, measured: "EncoderAttention") -> None:
    from dti_geom.reporting.sections.attention import layer_rows

    kind = "causal" if measured.causal else "bidirectional"
    print_line(
        f"{model} · {measured.name} · {len(measured.contexts)} prompts, {kind} attention", "bold"
    )
    print_line(
        f"equal attention would be {measured.uniform:.4g}, the largest entropy {measured.most_entropy:.4g} nats\n"
    )
    words, *learned = measured.curves
    for scale in (1.0, words.scales[-1]):
        print_table(
            f"{words.directions} words at ×{scale:g} the mean norm",
            ["layer", "gets", "gives itself", "entropy, nats", "context sensitivity"],
            layer_rows(words, scale),
        )
    if learned:
        print_table(
            "Learned vectors at their own norms, first layer",
            ["token", "own norm", "gets", "gives itself", "entropy, nats", "context sensitivity"],
            [
                (one.token, f"×{one.inflation:.3g}", *layer_rows(one, one.inflation or 0)[0][1:])
                for one in learned
            ],
        )
