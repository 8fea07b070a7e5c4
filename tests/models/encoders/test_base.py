from pathlib import Path

import pytest
import torch

from dti_geom.models import open_encoders
from dti_geom.models.encoders.base import HiddenStates, Tap, read_blocks

STATES = tuple(torch.full((1, 2, 3), float(number)) for number in range(4))  # x_0 … x_3
LAST = torch.full((1, 2, 3), 9.0)


def test_by_default_the_output_after_the_final_norm_is_read() -> None:
    assert HiddenStates(STATES, LAST).read is LAST


def test_an_earlier_block_is_read_without_the_final_norm() -> None:
    states = HiddenStates(STATES, LAST, tap=Tap((1,), final_norm=False))
    assert states.read is STATES[2]


def test_several_blocks_are_joined_along_the_features_in_the_order_named() -> None:
    read = HiddenStates(STATES, LAST, tap=Tap((2, 0), final_norm=False)).read
    assert read.shape == (1, 2, 6)
    assert read[0, 0].tolist() == [1, 1, 1, 3, 3, 3]


def test_what_is_read_has_a_name() -> None:
    early, several = Tap((1,), final_norm=False), Tap((2, 0), final_norm=False)
    assert HiddenStates(STATES, LAST).read_name == "block 3 of 3, after the final norm"
    assert HiddenStates(STATES, LAST, tap=early).read_name == "block 2 of 3, before the final norm"
    assert HiddenStates(STATES, LAST, tap=several).read_name.startswith("blocks 1, 3 of 3, before")
    assert HiddenStates(STATES, STATES[-1]).read_name == "block 3 of 3; there is no final norm"


def test_a_final_norm_on_an_earlier_block_is_refused() -> None:
    with pytest.raises(ValueError, match="final norm"):
        Tap((1,))


def test_blocks_behind_the_last_one_read_are_left_out(sdxl_folder: Path, sd15_folder: Path) -> None:
    for encoder in open_encoders(str(sdxl_folder)):
        assert len(encoder.blocks) == 2
        assert read_blocks(encoder) == encoder.blocks[:1]
    (whole,) = open_encoders(str(sd15_folder))
    assert read_blocks(whole) == whole.blocks
