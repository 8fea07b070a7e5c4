from pathlib import Path

from PIL import Image

from warm import Run, RunJson


def test_every_concept_is_listed_with_its_word_its_split_and_five_images(run_json: RunJson) -> None:
    listed = run_json("concepts")
    assert len(listed) >= 12
    assert [concept["split"] for concept in listed].count("tuning") == 4
    for concept in listed:
        assert concept["initialiser"]
        assert len(concept["images"]) == 5
        for path in concept["images"]:
            with Image.open(Path(path)) as picture:
                assert picture.size == (64, 64)


def test_the_table_names_each_concept_and_where_its_images_are(run: Run, run_json: RunJson) -> None:
    shown = run("concepts").stdout
    assert all(concept["name"] in shown for concept in run_json("concepts"))
    assert "reference images:" in shown
