"""A text encoder in a folder or on the Hub, read piece by piece."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dti_geom.errors import DoesNotApply, ModelFilesError
from dti_geom.models.encoders.attention import eager_attention
from dti_geom.models.encoders.base import (
    Architecture,
    Block,
    Branch,
    BranchPath,
    HiddenStates,
    Normalization,
    Positions,
    Tap,
)
from dti_geom.models.loading import load_module, load_tokenizer, tokenizer_files
from dti_geom.models.sources import Source, read_json
from dti_geom.models.variants import apply_gain
from dti_geom.models.vocabulary import Vocabulary
from dti_geom.models.weights import Weights
from dti_geom.progress import Progress, silent

# These name a class or single tokens, but hold no vocabulary.
_NO_VOCABULARY = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)


class StoredEncoder:
    """An encoder in a folder or on the Hub. Each part is read when it is first used.

    The token table of a large pipeline thus costs its own bytes; the module is loaded only by
    probes that run it.
    """

    def __init__(
        self,
        source: Source,
        folder: str,
        tokenizer_folder: str,
        architecture: Architecture,
        *,
        name: str,
        weights: Weights | None = None,
        tap: Tap = Tap(),  # noqa: B008  # frozen
        gain: float = 1.0,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        progress: Progress = silent,
    ) -> None:
        """Read nothing yet.

        folder, tokenizer_folder: inside `source`, "" or ending in "/". weights: by default those
        of the folder. tap: what the pipeline's denoiser reads of it. gain: multiplies both
        tables, see `dti_geom.models.variants`. dtype: of the module, by default float32 whatever is
        stored: probes measure differences that half precision rounds away. The token table keeps
        its stored one; with a gain it is in float32.
        """
        self.name = name
        self.source = source
        self.architecture = architecture
        self.tap = tap
        self.gain = gain
        self._folder, self._tokenizer_folder = folder, tokenizer_folder
        self._device, self._progress = device, progress
        self._dtype = dtype or torch.float32
        self._weights = weights or Weights(source, folder)

    def __repr__(self) -> str:
        """Return on one line what is known without reading weights."""
        table = self.__dict__.get("token_table")  # cached once it is read
        size = "" if table is None else f", {len(table)} tokens × {table.shape[1]} dimensions"
        kind = f"{self.architecture.name}, {self.positions} positions, {self.normalization}"
        return f"<{self.name} of {self.source.name}: {kind}{size}>"

    @property
    def normalization(self) -> Normalization:
        """Which normalisation the blocks use."""
        return self.architecture.normalization

    @property
    def positions(self) -> Positions:
        """How the encoder represents positions."""
        return self.architecture.positions

    @cached_property
    def token_table(self) -> Tensor:
        """(V, d): one row per token, in its stored dtype. Reads only this slice of the file."""
        table = self._weights.tensor(self._token_table_name, self._progress)
        if table.ndim != 2:
            raise ModelFilesError(
                f"{self.name}: the token table has shape {tuple(table.shape)}; (V, d) was expected."
            )
        return self._scaled(table.to(self._device))

    @cached_property
    def position_table(self) -> Tensor | None:
        """(L, d): what is added at each position; None for rotary and relative positions."""
        architecture = self.architecture
        if not architecture.position_table:
            return None
        ending = next(
            end for end in architecture.token_table if self._token_table_name.endswith(end)
        )
        # Search beside the token table: the vision tower of a CLIP has positions too.
        prefix = self._token_table_name.removesuffix(ending)
        name = self._weights.find(prefix + end for end in architecture.position_table)
        if name is None:
            raise ModelFilesError(
                f"{self.name}: no position table beside {self._token_table_name}."
            )
        table = self._weights.tensor(name, self._progress)
        return self._scaled(table[architecture.position_offset :].to(self._device))

    @cached_property
    def identity(self) -> tuple[str, ...]:
        """A name for these very weights, one per file.

        On the Hub its id; on disk the file's name, size in bytes and time of change. A gain is
        named as well.
        """
        files = tuple(
            self.source.identity(file) or _stamp(self.source.local(file))
            for file in self._weights.shards()
        )
        return files if self.gain == 1 else (*files, f"gain {self.gain!r}")

    @cached_property
    def tokenizer(self) -> Any | None:
        """The transformers tokenizer, or None if the model came without one."""
        files = tokenizer_files(self.source, self._tokenizer_folder)
        if all(file.endswith(_NO_VOCABULARY) for file in files) and not self._reads_bytes(files):
            return None
        return load_tokenizer(self.source, files, "AutoTokenizer")

    def _reads_bytes(self, files: list[str]) -> bool:
        """Return whether the tokens are bytes, for which ByT5 has no file of names."""
        config = f"{self._tokenizer_folder}tokenizer_config.json"
        return (
            config in files
            and read_json(self.source, config).get("tokenizer_class") == "ByT5Tokenizer"
        )

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The names of the token table's rows."""
        return Vocabulary(self.tokenizer, len(self.token_table))

    @cached_property
    def module(self) -> nn.Module:
        """The whole encoder as a transformers module, in evaluation mode, its parameters frozen."""
        config = read_json(self.source, self._folder + "config.json")
        module_class = self.architecture.module_class_for(config)
        module = load_module(
            self.source,
            self._weights,
            module_class,
            dtype=self._dtype,
            settings=self.architecture.settings,
        )
        if self.gain != 1:
            apply_gain(module, self.architecture, self.gain)
        return module.to(self._device)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The pre-norm blocks. Raises DoesNotApply for a post-norm encoder."""
        if not self.architecture.pre_norm:
            raise DoesNotApply(
                f"{self.name} is a {self.architecture.name}: it normalises the state after each "
                "addition, so measurements of pre-norm blocks have no counterpart in it. "
                "Norms and neighbours do apply."
            )
        return pre_norm_blocks(self.module, self.architecture)

    @cached_property
    def head(self) -> Tensor:
        """(V, d): rows whose products with the output are logits of next tokens.

        The token table where the two are tied. Raises DoesNotApply for an encoder that cannot
        speak: none of a language model, or one whose files came without its head.
        """
        if not self.architecture.speaks:
            raise DoesNotApply(
                f"{self.name} is a {self.architecture.name} and cannot speak: it predicts no next "
                "token. Gemma, Qwen, Llama, Mistral and SmolLM can."
            )
        name = self._weights.find(("lm_head.weight",))
        if name is not None:
            return self._weights.tensor(name, self._progress).to(self._device)
        if self._text_config.tie_word_embeddings:
            return self.token_table
        raise DoesNotApply(
            f"{self.name} cannot speak: {self.source.name} has no lm_head.weight, and its "
            "config.json does not tie it to the token table. Fetch the whole language model."
        )

    def logits(self, last: Tensor) -> Tensor:
        """Return logits of the next token, (…, V), for outputs (…, d). Raises as `head` does."""
        logits = last.float() @ self.head.float().T
        # Gemma-2 bounds them.
        cap = getattr(self._text_config, "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)

    @property
    def _text_config(self) -> Any:
        config: Any = self.module.config
        return config.get_text_config()

    def hidden_states(
        self,
        input_ids: Tensor,
        embeddings: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        attention: bool = False,
        gradient: bool = False,
    ) -> HiddenStates:
        """Return the states of a batch of prompts, captured by hooks on the model's own layers.

        input_ids: (batch, length). embeddings: (batch, length, d), in the token table's units, used
        in place of the rows that `input_ids` would look up; the model still applies positions and
        any embedding scale. attention: also return the attention weights; for this call the module
        computes them without its fused kernel. gradient: keep what a backward pass to `embeddings`
        needs.
        """
        states: list[Tensor] = []
        with torch.set_grad_enabled(gradient), ExitStack() as hooks:
            if embeddings is not None:
                hooks.enter_context(_replaced_embeddings(self.module, embeddings))
            layers = find_layers(self.module, self.architecture)
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
        weights = output.attentions if attention else ()
        return HiddenStates(tuple(states), output.last_hidden_state, weights, self.tap)

    def _scaled(self, table: Tensor) -> Tensor:
        # In float32: a product in a stored half precision would round.
        return table if self.gain == 1 else self.gain * table.float()

    @cached_property
    def _token_table_name(self) -> str:
        endings = self.architecture.token_table
        name = self._weights.find(endings)
        if name is None:
            raise ModelFilesError(
                f"{self.source.name}: {self._weights.entry} holds no token table. "
                f"A {self.architecture.name} has one called {' or '.join(endings)}."
            )
        return name


def find_layers(module: nn.Module, architecture: Architecture) -> nn.ModuleList:
    """Return the list of blocks inside a transformers module of that architecture."""
    ending = architecture.blocks
    matches = [
        (name, part)
        for name, part in module.named_modules()
        if isinstance(part, nn.ModuleList) and (name == ending or name.endswith("." + ending))
    ]
    return min(matches, key=lambda pair: len(pair[0]))[1]


def pre_norm_blocks(module: nn.Module, architecture: Architecture) -> tuple[Block, ...]:
    """Return the blocks of a pre-norm module, in order, with their branches."""
    blocks = []
    for layer in find_layers(module, architecture):
        branches = tuple(_branch(layer, path) for path in architecture.branches)
        blocks.append(Block(layer, branches))
    return tuple(blocks)


def _branch(layer: nn.Module, path: BranchPath) -> Branch:
    norm, function = layer.get_submodule(path.norm), layer.get_submodule(path.function)
    output = layer.get_submodule(path.output) if path.output else function
    return Branch(path.kind, norm, function, output)


@contextmanager
def _replaced_embeddings(module: nn.Module, embeddings: Tensor) -> Iterator[None]:
    table = module.get_input_embeddings()  # type: ignore[operator]

    def replace(lookup: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        if embeddings.shape != output.shape:
            raise ValueError(
                f"embeddings of shape {tuple(embeddings.shape)} for prompts of "
                f"{tuple(output.shape)}"
            )
        # Gemma multiplies its rows by √d inside the lookup.
        return embeddings.to(output) * getattr(lookup, "embed_scale", 1.0)

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
    status = path.stat()
    return f"{path.name} {status.st_size} {status.st_mtime_ns}"


def _keep_input(states: list[Tensor]) -> Any:
    def keep(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        states.append(args[0] if args else kwargs["hidden_states"])

    return keep


def _first(output: Any) -> Tensor:
    state: Tensor = output[0] if isinstance(output, tuple) else output
    return state
