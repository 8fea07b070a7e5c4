"""`dti-geom inflation`."""

from typing import Annotated

import typer

from . import options
from .output import print_json, print_line, print_section
from .progress import reading_progress


def inflation(
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", help="Rate of AdamW, per update.")
    ],
    steps: Annotated[int, typer.Option("--steps", min=1, help="Updates of the run.")],
    model: options.Model = "mini",
    weight_decay: Annotated[
        float, typer.Option("--weight-decay", help="Decoupled weight decay of AdamW.")
    ] = 0.01,
    init: Annotated[
        str | None,
        typer.Option(
            "--init", metavar="WORD", help="Start from this word. Default: from the mean norm."
        ),
    ] = None,
    start_norm: Annotated[
        float | None,
        typer.Option("--start-norm", help="Start from this norm, in embedding units."),
    ] = None,
    out: options.Out = None,
    json: options.Json = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Predict how long a free vector will grow, before it is trained.

    For methods that leave the norm free, such as ti. AdamW moves every coordinate by about the
    learning rate, so the squared norm grows by rate² × width in each update. Shows the norm over
    the run, the update at which it leaves the vocabulary's range, and the rate that keeps it
    inside. Reads the token table alone. --out writes inflation.json and index.html.
    """
    from dti_geom.models import open_encoders
    from dti_geom.reporting.folder import write_result_page
    from dti_geom.reporting.registry import section_of
    from dti_geom.training.inflation import predict_inflation

    with reading_progress() as progress:
        result = predict_inflation(
            model,
            open_encoders(model, progress=progress),
            learning_rate=learning_rate,
            steps=steps,
            weight_decay=weight_decay,
            init=init,
            start_norm=start_norm,
        )
    page = None
    if out is not None:
        page = write_result_page(out, "inflation", model, result, overwrite=overwrite)
    if json:
        print_json(result)
        return
    print_section(section_of(result))
    if page is not None:
        print_line(str(page))
