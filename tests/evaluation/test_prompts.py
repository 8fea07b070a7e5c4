from collections import Counter
from pathlib import Path

import pytest

from dti_geom.errors import EvaluationError
from dti_geom.evaluation.prompts import (
    COMPOSITIONAL,
    OTHER,
    PROMPT_SETS,
    SUBJECT,
    dreambooth_prompts,
    open_prompt_set,
)

FILE = """Classes

subject_name,class
dog,dog

Prompts

Object Prompts

prompt_list = [
'a {0} {1} in the jungle'.format(unique_token, class_token),
'a cube shaped {0} {1}'.format(unique_token, class_token)
]

Live Subject Prompts

prompt_list = [
'a {0} {1} wearing a red hat'.format(unique_token, class_token)
]
"""


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    (tmp_path / "prompts_and_classes.txt").write_text(FILE)
    return tmp_path


def test_the_set_of_a_model_says_what_its_pictures_have_to_show() -> None:
    prompts = open_prompt_set("mini").of("teapot", "teapot")
    assert len({prompt.text for prompt in prompts}) == len(prompts) > 20
    assert all(SUBJECT in prompt.text and prompt.expected is not None for prompt in prompts)
    assert {prompt.group for prompt in prompts if OTHER in prompt.text} == {"two concepts"}


def test_the_datasets_prompts_are_read_for_objects_and_for_live_subjects(dataset: Path) -> None:
    objects, live = dreambooth_prompts(dataset)
    assert [prompt.text for prompt in objects] == ["a {} in the jungle", "a cube shaped {}"]
    assert [prompt.text for prompt in live] == ["a {} wearing a red hat"]
    chosen = open_prompt_set("dreambooth", dataset)
    assert chosen.of("dog", "") == live
    assert chosen.of("teapot", "") == objects


def test_the_real_file_lists_25_prompts_of_either_kind(shared_data: Path) -> None:
    objects, live = dreambooth_prompts(shared_data / "dreambooth")
    assert (len(objects), len(live)) == (25, 25)


@pytest.mark.parametrize("word", ["dog", "teapot"])
def test_the_papers_set_has_the_papers_numbers_of_prompts(shared_data: Path, word: str) -> None:
    prompts = open_prompt_set("paper", shared_data / "dreambooth").of(word, "")
    groups = Counter(prompt.group for prompt in prompts)
    combined = sum(groups[name] for name in COMPOSITIONAL)
    assert (groups["simple"], combined, groups["with a thing"], groups["style"]) == (41, 16, 16, 40)
    assert len({prompt.text for prompt in prompts}) == len(prompts) == 113
    own = dreambooth_prompts(shared_data / "dreambooth")[word == "dog"]
    assert [prompt.text for prompt in prompts[:25]] == [prompt.text for prompt in own]
    assert not any(OTHER in prompt.text for prompt in prompts)  # a cell learns one subject


@pytest.mark.parametrize("name", sorted(set(PROMPT_SETS) - {"mini"}))
def test_every_set_puts_the_subject_into_every_prompt(dataset: Path, name: str) -> None:
    for prompt in open_prompt_set(name, dataset).of("dog", ""):
        assert prompt.text.count(SUBJECT) == 1
        assert "{" not in prompt.filled("dog", "cat")


def test_a_file_of_prompts_is_a_set_and_what_is_none_says_what_is(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("a {} on Mars\n\na {} made of cheese\n")
    mine = open_prompt_set(str(tmp_path / "mine.txt")).of("dog", "")
    assert [(prompt.text, prompt.group) for prompt in mine] == [
        ("a {} on Mars", "mine"),
        ("a {} made of cheese", "mine"),
    ]
    (tmp_path / "mine.txt").write_text("a dog\n")
    with pytest.raises(EvaluationError, match=r"'a dog' has no \{\}"):
        open_prompt_set(str(tmp_path / "mine.txt"))
    with pytest.raises(EvaluationError, match="Known: mini, dreambooth"):
        open_prompt_set("dreambroth")
    with pytest.raises(EvaluationError, match="Name its folder with --dreambooth"):
        open_prompt_set("dreambooth", tmp_path)
    (tmp_path / "prompts_and_classes.txt").write_text("Object Prompts\n")
    with pytest.raises(EvaluationError, match="lists 0 prompts for objects and 0 for live"):
        dreambooth_prompts(tmp_path)
