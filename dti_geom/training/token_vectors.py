"""The vectors of one learned token in every text tower of a model: the first trainable."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from dti_geom import geometry
from dti_geom.files import LearnedToken, write_embeddings
from dti_geom.models.magnitude import parse_magnitude, token_norms
from dti_geom.models.pipelines import TextToImage, Tower
from dti_geom.training.config import ConceptConfig, MethodConfig
from dti_geom.training.methods.base import Settings, Step, VocabularyStats, decide
from dti_geom.training.methods.registry import method_named
from dti_geom.training.starts import start_of, vocabulary_stats
from dti_geom.training.trainable import LearnedVectorResult, Values, VectorRecord

MAGNITUDE_RATE = 5e-3  # of Adam on the logarithm of a learned magnitude
NEAREST = 5  # words named beside a vector


class TokenVectors:
    """One token's vectors in all towers; a `Trainable`."""

    def __init__(
        self, token: str, towers: Sequence[Tower], vectors: Sequence["TowerVectors"]
    ) -> None:
        """towers, vectors: of the model, in its order."""
        self.token = token
        self.towers = tuple(towers)
        self.vectors = tuple(vectors)

    @classmethod
    def build(
        cls, model: TextToImage, concept: ConceptConfig, method: MethodConfig, seed: int
    ) -> Self:
        """Start the token of a concept as its configuration says.

        Raises TrainingError for a setting that does not fit, MagnitudeError, UnknownToken.
        """
        settings = decide(method_named(method.name), method, model.training)
        vectors = []
        for number, tower in enumerate(model.towers):
            start = start_of(model, number, concept, settings.method, seed)
            stats = vocabulary_stats(tower)
            magnitude = None  # a free norm
            if settings.magnitude is not None:
                magnitude = token_norms(
                    parse_magnitude(settings.magnitude, may_learn=True),
                    table=tower.token_table,
                    vocabulary=tower.vocabulary,
                    init=start.prior,
                    summary=stats.norms,
                )
            vectors.append(
                TowerVectors(
                    start=start.vectors,
                    prior=start.prior,
                    magnitude=magnitude,
                    stats=stats,
                    settings=settings,
                    learn_magnitude=settings.magnitude == "learned",
                )
            )
        return cls(concept.token, model.towers, vectors)

    def parameters(self) -> list[Tensor]:
        """Return what learns, tower by tower."""
        parameters = []
        for vectors in self.vectors:
            parameters += vectors.parameters()
        return parameters

    def place(self, model: TextToImage, *, differentiable: bool) -> None:
        """Let the token stand for the current vectors in the model."""
        rows = [vectors.vectors() for vectors in self.vectors]
        model.place(self.token, rows if differentiable else [row.detach() for row in rows])

    def place_values(self, model: TextToImage, values: Values) -> None:
        """Let the token stand for these values in the model."""
        model.place(self.token, [rows.to(model.device) for rows in values.values()])

    def penalty(self) -> Tensor | None:
        """Return the pull toward the start, summed over the towers; None for most methods."""
        pulls = [vectors.pull() for vectors in self.vectors if vectors.method.pull]
        return torch.stack(pulls).sum() if pulls else None

    def step(self, share: float) -> None:
        """Move every tower's vectors along their gradients, and clear them."""
        for vectors in self.vectors:
            vectors.step(share)

    def values(self) -> Values:
        """Return the vectors of each tower, {name: (n, d)}, float32 on the CPU."""
        return {
            tower.name: vectors.vectors().detach().cpu().clone()
            for tower, vectors in zip(self.towers, self.vectors, strict=True)
        }

    def average(self, recent: Sequence[Values]) -> Values:
        """Return `average_vectors` for each tower."""
        names = [tower.name for tower in self.towers]
        return {name: average_vectors([values[name] for values in recent]) for name in names}

    def state(self) -> dict[str, Tensor]:
        """Return everything that the next step depends on, named TOWER/TENSOR."""
        state: dict[str, Tensor] = {}
        for tower, vectors in zip(self.towers, self.vectors, strict=True):
            state |= {f"{tower.name}/{name}": value for name, value in vectors.state().items()}
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned, bit for bit. Raises KeyError for another token's state."""
        for tower, vectors in zip(self.towers, self.vectors, strict=True):
            vectors.load_state(with_prefix(state, f"{tower.name}/"))

    def save(self, folder: Path, values: Values, metadata: Mapping[str, str]) -> None:
        """Write the values in the layout of diffusers: one `learned_embeds` file per tower."""
        tokens = [LearnedToken(self.token, tower, rows) for tower, rows in values.items()]
        write_embeddings(folder, tokens, metadata=metadata, overwrite=True)

    def figures(self) -> list[Tensor]:
        """Return the vectors after the last step and its gradients, tower by tower."""
        figures = []
        for vectors in self.vectors:
            figures += [vectors.vectors().detach(), vectors.gradient]
        return figures

    def records(self, figures: Sequence[Tensor], *, nearest: bool) -> tuple[VectorRecord, ...]:
        """Describe every vector after a step."""
        records = []
        for number, (tower, learned) in enumerate(zip(self.towers, self.vectors, strict=True)):
            rows, gradient = figures[2 * number : 2 * number + 2]
            directions = geometry.normalize(rows)
            norms, gradient_norms = geometry.norms(rows).tolist(), geometry.norms(gradient).tolist()
            angles = geometry.angle(directions, learned.start_direction).tolist()
            cosines = (directions * learned.prior_direction).sum(dim=-1).tolist()
            records += [
                VectorRecord(
                    token=self.token,
                    tower=tower.name,
                    index=index,
                    norm=norms[index],
                    angle_to_start=angles[index],
                    cosine_to_prior=cosines[index],
                    gradient_norm=gradient_norms[index],
                    nearest=nearest_words(tower, row) if nearest else (),
                )
                for index, row in enumerate(rows)
            ]
        return tuple(records)

    def results(self, values: Values) -> tuple[LearnedVectorResult, ...]:
        """Describe final vectors."""
        results = []
        for tower, learned in zip(self.towers, self.vectors, strict=True):
            rows = values[tower.name]
            directions = geometry.normalize(rows)
            start = geometry.normalize(learned.start.cpu())
            results += [
                LearnedVectorResult(
                    token=self.token,
                    tower=tower.name,
                    index=index,
                    norm=float(geometry.norms(row)),
                    inflation=float(geometry.norms(row)) / learned.stats.norms.mean,
                    angle_to_start=float(geometry.angle(directions[index], start[index])),
                    cosine_to_prior=float(directions[index] @ learned.prior[index].cpu()),
                    nearest=nearest_words(tower, row),
                )
                for index, row in enumerate(rows)
            ]
        return tuple(results)


