from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dti_geom.errors import TrainingError
from dti_geom.models.pipelines import TextToImage, open_text_to_image
from dti_geom.training import METHODS, AdapterConfig, MethodConfig, RunConfig, Trainer
from dti_geom.training.old_states import renamed, with_old_defaults
from dti_geom.training.trainer import with_defaults


def test_numbers_through_all_concepts_and_towers_become_names() -> None:
    old = ["step", "0/held", "1/held", "2/held", "3/held", "3/log_magnitude"]
    old += ["3/recent", "1/optimizer0.0.exp_avg"]
    state = {name: torch.tensor(number) for number, name in enumerate(old)}
    assert list(renamed(state, ["one", "two"])) == [
        "step",
        "0/one/parameter",
        "0/two/parameter",
        "1/one/parameter",
        "1/two/parameter",
        "1/two/log_magnitude",
        "recent/1/two",
        "0/two/optimizer0.0.exp_avg",
    ]


@pytest.mark.parametrize("name", ["dti", "dti-tuned", "ti", "adamw-sphere"])
def test_a_configuration_of_version_0_1_0_keeps_the_values_it_had(
    tiny: Callable[[], TextToImage],
    config: Callable[..., RunConfig],
    sana_pipeline: Path,
    name: str,
) -> None:
    old = config(method=MethodConfig(name, 0.01))
    sana = open_text_to_image(str(sana_pipeline))
    for model, times in ((tiny(), None), (sana, "logit-normal")):
        kept = with_old_defaults(old, model)
        kappa = {"dti": 1e-4, "dti-tuned": 1e-2}.get(name)
        assert kept.method.kappa == kappa
        assert kept.method.weight_decay == (1e-2 if kappa is None else None)
        assert kept.data.times == times
        assert kept.data.templates is not None
        assert len(kept.data.templates) == 12


@pytest.mark.parametrize("name", METHODS)
def test_a_configuration_of_this_version_names_every_value(
    config: Callable[..., RunConfig], sana_pipeline: Path, name: str
) -> None:
    model = open_text_to_image(str(sana_pipeline))
    adapter = None if METHODS[name].learns else AdapterConfig()
    saved = with_defaults(config(method=MethodConfig(name), adapter=adapter), model)
    assert with_old_defaults(saved, model) == saved
    assert with_defaults(saved, model) == saved


def test_cross_initialization_of_version_0_1_0_is_not_continued(
    tiny: Callable[[], TextToImage], config: Callable[..., RunConfig]
) -> None:
    with pytest.raises(TrainingError, match="'crossinit' had another start"):
        with_old_defaults(config(method=MethodConfig("crossinit")), tiny())


def test_a_run_resumes_from_a_state_of_version_0_1_0(
    tiny: Callable[[], TextToImage], config: Callable[..., RunConfig]
) -> None:
    asked = config(method=MethodConfig("ti", average_last=3))
    whole, stopped, resumed = (Trainer(tiny(), asked) for _ in range(3))
    whole.run()
    updates = stopped.updates()
    for _ in range(4):
        next(updates)
    old = {}
    for name, value in stopped.state().items():
        name = name.replace("recent/0/text_encoder", "0/recent")
        old[name.replace("0/text_encoder/", "0/").replace("/parameter", "/held")] = value.clone()
    assert {"step", "0/held", "0/recent", "0/optimizer0.0.exp_avg"} <= old.keys()
    resumed.load_state(old)
    resumed.run()
    assert torch.equal(resumed.learned()[0]["text_encoder"], whole.learned()[0]["text_encoder"])
