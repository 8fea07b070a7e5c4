"""Open a model and ask it, or train a token: the few calls that most people need.

    import dti_geom as dti

    m = dti.open("mini")
    m.neighbors("fox")
    run = dti.train("mini", images="green-fox", init="fox", method="ti")
    m.attenuation(run).figure()

Every probe of `PROBES` is a method of the opened model. Where a token is meant, a word, `#id`, an
embedding file, the folder of a run, a run or a vector will do.
"""

import inspect
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from dti_geom.errors import (
    DoesNotApply,
    TrainingError,
    UnknownToken,
    WrongArgument,
    nearest_name,
)
from dti_geom.evaluation.learned import read_learned, token_files
from dti_geom.files import EmbeddingFile, LearnedToken, read_embeddings
from dti_geom.models import StoredEncoder, Vocabulary, open_encoders
from dti_geom.models.catalog import known_concepts
from dti_geom.models.pipelines import TextToImage, open_text_to_image
from dti_geom.probes.learned import LearnedVector, learned_vectors, of_width, require_some_fit
from dti_geom.probes.measuring import Measurement, measure
from dti_geom.probes.registry import PROBES, Option, Probe
from dti_geom.progress import Progress, silent
from dti_geom.training import (
    ConceptConfig,
    DataConfig,
    MethodConfig,
    ObjectiveConfig,
    PreviewConfig,
    RunConfig,
    read_run,
)
from dti_geom.training import train as train_run
from dti_geom.training.config import DTYPES
from dti_geom.training.run import Progress as UpdateProgress
from dti_geom.training.story import TrainingRun, learned_files

if TYPE_CHECKING:
    from PIL.Image import Image

Token: TypeAlias = (
    str | Path | Tensor | Mapping[str, Tensor] | TrainingRun | EmbeddingFile | LearnedToken
)

TOKENS = "a word, '#id', an embedding file, the folder of a run, a run, a vector, or {name: vector}"
PATH_ENDS = (".pt", ".bin", ".safetensors", ".png")  # a string that ends so means a file


def open(
    model: "str | Path | Model" = "mini",
    *,
    device: str = "cpu",
    dtype: str | torch.dtype = "float32",
    progress: Progress = silent,
) -> "Model":
    """Open a model to ask it about its tokens. Its weights are read when something needs them.

    model: a name of `dti-geom models`, a Hub id (org/name), a pipeline or encoder folder, or a
    checkpoint. dtype: of the text encoders; float32, float16 or bfloat16. progress: told of long
    work. Raises UnknownModel, ModelFilesError, WrongArgument.
    """
    if isinstance(model, Model):
        return model
    name = _model_name(model)
    number = dtype if isinstance(dtype, torch.dtype) else _dtype(dtype)
    encoders = open_encoders(name, device=device, dtype=number, progress=progress)
    return Model(name, encoders, device, progress)


