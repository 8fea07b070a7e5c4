"""The model card: what the model is and knows, its measured figures, its limits and licences."""

from collections.abc import Iterable
from pathlib import Path

from dti_geom.mini.ceilings import LEAST_CEILING, Ceiling, ConceptCeiling
from dti_geom.mini.domain import ACCESSORIES, BACKGROUND_NAMES, COLOURS, THING_NAMES
from dti_geom.mini.figures import Figures
from dti_geom.mini.recipe.artwork import PACKAGES
from dti_geom.mini.recipe.targets import PSNR_TARGET, TARGETS, missed_targets

INTRODUCTION = """\
A small latent text-to-image pipeline in the standard diffusers layout, trained from nothing by the
recipe in `dti_geom/mini/recipe` (`make mini`): tokenizer, autoencoder (16×16 latents, 8 channels),
a 5-block pre-norm CLIP text encoder that first takes a reading lesson and then learns together with
the denoiser (v-prediction, at first half of the noise levels from the noisiest 30 %, averaged
weights). Beside it are `scorer/`, an independent convolutional network that reads pictures back
into words, and `concepts/`, personal concepts that were never trained.
"""

NOTICES = """\
The weights learned from, and the concept images show, emoji artwork of three makers. The artwork
was cropped, scaled, recoloured, patterned and pasted on drawn backgrounds.

**Noto Emoji**, style "drawn", the only style the generator was trained on. Copyright Google LLC and
the Noto Emoji contributors. Licensed under the Apache License, Version 2.0:
https://www.apache.org/licenses/LICENSE-2.0. Unless required by applicable law or agreed to in
writing, it is distributed on an "AS IS" BASIS, WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either
express or implied. Changes as said above.

**Twemoji**, style "flat", concept images and scorer only. Copyright Twitter, Inc and other
contributors. Graphics licensed under CC-BY 4.0: https://creativecommons.org/licenses/by/4.0/.
Source: https://github.com/twitter/twemoji. Changes as said above.

**Fluent Emoji**, style "round", concept images and scorer only. MIT License. Copyright (c)
Microsoft Corporation.

> Permission is hereby granted, free of charge, to any person obtaining a copy of this software
> and associated documentation files (the "Software"), to deal in the Software without
> restriction, including without limitation the rights to use, copy, modify, merge, publish,
> distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the
> Software is furnished to do so, subject to the following conditions:
>
> The above copyright notice and this permission notice shall be included in all copies or
> substantial portions of the Software.
>
> THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING
> BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
> NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
> DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
> OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""

LIMITS = """\
- One drawing style, 64×64 px, and only the words of this small world; other words fall into letters
  it can spell but not paint. Adjectives such as "bright", "nice" or "dirty" occur in captions and
  change nothing.
- Colours repaint a whole thing. In pairs the colour of one thing may leak to the other.
- A hat or a bow is worn by single things; pairs wear none.
- Captions have at most 24 positions.
- The scorer reads this world only, and imperfectly: the rows "true renders" and "reconstructions"
  say how well. Its figures for other styles rest on artwork it has seen.
"""


CEILINGS = f"""\
Percent of true pictures, painted and passed through the autoencoder, that pass each check of the
prompts of `mini`. In brackets: below {LEAST_CEILING:.0%}, too few to decide for the concept.
Likeness is the mean cosine with the reference images: of the same pictures, and of painted pictures
of the other concepts. `ceilings.json` has the counts, and those of painted pictures.
"""

THIS_COPY = """\
## How this copy was trained

On one core of a shared two-core machine, without a GPU, in about 110 minutes: autoencoder 950 steps
of 16 pictures and its decoder alone 240 more, scorer 1600 steps of 96, reading lesson 260 steps of
128 captions, text encoder and denoiser together 1850 steps of 64 (118,000 samples). Runs were
stopped and resumed with other planned lengths, so the learning rate did not follow one schedule
from start to end, and the share of noisy levels changed at joint step 500; a fresh run of the
recipe gives a model like this one, not the same bits. Errors still fell when training ended: more
joint steps alone make a better model. The scorer was trained again later, by one run of its stage,
for the shipped autoencoder: the first one had never seen the concepts in pairs and in counts.
"""


def write_card(figures: Figures, ceilings: Iterable[ConceptCeiling], folder: Path) -> Path:
    """Write MODEL_CARD.md into `folder`; return its path."""
    path = folder / "MODEL_CARD.md"
    path.write_text(
        "\n".join(
            [
                *_introduction(),
                THIS_COPY,
                *_figures(figures),
                *_ceilings(list(ceilings)),
                "## Limits",
                "",
                LIMITS,
                *_licences(),
            ]
        )
    )
    return path


def _introduction() -> list[str]:
    return [
        "# mini, the embedded model",
        "",
        INTRODUCTION,
        f"It knows {len(THING_NAMES)} things ({', '.join(THING_NAMES)}),",
        f"{len(BACKGROUND_NAMES)} backgrounds ({', '.join(BACKGROUND_NAMES)}),",
        f"{len(COLOURS)} colours ({', '.join(COLOURS)}),",
        f"{' and '.join(ACCESSORIES)} to wear, small and large, one to three of the same,",
        "and pairs: left of, right of, above, below, with.",
        "",
    ]


def _figures(figures: Figures) -> list[str]:
    wanted = {(target.row, target.check): f"{target.share:.0%}" for target in TARGETS}
    lines = [
        "## Figures",
        "",
        f"`make mini-eval`; {figures.sampler}; Wilson 95 % intervals in brackets. One image takes"
        f" {figures.seconds_one_image:.2f} s ({figures.hardware}). Mean reconstruction"
        f" {figures.psnr:.1f} dB (wanted {PSNR_TARGET:.0f}).",
        "",
        "| row | check | share | wanted |",
        "|---|---|---|---|",
    ]
    for name, row in figures.rows.items():
        lines += [
            f"| {name} | {check} | {share} | {wanted.get((name, check), '')} |"
            for check, share in row.items()
        ]
    missed = missed_targets(figures)
    lines += ["", "Missed:" if missed else "Every wanted figure is reached.", ""]
    return lines + [f"- {line}" for line in missed] + ([""] if missed else [])


def _ceilings(ceilings: list[ConceptCeiling]) -> list[str]:
    """One row per concept: the share of reconstructions that pass each check, and likenesses."""
    names = list(dict.fromkeys(name for ceiling in ceilings for name in ceiling.checks))
    lines = [
        "## What the scorer can see of the concepts",
        "",
        CEILINGS,
        f"| concept | {' | '.join(names)} | likeness | others' |",
        "|---" * (len(names) + 3) + "|",
    ]
    for ceiling in ceilings:
        cells = [_percent(ceiling.checks.get(name)) for name in names]
        likeness = ceiling.likeness
        lines.append(
            f"| {ceiling.concept} | {' | '.join(cells)} | {likeness.reconstructions:.2f} |"
            f" {likeness.other:.2f} |"
        )
    return [*lines, ""]


def _percent(ceiling: Ceiling | None) -> str:
    if ceiling is None:
        return ""
    percent = f"{100 * ceiling.reconstructions.share:.0f}"
    return percent if ceiling.decides else f"({percent})"


def _licences() -> list[str]:
    sources = [
        f"- {package.licence}: npm `{package.name}` {package.version}" for package in PACKAGES
    ]
    return [
        "## Licences and notices",
        "",
        *sources,
        "",
        NOTICES,
        "The weights come under this project's MIT licence. A concept image keeps the licence of",
        "the artwork that it shows.",
    ]
