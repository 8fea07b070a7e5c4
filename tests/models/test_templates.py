import pytest

from dti_geom.models.templates import TEMPLATES


def test_there_are_as_many_as_in_the_published_training() -> None:
    assert {learn: len(set(prompts)) for learn, prompts in TEMPLATES.items()} == {
        "object": 27,
        "style": 19,
    }


@pytest.mark.parametrize("learn", TEMPLATES)
def test_every_prompt_names_the_token_once_as_a_word_of_its_own(learn: str) -> None:
    for template in TEMPLATES[learn]:
        assert template.split().count("{}") == 1
        assert template == template.strip().lower()
