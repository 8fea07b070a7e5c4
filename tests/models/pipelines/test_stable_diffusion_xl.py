from pathlib import Path

import torch

from dti_geom.models.pipelines import View, open_text_to_image

VIEW = View((640, 480), (10, 0), (64, 64))


def test_sdxl_conditioning_has_the_size_and_crop_of_every_image(sdxl_pipeline: Path) -> None:
    model = open_text_to_image(str(sdxl_pipeline), dtype=torch.float32)
    conditioning = model.encode_prompts(["a dog"], [VIEW])
    assert conditioning["time_ids"].tolist() == [[640, 480, 10, 0, 64, 64]]
    pipeline_ids = model.pipeline._get_add_time_ids(
        (640, 480), (10, 0), (64, 64), torch.float32, conditioning["pooled"].shape[1]
    )
    assert torch.equal(conditioning["time_ids"], pipeline_ids)


def test_sizes_that_bfloat16_cannot_hold_are_exact(sdxl_pipeline: Path) -> None:
    model = open_text_to_image(str(sdxl_pipeline), dtype=torch.bfloat16)
    conditioning = model.encode_prompts(["a dog"], [View((1023, 3001), (1, 0), (64, 64))])
    assert conditioning["time_ids"].tolist() == [[1023, 3001, 1, 0, 64, 64]]
    prediction = model.predict(torch.randn(1, 4, 8, 8), torch.tensor([3]), conditioning)
    assert prediction.dtype == torch.float32
    assert prediction.isfinite().all()