class Model:
    """An opened model. Each probe is one of its methods; `help(m.swap)` says what it takes."""

    def __init__(
        self, name: str, encoders: Sequence[StoredEncoder], device: str, progress: Progress
    ) -> None:
        """Use `open`."""
        self.name = name
        self.encoders = tuple(encoders)
        self.device = device
        self._progress = progress

    def __repr__(self) -> str:
        """Return name and encoders on one line."""
        return f"<Model {self.name}: {', '.join(map(repr, self.encoders))}>"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Raise AttributeError: probes and other methods are found before this is called."""
        there = [method for method in dir(type(self)) if not method.startswith("_")]
        raise AttributeError(
            f"an opened model has no '{name}'.{nearest_name(name, there)} It has: "
            f"{', '.join(there)}."
        )

    @cached_property
    def text_to_image(self) -> TextToImage:
        """The whole pipeline, in the device's best number type: `generate` paints with it."""
        return open_text_to_image(self.name, device=self.device, progress=self._progress)

    def vector(self, token: Token) -> Tensor:
        """Return the one vector of a token, (d,), float32. Raises UnknownToken for several."""
        words, learned = _words_and_vectors([token], self.encoders[0].vocabulary)
        found = [vector.vector for vector in learned]
        for encoder in self.encoders:
            found += [row.vector for word in words for row in _rows(encoder, word)]
        if len(found) != 1:
            raise UnknownToken(
                f"{_shown(token)} has {len(found)} vectors in {self.name}; one was expected. "
                ".encoders[0].token_table has all rows of an encoder."
            )
        return found[0].float()

    def generate(
        self,
        prompt: str | Sequence[str],
        *tokens: Token,
        seeds: int | Sequence[int] = 1,
        steps: int | None = None,
        guidance: float | None = None,
        size: int | None = None,
    ) -> "list[Image]":
        """Return pictures of prompts × tokens × seeds, in this order.

        prompt: {} stands for each token. seeds: how many, from 0, or which. steps, guidance, size:
        the model's own by default.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        drawn = range(seeds) if isinstance(seeds, int) else seeds
        names = [self._placed(token, number) for number, token in enumerate(tokens)]
        without = [text for text in prompts if "{}" not in text]
        if names and without:
            raise WrongArgument(f"{without[0]!r} shows no token. Write {{}} where it should stand.")
        if not names and len(without) < len(prompts):
            raise WrongArgument(f"{prompts[0]!r} has {{}} in it, and no token was given for it.")
        filled = [text.replace("{}", name) for text in prompts for name in names or [""]]
        asked = [(text, seed) for text in filled for seed in drawn]
        return self.text_to_image.generate(
            [text for text, _ in asked],
            [seed for _, seed in asked],
            steps=steps,
            guidance=guidance,
            size=size,
        )

    def train(self, **settings: Any) -> TrainingRun:
        """Train a token on this model, as `dti_geom.train` does."""
        return train(self, **settings)

    def _placed(self, token: Token, number: int) -> str:
        """Place a token in the pipeline under a name of its own. Returns what prompts call it."""
        if isinstance(token, str) and not _is_path(token, self.encoders[0].vocabulary):
            self.encoders[0].vocabulary.rows(token)  # raises UnknownToken
            return token
        learned = read_learned(self.text_to_image, _embedding_files(token, "vector"))
        placed = [kept.as_placeholder(f"shown-{number}") for kept in learned.values()]
        if len(placed) != 1:
            raise WrongArgument(
                f"{_shown(token)} holds {len(placed)} tokens; a prompt shows one at a time."
            )
        placed[0].place(self.text_to_image)
        return placed[0].name

    def _measure(self, probe: Probe, tokens: Sequence[Token], options: Mapping[str, Any]) -> Any:
        """Measure every encoder that the probe applies to."""
        own = _own_options(probe, options)
        words, learned = _words_and_vectors(tokens, self.encoders[0].vocabulary)
        widths = [encoder.token_table.shape[1] for encoder in self.encoders]
        require_some_fit(learned, widths, self.name)
        results, reasons = [], []
        for encoder, width in zip(self.encoders, widths, strict=True):
            fitting = of_width(learned, width)
            asked = dict(own)
            if probe.takes_tokens:
                asked["tokens"] = (*words, *dict.fromkeys(vector.token for vector in fitting))
            else:
                fitting = [row for word in words for row in _rows(encoder, word)] + fitting
            try:
                if learned and not words and not fitting:
                    raise DoesNotApply(f"{encoder.name}: no vector of width {width} was given.")
                results.append(
                    measure(encoder, probe.name, fitting, progress=self._progress, **asked)
                )
            except DoesNotApply as reason:
                reasons.append(str(reason))
        if not results:
            raise DoesNotApply("\n".join(reasons))
        return Measurement(probe.name, self.name, tuple(results), tuple(reasons))


def _method(probe: Probe) -> Callable[..., Any]:
    """Return the method that measures a probe, with the signature that its registration gives."""

    def method(self: Model, *tokens: Token, **options: Any) -> Any:
        return self._measure(probe, tokens, options)

    named = _offered(probe)
    method.__name__, method.__qualname__ = probe.name, f"Model.{probe.name}"
    lines = [f"{option.name}: {option.help}" for option in named]
    method.__doc__ = "\n".join(
        [probe.question, "", probe.details, "", f"tokens: {TOKENS}.", *lines]
    )
    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)]
    parameters.append(inspect.Parameter("tokens", inspect.Parameter.VAR_POSITIONAL))
    defaults = {option.name: option.default for option in named}
    defaults |= {"seed": 0} if probe.samples else {}
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in defaults.items()
    ]
    method.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return method


def _offered(probe: Probe) -> list[Option]:
    """Return a probe's options that its method takes by name."""
    return [
        option for option in probe.options if option.name != "tokens" and option.companion is None
    ]


