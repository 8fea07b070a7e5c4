import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dti_geom.errors import ModelFilesError
from dti_geom.models.loading import check_readable, import_transformers
from image_models import build_clip


def test_an_old_transformers_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    monkeypatch.setattr(transformers, "__version__", "4.57.1")
    with pytest.raises(
        ModelFilesError, match=r"transformers 4\.57\.1 is installed; 5\.0 or newer is needed"
    ):
        import_transformers()


@pytest.mark.parametrize("folder", ["", "tokenizer/"])
def test_a_tokenizer_that_only_sentencepiece_reads_asks_for_it(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    files = [f"{folder}spiece.model", f"{folder}tokenizer_config.json"]
    with pytest.raises(ModelFilesError, match="pip install sentencepiece"):
        check_readable(files)
    check_readable([*files, f"{folder}tokenizer.json"])
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: object())
    check_readable(files)


OPEN = """
import sys
import torch
import dti_geom
from dti_geom.errors import DtiGeomError
from dti_geom.models.image_encoders import open_image_text_encoder

def opened(name, read):
    try:
        read()
    except DtiGeomError as error:
        print(name, "refused:", error)
    else:
        print(name, "opened")

pipeline, alone, stranger, images = sys.argv[1:]
opened("pipeline", lambda: dti_geom.open_text_to_image(pipeline, dtype=torch.float32))
opened("tokenizer", lambda: dti_geom.open_encoders(pipeline)[0].tokenizer)
opened("module", lambda: dti_geom.open_encoders(pipeline)[0].module)
opened("encoder", lambda: dti_geom.open_encoders(alone)[0].module)
opened("encoder's tokenizer", lambda: dti_geom.open_encoders(alone)[0].tokenizer)
opened("unknown type", lambda: dti_geom.open_encoders(stranger)[0].module)
opened("images", lambda: open_image_text_encoder(images)._module)
opened("images' tokenizer", lambda: open_image_text_encoder(images)._tokenizer)
"""
STRANGER = "from pathlib import Path\nPath({canary!r}).touch()\n\n\nclass Stranger:\n    pass\n"


def with_code_of_its_own(folder: Path, canary: Path) -> Path:
    """Let every configuration of a model ask for code that lies beside it."""
    for path in [*folder.rglob("*.json")]:
        if path.name not in ("config.json", "tokenizer_config.json", "scheduler_config.json"):
            continue
        (path.parent / "stranger.py").write_text(STRANGER.format(canary=str(canary)))
        name = "stranger.Stranger"
        classes = dict.fromkeys(("AutoConfig", "AutoModel", "AutoProcessor"), name)
        asked: dict[str, Any] = {"auto_map": classes | {"AutoTokenizer": [name, name]}}
        if path.name == "tokenizer_config.json":
            asked["tokenizer_class"] = "Stranger"
        path.write_text(json.dumps(json.loads(path.read_text()) | asked))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
def test_code_that_comes_with_a_model_is_never_run_and_never_asked_about(
    terminal: bool, sd15_pipeline: Path, single_encoders: dict[str, Path], tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    for name, source in {"pipeline": sd15_pipeline, "alone": single_encoders["llama"]}.items():
        shutil.copytree(source, tmp_path / name)
    shutil.copytree(sd15_pipeline / "tokenizer", tmp_path / "alone", dirs_exist_ok=True)
    (tmp_path / "images").mkdir()
    build_clip(tmp_path / "images")
    shutil.copytree(tmp_path / "alone", tmp_path / "stranger")
    config = json.loads((tmp_path / "stranger" / "config.json").read_text())
    (tmp_path / "stranger" / "config.json").write_text(json.dumps(config | {"model_type": "new"}))
    folders = ("pipeline", "alone", "stranger", "images")
    arguments = [str(with_code_of_its_own(tmp_path / name, canary)) for name in folders]
    ours, theirs = pty.openpty() if terminal else os.pipe()[::-1]
    os.write(ours, b"y\n" * 50)
    with os.fdopen(theirs) as answers:
        got = subprocess.run(
            [sys.executable, "-c", OPEN, *arguments],
            stdin=answers,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    os.close(ours)
    assert got.returncode == 0, got.stderr
    assert not canary.exists()
    assert "[y/N]" not in got.stdout + got.stderr
    said = dict(line.split(" ", 1) for line in got.stdout.splitlines() if " " in line)
    assert said["module"] == "opened"
    assert said["tokenizer"].startswith("refused: ")
    assert "never run" in said["tokenizer"]
    assert said["unknown"].startswith("type refused: ")
