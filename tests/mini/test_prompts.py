"""The prompts of mini fit its encoder, and their scenes can be checked."""

from dti_geom.mini.domain import NATURAL_COLOURS, THING_NAMES
from dti_geom.mini.prompts import OTHER, SUBJECT, mini_prompts
from dti_geom.models.catalog import embedded_folder


def test_prompts_fit_the_encoder_and_ask_for_what_can_be_checked() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(embedded_folder() / "tokenizer")
    for thing in THING_NAMES:
        prompts = mini_prompts(thing)
        assert len({prompt.text for prompt in prompts}) == len(prompts)
        for prompt in prompts:
            assert SUBJECT in prompt.text
            words = prompt.text.replace(SUBJECT, thing).replace(OTHER, "strawberry")
            assert len(tokenizer(words)["input_ids"]) <= tokenizer.model_max_length
            scene = prompt.expected.filled(thing, "strawberry")
            assert (scene.first.colour, thing) not in NATURAL_COLOURS
            assert {item.thing for item in scene.items} <= set(THING_NAMES)
            if scene.second is not None and prompt.group != "two concepts":
                assert scene.first.thing != scene.second.thing


def test_a_scene_holds_what_its_prompt_says() -> None:
    prompts = {prompt.text: prompt for prompt in mini_prompts("penguin")}
    left = prompts["a photo of a {} to the left of a car on the beach"].expected
    scene = left.filled("penguin", None)
    assert scene.second is not None
    assert (scene.first.thing, scene.second.thing) == ("penguin", "car")
    assert (scene.axis, scene.background) == ("row", "beach")
    two = next(prompt for text, prompt in prompts.items() if OTHER in text)
    assert {item.thing for item in two.expected.filled("penguin", "whale").items} == {
        "penguin",
        "whale",
    }
    hat = prompts["a photo of a {} wearing a hat on the beach"].expected
    assert hat.scene.first.accessory == "hat"
    assert (left.pair, hat.pair) == (True, False)


def test_answers_are_compared_with_the_scene_of_the_subject() -> None:
    (prompt,) = [
        each for each in mini_prompts("fox") if each.text.endswith("wearing a hat on the beach")
    ]
    answers = {"first": "fox", "background": "beach", "accessory": "bow"}
    assert prompt.expected.check(answers, "fox", None) == {
        "object": True,
        "background": True,
        "accessory": False,
    }
    assert not prompt.expected.check(answers, "owl", None)["object"]


def test_no_prompt_pairs_a_class_word_with_itself_or_asks_for_its_own_colour() -> None:
    robot, plain = mini_prompts("robot", "car"), mini_prompts("robot")
    assert len(robot) == len(plain)
    assert any("car" in prompt.text.split() for prompt in plain)
    assert not any("car" in prompt.text.split() for prompt in robot)
    assert any("a red {}" in prompt.text for prompt in plain)
    assert not any("a red {}" in prompt.text for prompt in robot)  # a car is red anyway
