import pytest

from dti_geom.files.encoder_keys import ENCODERS, encoder_key, is_output, key_of


def test_no_spelling_means_two_encoders() -> None:
    spelled: dict[str, set[str]] = {}
    for row in ENCODERS.values():
        for spelling in filter(None, (row.key, row.onetrainer, *row.also)):
            spelled.setdefault(spelling, set()).add(row.key)
    assert all(len(keys) == 1 for keys in spelled.values())
    assert {encoder_key(spelling) for spelling in spelled} == set(ENCODERS)


@pytest.mark.parametrize(
    ("tower", "width", "key"),
    [
        (None, 768, "clip_l"),
        (None, 1024, "clip_h"),
        ("text_encoder", 1024, "clip_h"),
        ("1", 2304, "gemma2_2b"),
        (None, 7, "clip_l"),
        (None, 4096, "t5xxl"),
        ("text_encoder", 4096, "t5xxl"),
        ("1", 2560, "qwen3_4b"),
        ("2", 1280, "clip_g"),
        ("text_encoder_2", 4096, "t5xxl"),
        ("text_encoder_3", 4096, "t5xxl"),
        ("t5", 4096, "t5xxl"),
        ("text_encoders_1", 1280, "clip_g"),
        ("siglip", 768, None),
    ],
)
def test_a_tower_is_known_by_its_name_or_else_by_its_width(
    tower: str | None, width: int, key: str | None
) -> None:
    assert key_of(tower, width) == key


def test_only_the_outputs_of_known_encoders_are_outputs() -> None:
    assert is_output("t5_out")
    assert is_output("clip_l_out")
    assert not is_output("way_out")
    assert not is_output("clip_l")
