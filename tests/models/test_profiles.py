"""What a model brings beside its weights is asked of its profile."""

from pathlib import Path

import pytest

from dti_geom.models.catalog import MODELS, embedded_folder, profile_of
from dti_geom.models.profiles import NO_PROFILE, load_by_name
from dti_geom.models.templates import TEMPLATES


def test_the_embedded_model_has_one_profile_by_name_and_by_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    profile = profile_of("mini")
    assert (profile.guidance, profile.sampling_steps) == (5.0, 25)
    assert profile_of(str(embedded_folder())) == profile
    monkeypatch.chdir(embedded_folder().parent)
    assert profile_of("./weights") == profile


def test_other_models_bring_nothing(tmp_path: Path) -> None:
    assert {profile_of(name) for name in MODELS if name != "mini"} == {NO_PROFILE}
    assert profile_of("org/name") == profile_of(str(tmp_path)) == NO_PROFILE
    assert NO_PROFILE.concepts() == {}


def test_a_function_is_loaded_by_module_and_name() -> None:
    assert load_by_name("pathlib:Path") is Path
    with pytest.raises(ModuleNotFoundError):
        load_by_name("no_such_module:function")


@pytest.mark.parametrize("model", ["mini", str(embedded_folder())])
def test_the_embedded_model_paints_with_the_settings_of_its_profile(model: str) -> None:
    from dti_geom.models.pipelines import open_text_to_image

    opened = open_text_to_image(model)
    assert (opened.guidance, opened.sampling_steps) == (5.0, 25)
    assert opened.profile == profile_of("mini")


def test_a_model_may_bring_its_own_prompts_for_objects() -> None:
    from dti_geom.models.pipelines import open_text_to_image

    mini = open_text_to_image("mini")
    own = mini.templates()
    assert own == profile_of("mini").templates() != TEMPLATES["object"]
    assert mini.templates("style") == TEMPLATES["style"]
    assert NO_PROFILE.templates() is None
