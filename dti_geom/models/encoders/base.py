"""One text encoder, as every probe sees it."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from dti_geom.errors import DoesNotApply, ModelFilesError
from dti_geom.models.encoders.architectures import BranchPath, Family, Normalization, Positions
from dti_geom.models.encoders.attention import eager_attention
from dti_geom.models.sources import Source, read_json
from dti_geom.models.vocabulary import Vocabulary
from dti_geom.models.weights import Weights
from dti_geom.progress import Progress, silent

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
)


@dataclass(frozen=True)
class Branch:
    """One residual update x ← x + f(N(x)) of a pre-norm block, as the model's own modules."""

    kind: Literal["attention", "mlp"]
    norm: nn.Module  # N; its input is the state x
    function: nn.Module  # attention or MLP
    output: (
        nn.Module
    )  # the module whose output is added to x; some return it as the first of a tuple


@dataclass(frozen=True)
class Block:
    """A pre-norm block: its module and its branches in the order they act."""

    module: nn.Module
    branches: tuple[Branch, ...]


@dataclass(frozen=True)
class HiddenStates:
    """What a prompt becomes inside an encoder."""

    states: tuple[
        Tensor, ...
    ]  # x_0 … x_L, each (batch, length, d): the residual stream before and after each block
    last: Tensor  # (batch, length, d): the encoder's output, after its final normalisation if it has one
    attention: tuple[
        Tensor, ...
    ] = ()  # per layer, where asked for: (batch, heads, length, length), rows sum to 1


class TextEncoder(Protocol):
    """All that a probe may use of an encoder; a few lines can fake it."""

    name: str
    vocabulary: Vocabulary

    @property
    def token_table(self) -> Tensor:
        """(V, d): one row per token, as stored."""
        ...

    @property
    def position_table(self) -> Tensor | None:
        """(L, d): what is added at each position; None for rotary and relative positions."""
        ...

    @property
    def normalization(self) -> Normalization:
        """Which normalisation the blocks use."""
        ...

    @property
    def positions(self) -> Positions:
        """How the encoder knows where a token stands."""
        ...

    @property
    def blocks(self) -> Sequence[Block]:
        """The pre-norm blocks. Raises DoesNotApply for a post-norm encoder."""
        ...

    def hidden_states(
        self,
        input_ids: Tensor,
        embeddings: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        attention: bool = False,
    ) -> HiddenStates:
        """States of a batch of prompts; `embeddings` stand in for the rows that `input_ids` would look up."""
        ...


