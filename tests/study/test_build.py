import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dti_geom.errors import FileExists, StudyError
from dti_geom.study import build_study, read_material, read_study
from dti_geom.study.build import BuiltStudy, Material
from dti_geom.study.design import Study
from studies import METHODS, write_evaluation


def content_of(page: str | Path) -> Any:
    text = Path(page).read_text(encoding="utf-8")
    (found,) = re.findall(r'<script type="application/json" id="content">(.*?)</script>', text)
    return json.loads(found)


def methods_by_picture(study: Study) -> dict[str, str]:
    return {
        name: method
        for trial in study.trials
        if not trial.catches
        for name, method in trial.pictures.items()
    }


def traces(path: Path, place: int) -> list[float]:
    """All of a served file that is not what the picture shows."""
    data, state = path.read_bytes(), path.stat()
    with Image.open(path) as picture:
        about = [*picture.size, len(picture.info)]
    head = [int(character, 16) for character in path.stem]
    start = data.index(b"\xff\xda")  # of the picture itself
    return [place, len(data), state.st_mtime, *about, *head, *data[:start], *data[-48:]]


def guessed(features: list[list[float]], labels: list[str]) -> float:
    """How often a classifier is right about files it has not seen."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import cross_val_score

    forest = RandomForestClassifier(40, random_state=0)
    return float(cross_val_score(forest, features, labels, cv=4).mean())


def test_names_bytes_sizes_and_order_do_not_tell_the_method(
    built: BuiltStudy, evaluation: Path
) -> None:
    methods = methods_by_picture(read_study(built.folder))
    paths = sorted((Path(built.folder) / "public" / "pictures").iterdir())
    chosen = [(at, path) for at, path in enumerate(paths) if path.stem in methods]
    labels = [methods[path.stem] for _, path in chosen]
    assert guessed([traces(path, at) for at, path in chosen], labels) < 0.45  # chance: 0.333
    # The same classifier knows the originals at once: the test can fail.
    originals = sorted((evaluation / "pictures").iterdir())
    sizes = [[float(path.stat().st_size)] for path in originals]
    assert guessed(sizes, [path.name.split("-")[0] for path in originals]) > 0.9


def test_all_served_files_have_one_length_one_shape_and_no_metadata(built: BuiltStudy) -> None:
    paths = list((Path(built.folder) / "public" / "pictures").iterdir())
    assert len(paths) == built.pictures
    assert len({path.stat().st_size for path in paths}) == 1
    shapes = set()
    for path in paths:
        with Image.open(path) as picture:
            picture.load()
            shapes.add((picture.format, picture.mode, picture.size))
            assert not picture.getexif()
    assert shapes == {("JPEG", "RGB", (32, 32))}  # of the method that painted the smallest


def test_nothing_served_names_a_method_a_file_or_the_seed(
    built: BuiltStudy, evaluation: Path
) -> None:
    key = read_study(built.folder)
    page = Path(built.page).read_text(encoding="utf-8")
    for word in (*METHODS, str(evaluation), "catches", "wrong", str(key.seed)):
        assert not re.search(rf"\b{re.escape(word)}\b", page), word
    content = content_of(built.page)
    assert list(content["pictures"]) == sorted(content["pictures"])
    assert set(content["pictures"]) == set(key.sources)


def test_the_page_shows_each_rater_what_the_key_says(built: BuiltStudy) -> None:
    key, content = read_study(built.folder), content_of(built.page)
    assert [[tuple(screen) for screen in own] for own in content["raters"]] == [
        [(screen.trial, *screen.pictures) for screen in own] for own in key.raters
    ]
    trials = {trial.name: trial for trial in key.trials}
    for name, (subject, words) in content["trials"].items():
        assert words == trials[name].words
        assert tuple(content["references"][subject]) == key.references[trials[name].subject]


def test_the_pictures_show_what_the_methods_painted(built: BuiltStudy, evaluation: Path) -> None:
    key = read_study(built.folder)
    for name in [*methods_by_picture(key)][:5]:
        with (
            Image.open(Path(built.folder) / "public" / "pictures" / f"{name}.jpg") as served,
            Image.open(key.sources[name]) as source,
        ):
            small = np.asarray(source.resize(served.size, Image.Resampling.LANCZOS), float)
            assert np.abs(np.asarray(served, float) - small).mean() < 6


def test_hostile_words_cannot_leave_the_script(material: Material, tmp_path: Path) -> None:
    built = build_study(material, tmp_path, seed=1, raters=2)
    page = Path(built.page).read_text(encoding="utf-8")
    assert "<b>glass" not in page
    assert any("<b>glass</b>" in words for _, words in content_of(built.page)["trials"].values())


def test_one_file_holds_its_pictures(material: Material, tmp_path: Path) -> None:
    built = build_study(material, tmp_path, seed=1, raters=2, one_file=True)
    assert [path.name for path in (tmp_path / "public").iterdir()] == ["index.html"]
    pictures = content_of(built.page)["pictures"].values()
    assert all(address.startswith("data:image/jpeg;base64,") for address in pictures)
    assert len({len(address) for address in pictures}) == 1


def test_every_rater_has_a_link(material: Material, tmp_path: Path) -> None:
    built = build_study(material, tmp_path, seed=1, raters=3, address="https://x.org/s/?a=1")
    with open(Path(built.folder) / "raters.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rater"] for row in rows] == ["1", "2", "3"]
    assert rows[2]["link"] == "https://x.org/s/?a=1&rater=3"


def test_a_study_is_not_overwritten_unasked(material: Material, tmp_path: Path) -> None:
    build_study(material, tmp_path, seed=1, raters=2)
    with pytest.raises(FileExists, match="--overwrite"):
        build_study(material, tmp_path, seed=2, raters=2)
    built = build_study(material, tmp_path, seed=2, raters=2, overwrite=True)
    served = {path.stem for path in (tmp_path / "public" / "pictures").iterdir()}
    assert served == set(read_study(tmp_path).sources)
    assert built.pictures == len(served)


def test_only_cases_that_all_methods_painted_count(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "a", methods=["ti", "dti"], seeds=[0])
    write_evaluation(tmp_path / "b", methods=["other"], subjects=["dog", "vase"], seeds=[0])
    references = tmp_path / "a" / "references"
    both = read_material([tmp_path / "a", tmp_path / "b"], references=references)
    assert {case.subject for case in both.cases} == {"dog", "vase"}
    assert "8 of 16 combinations" in both.notes[0]
    two = read_material(
        [tmp_path / "a", tmp_path / "b"], methods=["dti", "ti"], references=references
    )
    assert len(two.cases) == 16
    assert list(two.cases[0].files) == ["dti", "ti"]


def test_what_cannot_be_used_is_refused_with_advice(tmp_path: Path) -> None:
    write_evaluation(tmp_path, methods=["ti", "dti"])
    with pytest.raises(StudyError, match=r"no evaluation\.json"):
        read_material([tmp_path / "pictures"])
    with pytest.raises(StudyError, match="no method called 'x'"):
        read_material([tmp_path], methods=["x"])
    with pytest.raises(StudyError, match="--references"):
        read_material([tmp_path])
    material = read_material([tmp_path], references=tmp_path / "references")
    Path(material.cases[0].files["dti"]).write_bytes(b"no picture")
    with pytest.raises(StudyError, match="does not open"):
        build_study(material, tmp_path / "study", seed=1, kept=32)
    assert not (tmp_path / "study").exists()
