from pathlib import Path

from PIL import Image


def test_every_concept_is_listed_with_its_word_its_split_and_five_images(run_json):
    listed = run_json("concepts")
    assert len(listed) >= 12
    assert [one["split"] for one in listed].count("tuning") == 4
    for one in listed:
        assert one["initialiser"]
        assert len(one["images"]) == 5
        for path in one["images"]:
            with Image.open(Path(path)) as picture:
                assert picture.size == (64, 64)


def test_the_table_names_each_concept_and_where_its_images_are(run, run_json):
    shown = run("concepts").stdout
    assert all(one["name"] in shown for one in run_json("concepts"))
    assert "reference images:" in shown
