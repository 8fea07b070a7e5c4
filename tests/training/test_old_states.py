from collections.abc import Callable

import torch

from dti_geom.models.pipelines import TextToImage
from dti_geom.training import MethodConfig, RunConfig, Trainer
from dti_geom.training.old_states import renamed


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
