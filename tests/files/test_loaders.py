"""Each tool's look-up, restated from its documented layout, beside what `loadings` says of it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dti_geom.files import LearnedToken, read_embeddings, write_embeddings
from dti_geom.files.encoder_keys import ENCODERS
from dti_geom.files.loaders import COMFYUI, DIFFUSERS, WEB_UI, loadings

WIDTHS = {row.key: row.width for row in ENCODERS.values()}


def vectors(key: str, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(len(key))
    return torch.randn(count, WIDTHS[key], generator=generator)


def stored(path: Path) -> Any:
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path)


def comfyui_finds(content: Any, key: str) -> Tensor | None:
    """The rows that ComfyUI gives the encoder of `key`, by its documented order; None for none."""
    width = WIDTHS[key]
    if "string_to_param" in content:
        found = next(iter(content["string_to_param"].values()))
    elif isinstance(content, list):
        parts = [tensor for tower in content for tensor in tower.values()]
        fitting = [part.reshape(-1, width) for part in parts if part.shape[-1] == width]
        found = torch.cat(fitting)
    elif key in content:
        found = content[key]
    else:
        endings = (".string_to_param.*", f".{key}")
        bundles = [name for name in content if name.startswith("bundle_emb.")]
        for ending in endings:
            parts = [content[name] for name in bundles if name.endswith(ending)]
            if parts:
                found = torch.cat(parts)
                break
        else:
            found = next(iter(content.values()))
    # A list has no shape: the tool fails there. Vectors of another width are ignored.
    return found if isinstance(found, Tensor) and found.shape[-1] == width else None


def web_ui_finds(content: Any) -> list[Tensor] | None:
    """What the web UI of AUTOMATIC1111 loads; None for a file that it passes over."""
    if "string_to_param" in content:
        values = list(content["string_to_param"].values())
        return values if len(values) == 1 else None
    if not isinstance(content, dict):
        return None
    if {"clip_l", "clip_g"} <= content.keys():
        return [content["clip_l"], content["clip_g"]]
    values = list(content.values())
    single = len(values) == 1 and isinstance(values[0], Tensor)
    return values if single and values[0].shape[-1] in (768, 1024) else None


def diffusers_finds(content: Any, token: str | None) -> Any:
    from diffusers.loaders.textual_inversion import TextualInversionLoaderMixin

    class Tokenizer:
        def get_vocab(self) -> dict[str, int]:
            return {}

    return TextualInversionLoaderMixin._retrieve_tokens_and_embeddings(
        [token], [content], Tokenizer()
    )


LAYOUTS: dict[str, tuple[str, Any]] = {
    "web-ui": (".pt", {"string_to_param": {"*": vectors("clip_l")}, "name": "doll"}),
    "emb_params": (".safetensors", {"emb_params": vectors("clip_l")}),
    "emp_params": (".safetensors", {"emp_params": vectors("clip_l")}),
    "sdxl": (".safetensors", {key: vectors(key) for key in ("clip_l", "clip_g")}),
    "clip_g alone": (".safetensors", {"clip_g": vectors("clip_g")}),
    "SD 3": (".safetensors", {key: vectors(key) for key in ("clip_l", "clip_g", "t5xxl")}),
    "OneTrainer FLUX": (".safetensors", {"clip_l": vectors("clip_l"), "t5": vectors("t5xxl")}),
    "OneTrainer SANA": (".safetensors", {"gemma": vectors("gemma2_2b")}),
    "pivotal": (
        ".safetensors",
        {"text_encoders_0": vectors("clip_l"), "text_encoders_1": vectors("clip_g")},
    ),
    "tower list": (".bin", [{"<x>": vectors("clip_l")}, {"<x>": vectors("clip_g")}]),
    "two-tower": (".bin", {"<x>": [vectors("clip_l"), vectors("clip_g")]}),
    "diffusers": (".bin", {"<x>": vectors("clip_l")}),
    "two tokens": (".bin", {"<x>": vectors("clip_l"), "<y>": vectors("clip_l", 1)}),
    "bundle": (".safetensors", {"bundle_emb.<x>.clip_l": vectors("clip_l")}),
    "qwen": (".safetensors", {"qwen25_7b": vectors("qwen25_7b")}),
}


def written(name: str, folder: Path) -> Path:
    suffix, content = LAYOUTS[name]
    path = folder / f"doll{suffix}"
    if suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_said_of_a_tool_is_what_its_look_up_finds(tmp_path: Path, name: str) -> None:
    path = written(name, tmp_path)
    file = read_embeddings(path)
    said = {loading.tool: loading for loading in loadings(file)}
    content = stored(path)
    towers = {token.tower or "clip_l": token.vectors for token in file.tokens[:1]}
    towers |= {token.tower: token.vectors for token in file.tokens if token.tower in WIDTHS}
    if "1" in towers:
        towers = {"clip_l": file.tokens[0].vectors, "clip_g": file.tokens[1].vectors}
    found = {key: comfyui_finds(content, key) for key in towers}
    missed = [key for key, tensor in found.items() if tensor is None]
    if said[COMFYUI].type:
        assert said[COMFYUI].type == "embedding:doll"
        assert all(key in said[COMFYUI].note for key in missed)
        pairs = [(tensor, towers[key]) for key, tensor in found.items() if tensor is not None]
        assert all(torch.equal(*pair) for pair in pairs)
    else:
        assert missed == list(towers)
    if name != "bundle":  # which the web UI reads with the LoRA
        assert bool(said[WEB_UI].type) == (web_ui_finds(content) is not None)
    if said[DIFFUSERS].type and "one encoder" not in said[DIFFUSERS].note:
        token = "<x>" if said[DIFFUSERS].note else None
        names, tensors = diffusers_finds(content, token)
        assert names == [said[DIFFUSERS].type]
        assert torch.equal(tensors[0], file.tokens[0].vectors)
    elif isinstance(content, dict) and len(content) > 1:
        with pytest.raises(ValueError, match="state dictionary"):
            diffusers_finds(content, "<x>")


@pytest.mark.parametrize(
    ("layout", "keys"),
    [
        ("webui", ("clip_l",)),
        ("webui", ("clip_h",)),
        ("kohya", ("clip_l",)),
        ("sdxl", ("clip_l", "clip_g")),
        ("comfyui", ("clip_g",)),
        ("comfyui", ("clip_l", "clip_g", "t5xxl")),
        ("comfyui", ("qwen3_4b",)),
        ("onetrainer", ("clip_l", "clip_g")),
        ("onetrainer", ("llama", "clip_l")),
        ("diffusers", ("clip_l",)),
    ],
)
def test_comfyui_finds_every_encoder_in_the_files_written_here(
    tmp_path: Path, layout: str, keys: tuple[str, ...]
) -> None:
    suffix = {"webui": ".pt", "diffusers": ""}.get(layout, ".safetensors")
    tokens = [LearnedToken("<x>", key, vectors(key)) for key in keys]
    (path,) = write_embeddings(tmp_path / f"doll{suffix}", tokens, layout)
    content = stored(path)
    for key in keys:
        found = comfyui_finds(content, key)
        assert found is not None
        assert torch.equal(found, vectors(key))


def test_onetrainer_finds_its_own_keys(tmp_path: Path) -> None:
    tokens = [LearnedToken("<x>", key, vectors(key)) for key in ("clip_l", "t5xxl")]
    (path,) = write_embeddings(tmp_path / "x.safetensors", tokens, "onetrainer")
    assert load_file(path).keys() == {"clip_l", "t5"}
    (path,) = write_embeddings(tmp_path / "y.safetensors", tokens[:1], "onetrainer")
    assert load_file(path).keys() == {"emp_params"}


def test_a_web_ui_names_a_token_by_its_file_and_a_card_by_its_name(tmp_path: Path) -> None:
    path = written("web-ui", tmp_path).rename(tmp_path / "renamed.pt")
    typed = {loading.tool: loading.type for loading in loadings(read_embeddings(path))}
    assert typed == {WEB_UI: "renamed", COMFYUI: "embedding:renamed", DIFFUSERS: "doll"}
    token = LearnedToken("doll", None, vectors("clip_l"))
    (card,) = write_embeddings(tmp_path / "renamed.png", [token], "card")
    typed = {loading.tool: loading.type for loading in loadings(read_embeddings(card))}
    assert typed == {WEB_UI: "doll", COMFYUI: "", DIFFUSERS: ""}
