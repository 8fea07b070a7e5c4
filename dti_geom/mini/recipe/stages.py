"""The stages of the recipe, in order. All read and write below one working folder."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTextModel

from dti_geom.mini.recipe import artwork, autoencoder, scorer_training
from dti_geom.mini.recipe.captions import caption
from dti_geom.mini.recipe.dataset import (
    Pictures,
    as_pixels,
    as_tensor,
    load_pictures,
    paint_pictures,
    save_grid,
    save_pictures,
)
from dti_geom.mini.recipe.denoiser import Joint, LatentPictures, new_denoiser, new_scheduler
from dti_geom.mini.recipe.export import SHIPPED, export
from dti_geom.mini.recipe.generate import assemble, generate
from dti_geom.mini.recipe.labels import labels_in_caption
from dti_geom.mini.recipe.sampling import SceneSampler
from dti_geom.mini.recipe.text import new_text_encoder, teach_reading
from dti_geom.mini.recipe.tokenizer import (
    encode_captions,
    encode_in_pieces,
    load_tokenizer,
    train_tokenizer,
)


@dataclass(frozen=True)
class Recipe:
    """How many pictures and steps.

    The defaults take one CPU core about ninety minutes. More joint steps improve the model most.
    """

    work: Path
    device: str = "cpu"
    seed: int = 0
    pictures: int = 60_000
    joint_pictures: int = 24_000  # of them, kept as latents
    scorer_pictures: int = 40_000
    scorer_reconstructions: int = 12_000
    in_pieces: float = 0.05  # share of captions whose words are split into pieces
    autoencoder_steps: int = 950
    decoder_steps: int = 240
    scorer_steps: int = 1600
    reading_steps: int = 260
    joint_steps: int = 1850
    watch_every: int = 500


def download(recipe: Recipe) -> None:
    """Fetch the artwork packages and cut out the pictures needed."""
    artwork.extract(recipe.work / "artwork")


def paint(recipe: Recipe) -> None:
    """Paint the training scenes of the generator."""
    sprites = artwork.load_sprites(recipe.work / "artwork")
    sampler = SceneSampler(np.random.default_rng(recipe.seed))
    _keep(
        recipe.work / "pictures",
        lambda: paint_pictures(sampler, sprites, recipe.pictures, recipe.seed),
    )


def paint_for_scorer(recipe: Recipe) -> None:
    """Paint the training scenes of the scorer."""
    sprites = artwork.load_sprites(recipe.work / "artwork")
    _keep(
        recipe.work / "scorer-pictures",
        lambda: scorer_training.paint_scorer_pictures(
            sprites, recipe.scorer_pictures, recipe.seed + 1
        ),
    )


def _keep(folder: Path, paint_them: Callable[[], Pictures]) -> None:
    """Paint and save pictures, unless an earlier run did."""
    if (folder / "pixels.npy").exists():
        return
    pictures = paint_them()
    save_pictures(pictures, folder)
    save_grid(as_tensor(pictures.pixels[:160]), 16, folder / "grid.png")


def train_words(recipe: Recipe) -> None:
    """Learn the vocabulary and turn every caption into token ids.

    A few captions are split into pieces of words, so that pieces are trained too.
    """
    pictures = load_pictures(recipe.work / "pictures")
    texts = [text for captions in pictures.captions for text in captions]
    tokenizer = train_tokenizer(texts, recipe.work / "tokenizer")
    ids = np.array(encode_captions(tokenizer, texts), np.int16)
    rng = np.random.default_rng(recipe.seed)
    broken = rng.choice(len(texts), int(recipe.in_pieces * len(texts)), replace=False)
    ids[broken] = encode_in_pieces(tokenizer, [texts[i] for i in broken], rng)
    np.save(recipe.work / "tokenizer" / "ids.npy", ids.reshape(len(pictures), -1, ids.shape[-1]))


def train_autoencoder(recipe: Recipe) -> None:
    """Train the autoencoder on the painted scenes, then encode scenes for the joint stage."""
    folder = recipe.work / "autoencoder"
    pictures = load_pictures(recipe.work / "pictures")
    model = autoencoder.train_autoencoder(
        pictures, folder, recipe.autoencoder_steps, recipe.seed, recipe.device
    )
    if not (folder / "latents.pt").exists():
        pixels = pictures.pixels[: recipe.joint_pictures]
        torch.save(_posterior(model, pixels, recipe.device), folder / "latents.pt")


@torch.no_grad()
def _posterior(
    model: Any, pixels: NDArray[np.uint8], device: str, batch: int = 200
) -> dict[str, Tensor]:
    """Mean and standard deviation of every picture's latents, in half precision."""
    parts: dict[str, list[Tensor]] = {"mean": [], "std": []}
    for start in range(0, len(pixels), batch):
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            posterior = model.encode(as_tensor(pixels[start : start + batch], device)).latent_dist
        parts["mean"].append(posterior.mean.half().cpu())
        parts["std"].append(posterior.std.half().cpu())
    return {name: torch.cat(values) for name, values in parts.items()}