class TowerVectors:
    """The vectors of one token in one tower: float32 parameters and what moves them.

    `parameter` is v, e or u of `Method.form`, (n, d).
    """

    def __init__(
        self,
        *,
        start: Tensor,
        prior: Tensor,
        magnitude: Tensor | None,
        stats: VocabularyStats,
        settings: Settings,
        learn_magnitude: bool = False,
    ) -> None:
        """start, prior: (n, d), not zero. magnitude: (n, 1), None for a free norm."""
        self.settings, self.method, self.stats = settings, settings.method, stats
        self.start = start.float()
        self.prior = geometry.normalize(prior.float())
        on_sphere = self.method.form == "direction"
        parameter = geometry.normalize(self.start) if on_sphere else self.start
        self.parameter = parameter.clone().requires_grad_(self.method.learns)
        self.magnitude = torch.ones(len(start), 1) if magnitude is None else magnitude.float()
        self.magnitude = self.magnitude.to(start.device)
        self.log_magnitude: Tensor | None = None
        if learn_magnitude:
            # The logarithm learns: the magnitude stays positive, and no retraction resets it.
            self.log_magnitude = self.magnitude.log().requires_grad_()
        self.optimizers = self._optimizers()
        self.gradient = torch.zeros_like(self.start)  # of `parameter`, at the last step
        # On the CPU, where records are made.
        self.start_direction = geometry.normalize(self.start.cpu())
        self.prior_direction = self.prior.cpu()

    def vectors(self) -> Tensor:
        """Return e, (n, d), float32, differentiable in the parameters."""
        magnitude = self.magnitude if self.log_magnitude is None else self.log_magnitude.exp()
        if self.method.form == "direction":
            return magnitude * self.parameter
        if self.method.form == "normalized":
            length: Tensor = self.parameter.norm(dim=-1, keepdim=True)
            return magnitude * self.parameter / length
        return self.parameter

    def parameters(self) -> list[Tensor]:
        """Return what learns."""
        if not self.method.learns:
            return []
        if self.log_magnitude is None:
            return [self.parameter]
        return [self.parameter, self.log_magnitude]

    def pull(self) -> Tensor:
        """Return the term of the loss that draws the vectors to their start, a scalar."""
        pull: Tensor = self.settings.strength * (self.vectors() - self.start).square().mean()
        return pull

    def step(self, share: float) -> None:
        """Move along the gradients at `share` of the learning rate, and clear them."""
        gradient = self.parameter.grad
        self.gradient = torch.zeros_like(self.start) if gradient is None else gradient
        for optimizer, rate in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = share * rate
            optimizer.step()
            optimizer.zero_grad()
        if self.method.after_step:
            step = Step(
                magnitude=self.magnitude,
                rate=share * self.settings.learning_rate,
                strength=self.settings.strength,
                stats=self.stats,
            )
            with torch.no_grad():
                self.parameter.copy_(self.method.after_step(self.parameter, step))

    def state(self) -> dict[str, Tensor]:
        """Return everything that the next step depends on."""
        state = {"parameter": self.parameter.detach()}
        if self.log_magnitude is not None:
            state["log_magnitude"] = self.log_magnitude.detach()
        for place, (optimizer, _) in enumerate(self.optimizers):
            for number, values in optimizer.state_dict()["state"].items():
                for name, value in values.items():
                    state[f"optimizer{place}.{number}.{name}"] = value
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned, bit for bit. Raises KeyError for another state."""
        with torch.no_grad():
            self.parameter.copy_(state["parameter"])
            if self.log_magnitude is not None:
                self.log_magnitude.copy_(state["log_magnitude"])
        for place, (optimizer, _) in enumerate(self.optimizers):
            whole = optimizer.state_dict()
            for key, value in with_prefix(state, f"optimizer{place}.").items():
                number, name = key.split(".")
                whole["state"].setdefault(int(number), {})[name] = value.clone()
            optimizer.load_state_dict(whole)

    def _optimizers(self) -> list[tuple[torch.optim.Optimizer, float]]:
        """Return each optimiser with its learning rate, that of `parameter` first."""
        if not self.method.learns:
            return []
        rate = self.settings.learning_rate
        optimizers: list[tuple[torch.optim.Optimizer, float]] = [
            (self._parameter_optimizer(), rate)
        ]
        if self.log_magnitude is not None:
            adam = torch.optim.Adam([self.log_magnitude], lr=MAGNITUDE_RATE)
            optimizers.append((adam, MAGNITUDE_RATE))
        return optimizers

    def _parameter_optimizer(self) -> torch.optim.Optimizer:
        settings, parameters = self.settings, [self.parameter]
        if self.method.optimizer == "adamw":
            return torch.optim.AdamW(
                parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
            )
        if settings.optimizer == "adam":
            return geometry.RiemannianAdam(
                parameters,
                lr=settings.learning_rate,
                kappa=settings.kappa,
                prior_direction=self.prior,
                check=False,  # the loop refuses what is not finite, reading all at once
            )
        return geometry.RiemannianSGD(
            parameters,
            lr=settings.learning_rate,
            kappa=settings.kappa,
            prior_direction=self.prior,
            beta=settings.beta,
            momentum=settings.momentum,
            check=False,
        )


def average_vectors(recent: Sequence[Tensor]) -> Tensor:
    """Return the Fréchet mean of directions on the sphere, at the mean norm.

    recent: (n, d) each. Returns (n, d).
    """
    stacked = torch.stack(list(recent))
    norms = geometry.norms(stacked).mean(dim=0)
    directions = geometry.normalize(stacked)
    means = [geometry.frechet_mean(directions[:, row]) for row in range(stacked.shape[1])]
    return norms[:, None] * torch.stack(means)


def nearest_words(tower: Tower, vector: Tensor) -> tuple[str, ...]:
    """Return the vocabulary's words nearest to a (d,) vector by direction, nearest first."""
    table = tower.token_table
    rows = geometry.nearest(vector[None].to(table), table, NEAREST).indices[0]
    return tuple(tower.vocabulary.tokens(rows.tolist()))


def with_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the entries whose name begins with `prefix`, named without it."""
    entries = {}
    for name, value in state.items():
        if name.startswith(prefix):
            entries[name.removeprefix(prefix)] = value
    return entries
