"""Load parts of a source with transformers, quietly, and with clear errors."""

import importlib.util
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from dti_geom.errors import DtiGeomError, ModelFilesError, first_line, missing_memory
from dti_geom.models.downloads import TOKENIZER_FILES
from dti_geom.models.sources import Source
from dti_geom.models.weights import Weights


def import_transformers() -> Any:
    """Return the transformers module. Raises ModelFilesError if it is older than 5.0."""
    import transformers

    if int(transformers.__version__.split(".")[0]) < 5:
        raise ModelFilesError(
            f"transformers {transformers.__version__} is installed; 5.0 or newer is needed, "
            "since CLIPTextModel was rebuilt there. Run: pip install -U 'transformers>=5'"
        )
    return transformers


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn what a library raises for missing, broken or strange files into a ModelFilesError.

    Only calls of libraries belong inside: they raise nearly every type for a damaged file.
    what: begins the message, such as "the tokenizer does not load".
    """
    try:
        yield
    except DtiGeomError:
        raise
    except Exception as error:
        if missing_memory(error) is not None:
            raise  # no fault of the files
        if "trust_remote_code" in str(error):
            raise ModelFilesError(
                f"{what}: it needs code that came with the model (auto_map), and such code is "
                "never run. Use a model that transformers knows."
            ) from error
        raise ModelFilesError(
            f"{what} ({first_line(error)}). Fetch its files again, or check what was edited there."
        ) from error


@contextmanager
def quiet(library: Any) -> Iterator[None]:
    """Hide the progress bars and warnings of transformers or diffusers while they load.

    Their warnings about missing tensors are replaced by the check in `load_module`.
    """
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
def laid_out(source: Source, names: Mapping[str, str]) -> Iterator[Path]:
    """Yield a folder of links to files of a source, each under the name that loaders look for.

    A loader finds there what was chosen and nothing else: no other variant, and no code.
    """
    with tempfile.TemporaryDirectory(prefix="dti-geom-") as folder:
        for file, name in names.items():
            link = Path(folder, name)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(source.local(file).resolve())
        yield Path(folder)


def tokenizer_files(source: Source, folder: str) -> list[str]:
    """Return the tokenizer files in a folder of a source ("" or ending in "/")."""
    return [folder + name for name in TOKENIZER_FILES if source.has(folder + name)]


def check_readable(files: Iterable[str]) -> None:
    """Raise ModelFilesError for a tokenizer that sentencepiece alone reads, if that is missing.

    files: of one or more folders. transformers would read such a file as one of another kind.
    """
    names = set(files)
    for name in names:
        folder, _, file = name.rpartition("/")
        whole = f"{folder}/tokenizer.json" if folder else "tokenizer.json"
        alone = file in ("spiece.model", "tokenizer.model") and whole not in names
        if alone and importlib.util.find_spec("sentencepiece") is None:
            raise ModelFilesError(
                f"{name} can only be read with sentencepiece, which is not installed. "
                "Run: pip install sentencepiece protobuf"
            )


def load_tokenizer(source: Source, files: Sequence[str], tokenizer_class: str) -> Any:
    """Return a tokenizer of this transformers class.

    files: those of one folder, fetched if need be. Raises ModelFilesError.
    """
    check_readable(files)
    transformers = import_transformers()
    paths = [source.local(file) for file in files]
    folder = paths[0].parent
    with explained(f"{folder}: the tokenizer does not load"):
        return getattr(transformers, tokenizer_class).from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )


def load_module(
    source: Source,
    weights: Weights,
    module_class: str,
    dtype: torch.dtype | None = None,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> nn.Module:
    """Return a transformers module in evaluation mode, its parameters frozen, on the CPU.

    weights: those of a folder of `source`. dtype: None keeps the stored one. settings: replace
    those of config.json. Raises ModelFilesError if the files lack a tensor, which transformers
    would replace by random numbers.
    """
    transformers = import_transformers()
    cls = getattr(transformers, module_class)
    names = {weights.folder + "config.json": "config.json"}
    if not weights.prefix:
        names |= {shard: Path(shard).name for shard in weights.files().values()}
        names[weights.entry] = _without_variant(Path(weights.entry).name)
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    problem = f"{source.name}: {weights.folder or 'the folder'} does not open as a {module_class}"
    with explained(problem), quiet(transformers), laid_out(source, names) as folder:
        if weights.prefix:
            tensors = _with_names_of_transformers(_float_tensors(weights))
            stored = next(iter(tensors.values())).dtype
            module, info = cls.from_pretrained(
                None,
                config=cls.config_class.from_pretrained(folder, local_files_only=True),
                state_dict=tensors,
                dtype=dtype or stored,
                output_loading_info=True,
                **options,
            )
        else:
            module, info = cls.from_pretrained(
                folder, dtype=dtype or "auto", output_loading_info=True, **options, **settings
            )
    missing = info["missing_keys"]
    if missing:
        raise ModelFilesError(
            f"{weights.entry} of {source.name} lacks {len(missing)} tensors of a {module_class}, "
            f"among them {min(missing)}. Fetch the weights again."
        )
    loaded: nn.Module = module.eval().requires_grad_(False)
    return loaded


def _without_variant(name: str) -> str:
    """Return the name that loaders look for: model.fp16.safetensors is model.safetensors there."""
    return name.replace(".fp16", "").replace(".bf16", "")


def _float_tensors(weights: Weights) -> dict[str, Tensor]:
    """Return the parameters of an encoder inside a checkpoint; position ids are none."""
    names = [name for name in weights.files() if not name.endswith(("position_ids", "logit_scale"))]
    return {name: weights.tensor(name) for name in names}


# OpenCLIP's names and those of transformers.
_OPEN_CLIP = {
    "positional_embedding": "embeddings.position_embedding.weight",
    "token_embedding.": "embeddings.token_embedding.",
    "ln_final.": "final_layer_norm.",
    "transformer.resblocks.": "encoder.layers.",
    ".ln_1.": ".layer_norm1.",
    ".ln_2.": ".layer_norm2.",
    ".mlp.c_fc.": ".mlp.fc1.",
    ".mlp.c_proj.": ".mlp.fc2.",
    ".attn.": ".self_attn.",
}


def _with_names_of_transformers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a CLIP text tower under transformers' names; one that has them already unchanged."""
    if "positional_embedding" not in tensors:
        return tensors
    renamed: dict[str, Tensor] = {}
    for original, tensor in tensors.items():
        if original == "text_projection":
            renamed["text_projection.weight"] = tensor.T.contiguous()
            continue
        name = f"text_model.{original}"
        for theirs, ours in _OPEN_CLIP.items():
            name = name.replace(theirs, ours)
        # Queries, keys and values lie below each other in one matrix.
        if ".in_proj_" in name:
            for kind, part in zip("qkv", tensor.chunk(3), strict=True):
                renamed[name.replace(".in_proj_", f".{kind}_proj.")] = part.contiguous()
        else:
            renamed[name] = tensor
    return renamed