for _probe in PROBES.values():
    setattr(Model, _probe.name, _method(_probe))


def train(
    model: str | Path | Model = "mini",
    *,
    images: str | Path,
    init: str | None = None,
    method: str = "dti",
    token: str = "<x>",
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: UpdateProgress = lambda record, total: None,
    **settings: Any,
) -> TrainingRun:
    """Learn a token for what the images show. Returns the finished run.

    images: a folder of images, or a concept of `dti-geom concepts`. init: the class word; a concept
    brings its own. out: folder of the run; None takes a temporary one, removed with the result.
    progress: called after each update with its record and the number of updates.

    settings: any field of RunConfig, ConceptConfig, MethodConfig, DataConfig or ObjectiveConfig,
    such as steps=100, learning_rate=0.01, resolution=512 or dtype="bfloat16"; fields of
    PreviewConfig begin with preview_. Their defaults are those of `dti-geom train`. Raises
    TrainingError, WrongArgument, and what `dti_geom.training.train` raises.
    """
    name = model.name if isinstance(model, Model) else _model_name(model)
    if isinstance(model, Model):
        settings = {"device": model.device} | settings
    if not isinstance(images, (str, Path)):
        raise WrongArgument(
            f"images is {_shown(images)}; expected a folder of images or the name of a concept: "
            f"{', '.join(known_concepts())}."
        )
    bundled = known_concepts().get(str(images))
    word = init or (bundled.init if bundled is not None else None)
    if word is None:
        raise TrainingError("init is missing: a word for what the images show, such as 'dog'.")
    config = _run_config(name, ConceptConfig(token, str(images), word), method, settings)
    folder = Path(out) if out is not None else Path(tempfile.mkdtemp(prefix="dti-geom-"))
    try:
        train_run(config, folder, overwrite=overwrite, progress=progress)
        run = read_run(folder)
    except BaseException:
        if out is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    if out is None:
        weakref.finalize(run, shutil.rmtree, folder, ignore_errors=True)
    return run


def _run_config(
    model: str, concept: ConceptConfig, method: str, settings: Mapping[str, Any]
) -> RunConfig:
    """Return the configuration whose fields the settings name. Raises WrongArgument."""
    parts: dict[str, tuple[type, str]] = {
        "method": (MethodConfig, ""),
        "data": (DataConfig, ""),
        "objective": (ObjectiveConfig, ""),
        "preview": (PreviewConfig, "preview_"),
    }
    left = dict(settings)
    own = _taken(RunConfig, left, "", leave=("model", "concepts", *parts))
    concept = replace(concept, **_taken(ConceptConfig, left, "", leave=("token", "images", "init")))
    built = {}
    for part, (config, prefix) in parts.items():
        values = _taken(config, left, prefix, leave=("name",))
        built[part] = config(**({"name": method} if part == "method" else {}), **values)
    if left:
        unknown = next(iter(left))
        known = [*_names(RunConfig), *_names(ConceptConfig)]
        for config, prefix in parts.values():
            known += [prefix + name for name in _names(config)]
        raise WrongArgument(
            f"train has no setting '{unknown}'.{nearest_name(unknown, known)} Known are the fields "
            "of RunConfig, ConceptConfig, MethodConfig, DataConfig, ObjectiveConfig, and those of "
            "PreviewConfig with preview_ before them."
        )
    return RunConfig(model, (concept,), **built, **own)


