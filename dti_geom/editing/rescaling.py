"""Giving learned vectors the magnitude of vocabulary tokens."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from dti_geom import geometry
from dti_geom.errors import EditingError, MagnitudeError
from dti_geom.files import SECOND_TOWER, LearnedToken, key_of
from dti_geom.files.encoder_keys import ENCODERS, encoder_key
from dti_geom.models import TextEncoder
from dti_geom.models.judging import is_same_row, length_verdict, percentile_of, published_mean
from dti_geom.models.magnitude import parse_magnitude, row_norm

OUTLIERS = ("inflated", "short")


@dataclass(frozen=True)
class Rescaling:
    """New norms for learned vectors, as the user names them.

    rule: a magnitude in the language of `dti_geom.models.magnitude`, such as `mean` or `0.4`;
        `published`, the published mean norm of each encoder; or `×0.5`, a factor of each vector's
        own norm.
    by_encoder: rules for encoders of their own, by key: `clip_l=0.4,clip_g=published`. Encoders
        that are not named keep their norms.
    only: `inflated` or `short`, or the indices of the vectors to rescale; None for all.
    """

    rule: str = ""
    by_encoder: tuple[tuple[str, str], ...] = ()
    only: str | tuple[int, ...] | None = None

    @property
    def text(self) -> str:
        """The rule as it was written."""
        return self.rule or ",".join(f"{key}={rule}" for key, rule in self.by_encoder)

    def apply(self, learned: LearnedToken, encoders: Sequence[TextEncoder]) -> LearnedToken:
        """Return the token at its new norms; vectors that are left out keep their bits.

        encoders: those of the model, for rules that refer to a vocabulary.

        Raises MagnitudeError, UnknownToken or EditingError for a rule that has no value here.
        """
        rule = self._rule_for(learned)
        rows = self._rows(learned, encoders)
        if not rule or not rows:
            return learned
        norms = geometry.norms(learned.vectors.double())
        factor = _factor(rule)
        if factor is not None:
            norms = factor * norms
        elif rule == "published":
            norms = torch.full_like(norms, _published(learned))
        else:
            norms = torch.full_like(norms, target_norm(rule, encoder_for(learned, encoders)))
        vectors = learned.vectors.clone()
        vectors[rows] = (norms[rows, None] * geometry.normalize(learned.vectors[rows].double())).to(
            vectors.dtype
        )
        return replace(learned, vectors=vectors)

    def _rule_for(self, learned: LearnedToken) -> str:
        key = key_of(learned.tower, learned.vectors.shape[1])
        return dict(self.by_encoder).get(key or "", self.rule)

    def _rows(self, learned: LearnedToken, encoders: Sequence[TextEncoder]) -> list[int]:
        count = len(learned.vectors)
        if self.only is None:
            return list(range(count))
        if isinstance(self.only, str):
            return outlying_rows(learned, self.only, encoder_for(learned, encoders))
        missing = [index for index in self.only if not 0 <= int(index) < count]
        if missing:
            raise EditingError(
                f"{learned.token} has {count} vectors, 0 to {count - 1}, and --only names "
                f"{missing[0]}."
            )
        return [int(index) for index in self.only]


def parse_rescaling(text: str, only: str | None = None) -> Rescaling:
    """Read the values of --rescale and --only.

    Raises EditingError for an --only that is neither a verdict nor indices, MagnitudeError for a
    rule that is none.
    """
    parts = [part.partition("=") for part in text.split(",")]
    keys = [encoder_key(name.strip()) for name, _, _ in parts]
    by_encoder: tuple[tuple[str, str], ...] = ()
    if all(keys) and all(sign for _, sign, _ in parts):
        rules = [rule.strip() for _, _, rule in parts]
        by_encoder = tuple(zip(map(str, keys), rules, strict=True))
    for rule in [rule for _, rule in by_encoder] or [text]:
        _check_rule(rule)
    return Rescaling("" if by_encoder else text, by_encoder, _only(only))


def _only(text: str | None) -> str | tuple[int, ...] | None:
    if text is None or text in OUTLIERS:
        return text
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise EditingError(
            f"--only {text}: expected inflated, short, or indices of vectors from 0 such as 3,5."
        )
    return tuple(map(int, text.split(",")))


def _check_rule(rule: str) -> None:
    if rule == "published" or _factor(rule) is not None:
        return
    try:
        parse_magnitude(rule)
    except MagnitudeError as error:
        raise MagnitudeError(
            f"{error} Also published, ×0.5 of each vector's own norm, and one for each encoder: "
            "clip_l=0.387,clip_g=0.4515."
        ) from error


def _factor(rule: str) -> float | None:
    """Return 0.5 for `×0.5` and `x0.5`; None for other rules."""
    match = re.fullmatch(r"[×x]\s*([0-9]*\.?[0-9]+)", rule)
    return float(match[1]) if match and float(match[1]) > 0 else None


def _published(learned: LearnedToken) -> float:
    width = learned.vectors.shape[1]
    mean = published_mean(width)
    if mean is None:
        key = key_of(learned.tower, width)
        row = ENCODERS.get(key or "")
        known = row is not None and row.width == width
        encoder = row.encoder if row is not None and known else "an encoder"
        raise EditingError(
            f"no mean norm is published for {encoder} of width {width}, which {learned.token} "
            "belongs to. Use --rescale mean with --model, a number, or ×0.5."
        )
    return mean


def outlying_rows(
    learned: LearnedToken, verdict: str, encoder: TextEncoder | None = None
) -> list[int]:
    """Return the indices of the vectors of that verdict that are no rows of the vocabulary.

    verdict: one of OUTLIERS. encoder: judges by its vocabulary; without one the published mean
    judges, and nothing is an outlier where there is none.
    """
    norms = geometry.norms(learned.vectors.double()).tolist()
    if encoder is None:
        mean = published_mean(learned.vectors.shape[1])
        verdicts = [length_verdict(norm / mean if mean else None) for norm in norms]
    else:
        lengths = geometry.row_norms(encoder.token_table)
        ascending = lengths[lengths > 0].sort().values.cpu()
        verdicts = [length_verdict(None, percentile_of(norm, ascending)) for norm in norms]
    found = [index for index, other in enumerate(verdicts) if other == verdict]
    return [index for index in found if encoder is None or not _is_row(learned, index, encoder)]


def _is_row(learned: LearnedToken, index: int, encoder: TextEncoder) -> bool:
    vector = learned.vectors[index]
    table = encoder.token_table
    nearest = int((table.float() - vector.float().to(table.device)).norm(dim=1).argmin())
    return is_same_row(vector, table[nearest])


def target_norm(text: str, encoder: TextEncoder | None = None) -> float:
    """Return the norm that a magnitude names, in embedding units.

    text: in the language of `dti_geom.models.magnitude`, such as `mean`, `1.5*token:dog` or `0.4`.
    encoder: the one whose vocabulary it refers to; a number needs none.

    Raises MagnitudeError for what is no magnitude and for a word of several tokens, UnknownToken
    for an unknown word, EditingError where an encoder is needed and there is none.
    """
    magnitude = parse_magnitude(text)
    if not magnitude.needs_vocabulary:
        return magnitude.factor
    if encoder is None:
        raise EditingError(
            f"'{text}' needs the vocabulary these vectors belong to. Name it with --model, or give "
            "a number, published or ×0.5."
        )
    return magnitude.factor * row_norm(magnitude, encoder.token_table, encoder.vocabulary)


def rescale(learned: LearnedToken, norm: float) -> LearnedToken:
    """Return the token with every vector at this norm; directions and dtype stay.

    norm: in embedding units. Raises GeometryError for a zero vector.
    """
    directions = geometry.normalize(learned.vectors.double())
    return replace(learned, vectors=(norm * directions).to(learned.vectors.dtype))


def encoder_for(learned: LearnedToken, encoders: Sequence[TextEncoder]) -> TextEncoder | None:
    """Return the encoder whose token table has these vectors' width; None without encoders.

    Of two encoders of the same width, the token's tower decides. Raises EditingError if none fits.
    """
    width = learned.vectors.shape[1]
    fitting = [encoder for encoder in encoders if encoder.token_table.shape[1] == width]
    if encoders and not fitting:
        widths = ", ".join(str(encoder.token_table.shape[1]) for encoder in encoders)
        raise EditingError(
            f"{learned.token} has vectors of width {width}, and the encoders of this model have "
            f"{widths}. Choose the model it was trained for with --model."
        )
    if not fitting:
        return None
    return fitting[-1] if learned.tower in SECOND_TOWER else fitting[0]
