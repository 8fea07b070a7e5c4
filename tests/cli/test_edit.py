from pathlib import Path

import torch

from dti_geom.files import read_embeddings
from warm import Run, RunJson


def test_vectors_are_selected_and_written_in_the_files_layout(run: Run, tmp_path: Path) -> None:
    rows = torch.randn(4, 8)
    torch.save({"string_to_param": {"*": rows}, "name": "doll"}, tmp_path / "doll.pt")
    done = run("edit", "doll.pt", "--select", "2,0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (token,) = read_embeddings(tmp_path / "edited" / "doll.pt").tokens
    assert torch.equal(token.vectors, rows[[2, 0]])
    assert run("edit", "doll.pt", "--select", "x", cwd=tmp_path).returncode == 1


def test_several_tokens_are_joined_only_where_that_is_asked(run: Run, tmp_path: Path) -> None:
    for name in ("a", "b"):
        torch.save({f"<{name}>": torch.randn(2, 8)}, tmp_path / f"{name}.bin")
    done = run("edit", "a.bin", "b.bin", "--average", cwd=tmp_path)
    assert "--concatenate" in done.stderr
    done = run("edit", "a.bin", "b.bin", "--concatenate", "--token", "<c>", cwd=tmp_path)
    assert "<c>: 4 vectors" in done.stdout


def test_similarity_lists_the_nearest_and_json_has_the_matrix(
    run: Run, run_json: RunJson, tmp_path: Path
) -> None:
    for place, name in enumerate("ab"):
        torch.save({f"<{name}>": torch.eye(8)[place]}, tmp_path / f"{name}.bin")
    assert "Cosines" in run("similarity", ".", cwd=tmp_path).stdout
    (group,) = run_json("similarity", tmp_path)["groups"]
    assert group["cosines"] == [[1, 0], [0, 1]]
