"""Which files of a pipeline are read, and what fetching them costs.

plan = plan_download("sdxl", "bfloat16")
print(plan.bytes - plan.cached_bytes, "bytes to download")
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dti_geom.errors import ModelFilesError
from dti_geom.models.catalog import find_source
from dti_geom.models.checkpoints import Checkpoint
from dti_geom.models.sources import Source, read_json, read_weight_map
from dti_geom.progress import Progress, notice, silent

# Parts of a pipeline that neither training nor painting reads.
UNUSED_PARTS = ("safety_checker", "feature_extractor", "image_encoder")
# Parts that compute in float32 whatever the rest computes in.
FLOAT32_PARTS = ("vae",)
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
    "chat_template.jinja",
)
_SMALL_FILES = ("config.json", "scheduler_config.json", *TOKENIZER_FILES)
_NO_WEIGHTS = ("tokenizer", "scheduler")  # how the names of parts begin that have none
_LIBRARIES = ("diffusers", "transformers")
# By the dtype wanted, variants in the order of preference; "" has no suffix and is float32 as a
# rule. Half precision takes half-precision files: half the download.
_VARIANTS = {
    "float32": ("", "bf16", "fp16"),
    "bfloat16": ("bf16", "fp16", ""),
    "float16": ("fp16", "", "bf16"),
}
# What diffusers and transformers call weights; pickles only where there is nothing else.
_STEMS = (
    ("diffusion_pytorch_model", "safetensors"),
    ("model", "safetensors"),
    ("diffusion_pytorch_model", "bin"),
    ("pytorch_model", "bin"),
)


@dataclass(frozen=True)
class NeededFile:
    """A file that a model is opened from."""

    name: str  # in the repository or folder
    loaded_as: str  # what diffusers looks for: the name without its variant
    bytes: int
    cached: bool  # on this machine already


@dataclass(frozen=True)
class Download:
    """The files that a model is opened from."""

    source: str  # repository or folder
    files: tuple[NeededFile, ...]

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.bytes for file in self.files)

    @property
    def cached_bytes(self) -> int:
        """Size of the files that are on this machine already."""
        return sum(file.bytes for file in self.files if file.cached)


def plan_download(model: str, dtype: str = "float32") -> Download:
    """Return the files that `open_text_to_image` would read of a model; fetches small files only.

    model: a name of `MODELS`, a Hub id or a pipeline folder. dtype: of everything but the
    autoencoder; float32, float16 or bfloat16. Raises UnknownModel, ModelFilesError.
    """
    return needed_files(find_source(model), dtype)


def needed_files(source: Source, dtype: str) -> Download:
    """Return the files that a pipeline is opened from. dtype: as for `plan_download`.

    Raises ModelFilesError for a part that has no weights, or would run code of its own.
    """
    sizes = source.sizes()
    chosen: dict[str, str] = {}
    if isinstance(source, Checkpoint):
        chosen[source.path.name] = source.path.name
    for part in used_parts(source, read_json(source, "model_index.json")):
        small = [f"{part}/{name}" for name in _SMALL_FILES]
        chosen |= {name: name for name in small if name in sizes}
        if not isinstance(source, Checkpoint) and not part.startswith(_NO_WEIGHTS):
            part_dtype = "float32" if part in FLOAT32_PARTS else dtype
            chosen |= _weights(source, part, sizes, part_dtype)
    files = [
        NeededFile(name, loaded_as, sizes.get(name, 0), source.here(name))
        for name, loaded_as in chosen.items()
    ]
    return Download(source.name, tuple(files))


def fetch(source: Source, plan: Download, progress: Progress = silent) -> None:
    """Download the files of a plan that are not on this machine; first say how much that is."""
    missing = [file for file in plan.files if not file.cached]
    total = sum(file.bytes for file in missing)
    if missing:
        notice(f"downloading {in_units(total)} of {source.name}: {_names_of(missing)}")
    done = 0
    for file in missing:

        def listen(_name: str, read: int, _size: int, before: int = done) -> None:
            progress(f"downloading {source.name}", before + read, total)

        source.local(file.name, listen)
        done += file.bytes


def used_parts(source: Source, index: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the parts of a pipeline that are opened, each with its library and class."""
    used = {}
    for part, value in index.items():
        # An absent part is written as [null, null]; options are not lists.
        if not isinstance(value, list) or part.startswith("_") or part in UNUSED_PARTS:
            continue
        if value == [None, None]:
            continue
        if len(value) != 2 or value[0] not in _LIBRARIES:
            raise ModelFilesError(
                f"{source.name}: model_index.json takes {part} from {value}. Parts of "
                f"{' and '.join(_LIBRARIES)} are opened; other code is never run."
            )
        used[part] = value
    return used


def _weights(source: Source, part: str, sizes: Mapping[str, int], dtype: str) -> dict[str, str]:
    """Return the weight files of a part, each with the name loaders look for."""
    for found, name in _weight_names(dtype):
        entry = f"{part}/{found}"
        if entry not in sizes:
            continue
        shards = read_weight_map(source, entry) if entry.endswith(".json") else {}
        return {entry: f"{part}/{name}"} | {shard: shard for shard in sorted(set(shards.values()))}
    there = ", ".join(name for name in sizes if name.startswith(f"{part}/")) or "nothing"
    raise ModelFilesError(
        f"{source.name} has no weights of its {part}: there is {there}. Expected {part}/"
        "model.safetensors or diffusion_pytorch_model.safetensors, or an fp16 or bf16 variant."
    )


def _weight_names(dtype: str) -> Iterator[tuple[str, str]]:
    """Yield names of weight files and shard indexes, best first, and their names without variant.

    A published name of either: model.fp16.safetensors, model.safetensors.index.fp16.json.
    """
    for form in ("safetensors", "bin"):
        for variant in _VARIANTS[dtype]:
            suffix = f".{variant}" if variant else ""
            for stem in (stem for stem, ending in _STEMS if ending == form):
                yield f"{stem}{suffix}.{form}", f"{stem}.{form}"
                yield f"{stem}.{form}.index{suffix}.json", f"{stem}.{form}.index.json"


def in_units(size: int) -> str:
    """Return a size in bytes as people read it: 6.9 GB, 340 MB, 12 kB."""
    for unit, name in ((10**9, "GB"), (10**6, "MB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{-(-size // 1000)} kB"


def _names_of(files: Collection[NeededFile]) -> str:
    """Return the files' names, the largest first; small ones are counted."""
    large = sorted(files, key=lambda file: -file.bytes)[:4]
    others = len(files) - len(large)
    named = ", ".join(f"{file.name} ({in_units(file.bytes)})" for file in large)
    return f"{named} and {others} smaller files" if others else named
