import json
from pathlib import Path

import pytest

from dti_geom.errors import DtiGeomError, ModelFilesError, UnknownModel
from dti_geom.models import MODELS, open_encoders
from dti_geom.models.catalog import find_source
from dti_geom.models.sources import Folder, HubRepository
from pipelines import FAMILIES, published


def test_a_wrong_name_lists_the_right_ones_and_guesses() -> None:
    with pytest.raises(
        UnknownModel, match=r"no model called 'sd1\.5'.*Did you mean 'sd15'\?\nKnown: mini, sd15"
    ) as raised:
        open_encoders("sd1.5")
    assert "--model ./my-model" in str(raised.value)


def test_known_names_lead_to_their_repositories() -> None:
    assert find_source("sdxl") == HubRepository("stabilityai/stable-diffusion-xl-base-1.0")
    assert find_source("org/name") == HubRepository("org/name")
    assert set(MODELS) >= {"mini", "sd15", "sd21", "sd21-base", "sdxl", "sana-1.6b", "sana-4.8b"}


SIZES = {  # family and denoiser in the tests' facts
    "sd15": ("sd15", "sd15-unet"),
    "sd21": ("sd21", "sd21-base-unet"),
    "sd21-base": ("sd21", "sd21-base-unet"),
    "sdxl": ("sdxl", "sdxl-unet"),
    "sana-1.6b": ("sana", "sana15-1.6b-transformer"),
    "sana-4.8b": ("sana", "sana15-4.8b-transformer"),
    "sd35-medium": ("sd35", "sd35-medium-transformer"),
    "sd35-large": ("sd35", "sd35-large-transformer"),
    "flux1-dev": ("flux1", "flux1-dev-transformer"),
    "chroma": ("chroma", "chroma1-hd-transformer"),
    "pixart-sigma": ("pixart", "pixart-sigma-1024-transformer"),
    "wan2.1-1.3b": ("wan", "wan21-t2v-1.3b-transformer"),
    "flux2-klein-4b": ("flux2-klein", "flux2-klein-4b-transformer"),
    "flux2-klein-9b": ("flux2-klein", "flux2-klein-9b-transformer"),
    "z-image": ("z-image", "z-image-transformer"),
    "qwen-image": ("qwen-image", "qwen-image-transformer"),
    "lumina2": ("lumina2", "lumina-image-2-transformer"),
}


# Tables of positions, which are no parameters but lie in the file: side² × width.
BUFFERS = {"sd35-medium": 384**2 * 1536, "sd35-large": 192**2 * 2432}


@pytest.mark.parametrize("name", SIZES)
def test_the_size_of_a_model_is_that_of_its_published_parts(name: str) -> None:
    """Two bytes for each parameter, four in the autoencoder."""
    family, denoiser = FAMILIES[SIZES[name][0]], SIZES[name][1]
    halves = [published(part)["parameters"] for part in (denoiser, *family.towers_of(denoiser))]
    halves.append(BUFFERS.get(name, 0))
    size = 2 * sum(halves) + 4 * published(family.autoencoder)["parameters"]
    assert MODELS[name].gigabytes == pytest.approx(size / 1e9, rel=5e-3)


def test_a_local_folder_goes_before_a_repository_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert isinstance(find_source("org/name"), Folder)


def test_a_fallback_repository_is_used_when_the_first_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def has(repository: HubRepository, _file: str) -> bool:
        if repository.name.startswith("sd2-community"):
            raise UnknownModel("gone")
        return True

    monkeypatch.setattr(HubRepository, "has", has)
    assert find_source("sd21-base") == HubRepository("Manojb/stable-diffusion-2-1-base")


def test_a_file_is_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    with pytest.raises(UnknownModel, match="is a file; --model takes a checkpoint"):
        open_encoders(str(tmp_path / "config.json"))


def test_a_folder_that_is_no_model_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match=r"neither model_index\.json .* nor config\.json"):
        open_encoders(str(tmp_path))


def test_a_pipeline_without_a_text_encoder_says_so(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(
        json.dumps({"_class_name": "X", "text_encoder": [None, None]})
    )
    with pytest.raises(ModelFilesError, match="names no text_encoder"):
        open_encoders(str(tmp_path))


def test_a_device_that_is_not_here_is_named(sd15_folder: Path) -> None:
    with pytest.raises(DtiGeomError, match="device 'cuda:77' cannot be used here"):
        open_encoders(str(sd15_folder), device="cuda:77")


def test_opening_reads_only_json(sd15_folder: Path, tmp_path: Path) -> None:
    for name in ("model_index.json", "text_encoder/config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((sd15_folder / name).read_bytes())
    (encoder,) = open_encoders(str(tmp_path))
    with pytest.raises(ModelFilesError, match="no weights in 'text_encoder/'"):
        _ = encoder.token_table
