"""Ceilings: true pictures of what the prompts ask for, and what the scorer makes of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dti_geom.mini.ceilings import Ceiling, load_ceilings, shipped_ceilings
from dti_geom.mini.concepts import Concept, concepts_folder, load_concepts
from dti_geom.mini.prompts import mini_prompts
from dti_geom.mini.recipe import autoencoder
from dti_geom.mini.recipe.artwork import Sprites
from dti_geom.mini.recipe.ceilings import measure_ceilings, save_ceilings, true_scene
from dti_geom.mini.scenes import Item
from dti_geom.mini.scorer import Scorer
from dti_geom.statistics import Share


def concept(name: str) -> Concept:
    return next(found for found in load_concepts(concepts_folder()) if found.name == name)


def test_true_scenes_show_the_concepts_own_look_in_their_places() -> None:
    rocket, frog = concept("yellow-rocket"), concept("round-frog")
    scenes = [true_scene(prompt, rocket, frog) for prompt in mini_prompts("rocket")]
    shown = {item for scene in scenes for item in scene.items}
    assert Item("rocket", "yellow") in shown
    assert Item("rocket", "yellow", accessory="hat") in shown
    assert Item("rocket", "red") in shown  # a prompt's colour takes the place of the concept's
    assert Item("frog", style="round") in shown  # the other concept of a prompt with two
    assert {item.thing for item in shown} > {"rocket", "frog"}


def test_a_true_scene_keeps_place_axis_and_count() -> None:
    teddy, robot = concept("teddy"), concept("robot")
    for prompt in mini_prompts("teddy"):
        scene, asked = true_scene(prompt, teddy, robot), prompt.expected.scene
        things = replace(scene, first=asked.first, second=asked.second)
        assert things == asked


def test_ceilings_count_every_true_picture(
    sprites: Sprites, scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def identity(_: Any, images: Tensor) -> Tensor:
        return images

    monkeypatch.setattr(autoencoder, "encode", identity)
    monkeypatch.setattr(autoencoder, "decode", identity)
    concepts = [concept("teddy"), concept("robot")]
    torch.manual_seed(0)
    found = measure_ceilings(scorer, None, concepts, concepts_folder(), sprites, per_prompt=1)
    assert [ceiling.concept for ceiling in found] == ["teddy", "robot"]
    prompts = len(mini_prompts("teddy"))
    assert found[0].checks["background"].renders.total == prompts
    # Without an autoencoder between them, renders and reconstructions are the same pictures.
    for ceiling in found:
        assert all(check.renders == check.reconstructions for check in ceiling.checks.values())
        assert ceiling.likeness.renders == ceiling.likeness.reconstructions
    assert found[0].likeness.other != found[1].likeness.other
    save_ceilings(found, tmp_path)
    assert list(load_ceilings(tmp_path / "ceilings.json").values()) == found


@pytest.mark.parametrize(("right", "decides"), [(89, False), (90, True), (100, True)])
def test_a_check_decides_from_nine_tenths_on(right: int, decides: bool) -> None:
    share = Share.count([True] * right + [False] * (100 - right))
    assert Ceiling(Share.count([True] * 100), share).decides == decides


def test_the_shipped_scorer_sees_every_concept_in_pairs() -> None:
    shipped = shipped_ceilings()
    assert list(shipped) == [found.name for found in load_concepts(concepts_folder())]
    assert all(ceiling.checks["both"].decides for ceiling in shipped.values())
    for ceiling in shipped.values():
        assert ceiling.likeness.reconstructions > 2 * ceiling.likeness.other
