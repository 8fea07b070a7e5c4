"""Published facts on token tables, to compare a learned embedding with if its model is missing."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedTable:
    """The token table that vectors of one width usually belong to."""

    tower: str
    models: str
    mean_norm: float | None  # over the non-zero rows; None where nobody has published it


# Means: the public notebooks of Directional Textual Inversion (Kim et al., ICLR 2026,
# github.com/kunheek/dti).
PUBLISHED: dict[int, PublishedTable] = {
    768: PublishedTable("CLIP ViT-L/14", "SD 1.x, SDXL tower 1", 0.3870),
    1024: PublishedTable("OpenCLIP ViT-H/14", "SD 2.x", None),
    1280: PublishedTable("OpenCLIP ViT-bigG/14", "SDXL tower 2", 0.4515),
    2304: PublishedTable("Gemma-2-2B", "SANA 1.5", 1.772),
    4096: PublishedTable("T5-XXL or an 8B causal LM", "SD 3, FLUX, others", None),
}