def _taken(
    config: type, settings: dict[str, Any], prefix: str, leave: Sequence[str]
) -> dict[str, Any]:
    """Remove from the settings, and return, those that name fields of a configuration."""
    wanted = [name for name in _names(config) if name not in leave and prefix + name in settings]
    return {name: settings.pop(prefix + name) for name in wanted}


def _names(config: type) -> list[str]:
    return [field.name for field in fields(config)]


# --- What stands for a token, a model and an option ---


def _words_and_vectors(
    tokens: Sequence[Token], vocabulary: Vocabulary
) -> tuple[list[str], list[LearnedVector]]:
    """Return the words among these tokens, and the vectors of all others."""
    words: list[str] = []
    files: list[EmbeddingFile] = []
    for number, token in enumerate(tokens, 1):
        if isinstance(token, str) and not _is_path(token, vocabulary):
            words.append(token)
        else:
            files += _embedding_files(token, "vector" if len(tokens) == 1 else f"vector {number}")
    return words, learned_vectors(files)


def _is_path(text: str, vocabulary: Vocabulary) -> bool:
    """Return whether a string names a file or a folder; a word of the model is a word first."""
    if vocabulary.is_word(text):
        return False
    return "/" in text or text.endswith(PATH_ENDS) or Path(text).exists()


def _embedding_files(token: Token, name: str) -> list[EmbeddingFile]:
    """Return the embeddings that a token means. name: of a vector without one."""
    if isinstance(token, TrainingRun):
        return [read_embeddings(path) for path in learned_files(token.folder, token.result.config)]
    if isinstance(token, (str, Path)):
        return token_files([token])
    if isinstance(token, EmbeddingFile):
        return [token]
    if isinstance(token, LearnedToken):
        return [EmbeddingFile(Path(token.token), "vector", (token,), None, {})]
    if isinstance(token, Mapping):
        return [file for key, value in token.items() for file in _embedding_files(value, str(key))]
    if isinstance(token, Tensor) and token.ndim in (1, 2) and token.is_floating_point():
        rows = token.detach().cpu().reshape(-1, token.shape[-1])
        return _embedding_files(LearnedToken(name, None, rows), name)
    raise WrongArgument(f"a token is {TOKENS}; found {_shown(token)}.")


def _rows(encoder: StoredEncoder, word: str) -> list[LearnedVector]:
    """Return the rows of a word as vectors. Raises UnknownToken."""
    rows = encoder.vocabulary.rows(word)
    return [
        LearnedVector(name, 0, None, Path(name), encoder.token_table[row].float(), name)
        for name, row in zip(encoder.vocabulary.tokens(rows), rows, strict=True)
    ]


def _own_options(probe: Probe, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a probe's options as its function takes them: files are read. Raises WrongArgument."""
    taken = inspect.signature(probe.measure).parameters
    reserved = ("encoder", "learned", "tokens", "progress")
    known = [name for name in taken if name not in reserved]
    readers = {option.name: option.read for option in probe.options if option.read is not None}
    own: dict[str, Any] = {}
    for name, value in options.items():
        if name not in known:
            raise WrongArgument(
                f"{probe.name} has no option '{name}'.{nearest_name(name, known)} It has: "
                f"{', '.join(known) or 'none'}."
            )
        is_file = name in readers and isinstance(value, (str, Path))
        own[name] = readers[name](Path(value)) if is_file else value
    return own


def _model_name(model: object) -> str:
    if isinstance(model, (str, Path)):
        return str(model)
    raise WrongArgument(
        f"model is {_shown(model)}; expected a name such as 'mini', a Hub id, a folder, or what "
        "dti_geom.open returns."
    )


def _dtype(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise WrongArgument(f"dtype is {name!r}; expected {', '.join(DTYPES)}.")
    number: torch.dtype = getattr(torch, name)
    return number


def _shown(value: object) -> str:
    """Name a wrong argument by its type, and a tensor by its shape."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and type {value.dtype}"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:59] + '…'}"