def polish_decoder(recipe: Recipe) -> None:
    """Train the decoder a little longer. This stage may run beside the joint stage."""
    model = AutoencoderKL.from_pretrained(recipe.work / "autoencoder")
    pictures = load_pictures(recipe.work / "pictures")
    autoencoder.polish_decoder(
        model, pictures, recipe.work / "decoder", recipe.decoder_steps, recipe.seed, recipe.device
    )


def train_scorer(recipe: Recipe) -> None:
    """Train the scorer on pictures of its own and on reconstructions of some of them.

    Where the work folder has no autoencoder, the shipped one reconstructs them.
    """
    pictures = load_pictures(recipe.work / "scorer-pictures")
    trained = recipe.work / "autoencoder"
    folder = trained if trained.exists() else SHIPPED / "vae"
    print(f"reconstructions by {folder}", flush=True)
    model = AutoencoderKL.from_pretrained(folder).float().to(recipe.device).eval()
    shown = as_tensor(pictures.pixels[: recipe.scorer_reconstructions], recipe.device)
    with torch.autocast(torch.device(recipe.device).type, torch.bfloat16):
        blurred = as_pixels(autoencoder.decode(model, autoencoder.encode(model, shown).float()))
    lessons = scorer_training.Lessons.of(pictures, blurred)
    scorer_training.train_scorer(
        lessons, recipe.work / "scorer", recipe.scorer_steps, recipe.seed, recipe.device
    )


def train_reading(recipe: Recipe) -> None:
    """Train the text encoder on its reading lesson."""
    pictures = load_pictures(recipe.work / "pictures")
    ids = _caption_ids(recipe)
    answers = [
        [list(labels_in_caption(scene, text).values()) for text in captions]
        for scene, captions in zip(pictures.scenes, pictures.captions, strict=True)
    ]
    encoder = new_text_encoder(load_tokenizer(recipe.work / "tokenizer")).to(recipe.device)
    folder = recipe.work / "reading"
    flat_answers = torch.tensor(answers).flatten(0, 1)
    teach_reading(
        encoder, ids.flatten(0, 1), flat_answers, folder, recipe.reading_steps, recipe.seed
    )


def _caption_ids(recipe: Recipe) -> Tensor:
    return torch.from_numpy(np.load(recipe.work / "tokenizer" / "ids.npy")).long()


def train_joint(recipe: Recipe) -> None:
    """Train text encoder and denoiser together; save the averaged weights as a pipeline."""
    work, folder = recipe.work, recipe.work / "joint"
    tokenizer = load_tokenizer(work / "tokenizer")
    vae = AutoencoderKL.from_pretrained(work / "autoencoder").eval()
    latents = torch.load(work / "autoencoder" / "latents.pt", weights_only=True)
    torch.manual_seed(recipe.seed)
    text_encoder = CLIPTextModel.from_pretrained(
        work / "reading", attn_implementation="eager"
    ).float()
    denoiser = new_denoiser()
    pictures = LatentPictures(
        latents["mean"], latents["std"], _caption_ids(recipe), vae.config.scaling_factor
    )
    empty = torch.tensor(encode_captions(tokenizer, [""])[0])
    joint = Joint(
        denoiser.to(recipe.device), text_encoder.to(recipe.device), pictures, empty, recipe.device
    )
    pipeline = assemble(vae.to(recipe.device), text_encoder, tokenizer, denoiser, new_scheduler())
    prompts = watched_prompts(recipe.seed)

    def watch(step: int) -> None:
        with torch.autocast(torch.device(recipe.device).type, torch.bfloat16):
            save_grid(generate(pipeline, prompts), 12, folder / f"grid-{step:06d}.png")

    with joint.train(folder, recipe.joint_steps, recipe.seed, watch, recipe.watch_every):
        pipeline.save_pretrained(folder / "pipeline")


def watched_prompts(seed: int, count: int = 48) -> list[str]:
    """Return captions of random scenes, the same at every step."""
    rng = np.random.default_rng(seed + 7)
    return [caption(scene, rng) for scene in SceneSampler(rng).draw_many(count)]


def ship(recipe: Recipe) -> None:
    """Write the model folder, in half precision, into the package."""
    export(recipe.work)


STAGES: dict[str, Callable[[Recipe], None]] = {
    "download": download,
    "scenes": paint,
    "tokenizer": train_words,
    "autoencoder": train_autoencoder,
    "decoder": polish_decoder,
    "scorer scenes": paint_for_scorer,
    "scorer": train_scorer,
    "reading": train_reading,
    "joint": train_joint,
    "export": ship,
}
