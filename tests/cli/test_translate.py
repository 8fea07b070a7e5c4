from pathlib import Path

import torch

from dti_geom.files import read_embeddings
from warm import Run


def test_a_token_is_translated_and_the_held_out_words_are_shown(run: Run, tmp_path: Path) -> None:
    torch.save({"<x>": torch.randn(2, 256)}, tmp_path / "x.bin")
    done = run("translate", "x.bin", "--target", "mini", "--out", "new", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Held-out words" in done.stdout
    (token,) = read_embeddings(tmp_path / "new" / "learned_embeds.safetensors").tokens
    assert token.vectors.shape == (2, 256)


def test_what_cannot_be_translated_is_one_line(run: Run, sd15_folder: Path, tmp_path: Path) -> None:
    torch.save({"<x>": torch.randn(1, 256)}, tmp_path / "x.bin")
    done = run("translate", "x.bin", "--target", sd15_folder, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "share" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