class StoredEncoder:
    """An encoder in a folder or on the Hub. Everything is read when first asked for, and only that.

    The token table of a large pipeline thus costs its own bytes; the module is loaded only by probes that run it.
    """

    def __init__(
        self,
        source: Source,
        folder: str,
        tokenizer_folder: str,
        family: Family,
        *,
        name: str,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        progress: Progress = silent,
    ) -> None:
        """`dtype` is that of the module; the token table keeps the one it was stored in."""
        self.name = name
        self.source = source
        self.family = family
        self._folder, self._tokenizer_folder = folder, tokenizer_folder
        self._device, self._dtype, self._progress = device, dtype, progress
        self._weights = Weights(source, folder)

    @property
    def normalization(self) -> Normalization:
        """Which normalisation the blocks use."""
        return self.family.normalization

    @property
    def positions(self) -> Positions:
        """How the encoder knows where a token stands."""
        return self.family.positions

    @cached_property
    def token_table(self) -> Tensor:
        """(V, d): one row per token, in the dtype it was stored in. Only this slice of the weight file is read."""
        table = self._weights.tensor(self._token_table_name, self._progress)
        if table.ndim != 2:
            raise ModelFilesError(
                f"{self.name}: the token table has shape {tuple(table.shape)}; (V, d) was expected."
            )
        return table.to(self._device)

    @cached_property
    def position_table(self) -> Tensor | None:
        """(L, d): what is added at each position; None for rotary and relative positions."""
        if not self.family.position_table:
            return None
        ending = next(
            end for end in self.family.token_table if self._token_table_name.endswith(end)
        )
        prefix = self._token_table_name.removesuffix(
            ending
        )  # the vision tower of a CLIP has positions too
        name = self._weights.find(prefix + end for end in self.family.position_table)
        if name is None:
            raise ModelFilesError(
                f"{self.name}: no position table beside {self._token_table_name}."
            )
        return self._weights.tensor(name, self._progress)[self.family.position_offset :].to(
            self._device
        )

    @cached_property
    def identity(self) -> tuple[str, ...]:
        """Other for other weights: of each of their files the Hub's id, or its size in bytes and time of change."""
        return tuple(
            self.source.identity(file) or _stamp(self.source.local(file))
            for file in self._weights.shards()
        )

    @cached_property
    def tokenizer(self) -> Any | None:
        """The transformers tokenizer, or None if the model came without one."""
        held = [name for name in TOKENIZER_FILES if self.source.has(self._tokenizer_folder + name)]
        # tokenizer_config.json alone names a class but holds no vocabulary
        if not set(held) - {
            "tokenizer_config.json",
            "special_tokens_map.json",
            "added_tokens.json",
        }:
            return None
        transformers = import_transformers()
        paths = [self.source.local(self._tokenizer_folder + name) for name in held]
        try:
            return transformers.AutoTokenizer.from_pretrained(
                paths[0].parent, local_files_only=True
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelFilesError(
                f"{paths[0].parent}: the tokenizer does not load ({reason})."
            ) from error

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The names of the token table's rows."""
        return Vocabulary(self.tokenizer, len(self.token_table))

    @cached_property
    def module(self) -> nn.Module:
        """The whole encoder as a transformers module, in evaluation mode, its parameters frozen."""
        transformers = import_transformers()
        for file in {self._weights.entry, *self._weights.files().values()}:
            self.source.local(file)
        folder: Path = self.source.local(self._folder + "config.json").parent
        architecture = self.family.architecture or self._clip_architecture()
        with quiet(transformers):
            module, info = getattr(transformers, architecture).from_pretrained(
                folder,
                dtype=self._dtype or "auto",
                variant="fp16" if ".fp16." in self._weights.entry else None,
                local_files_only=True,
                output_loading_info=True,
            )
        if info["missing_keys"]:  # transformers would go on with random numbers in their place
            raise ModelFilesError(
                f"{folder} lacks {len(info['missing_keys'])} tensors of a {architecture}, among them "
                f"{min(info['missing_keys'])}. Fetch the weights again."
            )
        return module.to(self._device).eval().requires_grad_(False)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The pre-norm blocks. Raises DoesNotApply for a post-norm encoder."""
        if not self.family.pre_norm:
            raise DoesNotApply(
                f"{self.name} is a {self.family.name}: it normalises the state after each addition, so what this "
                "measures in pre-norm blocks has no counterpart in it. Norms and neighbours do apply."
            )
        return pre_norm_blocks(self.module, self.family)

    @torch.no_grad()
    def hidden_states(
        self,
        input_ids: Tensor,
        embeddings: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        attention: bool = False,
    ) -> HiddenStates:
        """States of a batch of prompts, captured by hooks on the model's own layers.

        input_ids: (batch, length). embeddings: (batch, length, d), in the token table's units, standing in for the
        rows that `input_ids` would look up (positions and any embedding scale are still applied by the model).
        attention: also give the attention weights; the module leaves its fused kernel for the time of the call.
        """
        states: list[Tensor] = []
        with ExitStack() as hooks:
            if embeddings is not None:
                hooks.enter_context(_replaced_embeddings(self.module, embeddings))
            layers = find_layers(self.module, self.family)
            for layer in layers:
                hooks.enter_context(
                    layer.register_forward_pre_hook(_keep_input(states), with_kwargs=True)
                )
            hooks.enter_context(
                layers[-1].register_forward_hook(lambda _m, _i, out: states.append(_first(out)))
            )
            if attention:
                hooks.enter_context(eager_attention(self.module))
            output = self.module(
                input_ids=input_ids.to(self._device),
                attention_mask=attention_mask,
                output_attentions=attention,
            )
        return HiddenStates(
            tuple(states), output.last_hidden_state, output.attentions if attention else ()
        )

    @cached_property
    def _token_table_name(self) -> str:
        name = self._weights.find(self.family.token_table)
        if name is None:
            raise ModelFilesError(
                f"{self.source.name}: {self._weights.entry} holds no token table. "
                f"A {self.family.name} has one called {' or '.join(self.family.token_table)}."
            )
        return name

    def _clip_architecture(self) -> str:
        named = read_json(self.source, self._folder + "config.json").get("architectures") or []
        # A whole CLIP (text and vision) is opened as its text tower, whose states need no projection.
        return (
            "CLIPTextModelWithProjection"
            if "CLIPTextModelWithProjection" in named
            else "CLIPTextModel"
        )


def find_layers(module: nn.Module, family: Family) -> nn.ModuleList:
    """The list of blocks inside a transformers module of that family."""
    ending = family.blocks
    found = [
        (name, part)
        for name, part in module.named_modules()
        if isinstance(part, nn.ModuleList) and (name == ending or name.endswith("." + ending))
    ]
    return min(found, key=lambda pair: len(pair[0]))[1]


def pre_norm_blocks(module: nn.Module, family: Family) -> tuple[Block, ...]:
    """The blocks of a pre-norm module, in order, with their branches."""

    def branch(layer: nn.Module, path: BranchPath) -> Branch:
        norm, function = layer.get_submodule(path.norm), layer.get_submodule(path.function)
        return Branch(
            path.kind, norm, function, layer.get_submodule(path.output) if path.output else function
        )

    return tuple(
        Block(layer, tuple(branch(layer, path) for path in family.branches))
        for layer in find_layers(module, family)
    )


def import_transformers() -> Any:
    """The transformers module; a clear error if it is older than what this package is written for."""
    import transformers

    if int(transformers.__version__.split(".")[0]) < 5:
        raise ModelFilesError(
            f"transformers {transformers.__version__} is installed; 5.0 or newer is needed, since CLIPTextModel was "
            "rebuilt there. Run: pip install -U 'transformers>=5'"
        )
    return transformers


@contextmanager
def quiet(library: Any) -> Iterator[None]:
    """No bar and no table of unused tensors while transformers or diffusers load; what is missing is checked by us."""
    logging = library.utils.logging
    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


@contextmanager
def _replaced_embeddings(module: nn.Module, embeddings: Tensor) -> Iterator[None]:
    table = module.get_input_embeddings()  # type: ignore[operator]

    def replace(lookup: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        if embeddings.shape != output.shape:
            raise ValueError(
                f"embeddings of shape {tuple(embeddings.shape)} for prompts of {tuple(output.shape)}"
            )
        return embeddings.to(output) * getattr(
            lookup, "embed_scale", 1.0
        )  # Gemma multiplies its rows by √d

    # T5 looks tokens up in a second module that shares the table's weight.
    lookups = [
        part
        for part in module.modules()
        if isinstance(part, nn.Embedding) and part.weight is table.weight
    ]
    with ExitStack() as hooks:
        for lookup in lookups:
            hooks.enter_context(lookup.register_forward_hook(replace))
        yield


def _stamp(path: Path) -> str:
    found = path.stat()
    return f"{path.name} {found.st_size} {found.st_mtime_ns}"


def _keep_input(states: list[Tensor]) -> Any:
    def keep(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        states.append(args[0] if args else kwargs["hidden_states"])

    return keep


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output
