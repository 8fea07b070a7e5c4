"""The lines in docs/ do what they say."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dti_geom.models.pipelines import View, open_text_to_image
from pipelines import FAMILIES, library

DOCS = Path(__file__).parents[1] / "docs"
LOADING = (DOCS / "loading.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", LOADING, re.DOTALL)
VIEW = View((64, 64), (0, 0), (64, 64))


def block_for(pipeline_class: str) -> str:
    """Return the lines that open a pipeline of this class."""
    blocks: list[str] = [block for block in BLOCKS if f"= {pipeline_class}.from" in block]
    (block,) = blocks
    return block


def run_block(pipeline_class: str, model: Path, run: Path) -> dict[str, Any]:
    """Run those lines with another model and another run. Returns what they define."""
    code = block_for(pipeline_class).replace("runs/dog", str(run))
    scope: dict[str, Any] = {}
    exec(re.sub(r'(from_pretrained)\("[^"]*"\)', rf'\1("{model}")', code), scope)  # noqa: S102
    return scope


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_lines_for_diffusers_encode_prompts_as_training_does(
    pipeline_folder: Callable[[str], Path], tmp_path: Path, name: str, count: int
) -> None:
    folder = pipeline_folder(name)
    model = open_text_to_image(str(folder), dtype=torch.float32)
    vectors = []
    for number, tower in enumerate(model.towers, 1):
        width = tower.token_table.shape[1]
        rows = torch.randn(count, width, generator=torch.Generator().manual_seed(number))
        file = "learned_embeds.safetensors" if number == 1 else "learned_embeds_2.safetensors"
        save_file({"<my-dog>": rows}, tmp_path / file)
        vectors.append(rows)
    model.place("<my-dog>", vectors)
    scope = run_block(FAMILIES[name].pipeline_class, folder, tmp_path)
    loaded = type(model)(scope["pipe"], name)
    expected = model.encode_prompts(["a photo of a <my-dog>"], [VIEW])
    found = loaded.encode_prompts([scope["prompt"]], [VIEW])
    assert set(found) == set(expected)
    for part, value in expected.items():
        torch.testing.assert_close(found[part], value)


def test_the_lines_for_sana_keep_every_row_of_a_table_with_spare_rows(
    sana_pipeline: Path, tmp_path: Path
) -> None:
    pipeline = library("diffusers").SanaPipeline.from_pretrained(sana_pipeline)
    rows = len(pipeline.tokenizer) + 8
    pipeline.text_encoder.resize_token_embeddings(rows, mean_resizing=False)
    pipeline.save_pretrained(tmp_path / "wide")
    save_file({"<my-dog>": torch.ones(1, 32)}, tmp_path / "learned_embeds.safetensors")
    loaded = run_block("SanaPipeline", tmp_path / "wide", tmp_path)["pipe"]
    table = loaded.text_encoder.get_input_embeddings().weight
    assert len(table) == rows
    new = loaded.tokenizer.convert_tokens_to_ids("<my-dog>")
    assert torch.equal(table[new], torch.ones(32))
    before = pipeline.text_encoder.get_input_embeddings().weight
    kept = torch.arange(rows) != new
    assert torch.equal(table[kept], before[kept])
