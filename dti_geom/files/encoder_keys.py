"""Names of text encoders in embedding files: what each tool calls an encoder, and its width.

One table, for reading and for writing. A tool finds the vectors of an encoder by its key; a key it
does not know makes it skip the file, or take another encoder's vectors.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class EncoderKey:
    """One text encoder, by the key that ComfyUI looks for."""

    key: str
    encoder: str
    width: int  # of its token table
    models: str
    onetrainer: str = ""  # the key that OneTrainer writes; empty: it trains no embedding for it
    also: tuple[str, ...] = ()  # spellings of other tools


ENCODERS: dict[str, EncoderKey] = {
    row.key: row
    for row in (
        EncoderKey(
            "clip_l",
            "CLIP ViT-L/14",
            768,
            "SD 1.x, SDXL, SD 3, FLUX.1, HiDream",
            onetrainer="clip_l",
            also=("text_encoders_0", "emb"),
        ),
        EncoderKey(
            "clip_g",
            "OpenCLIP ViT-bigG/14",
            1280,
            "SDXL, SD 3, HiDream",
            onetrainer="clip_g",
            also=("text_encoders_1", "emb2"),
        ),
        EncoderKey("clip_h", "OpenCLIP ViT-H/14", 1024, "SD 2.x"),
        EncoderKey("t5xxl", "T5-XXL", 4096, "SD 3, FLUX.1, Chroma, HiDream", onetrainer="t5"),
        EncoderKey("umt5xxl", "UMT5-XXL", 4096, "Wan 2.x"),
        EncoderKey("gemma2_2b", "Gemma-2-2B", 2304, "SANA, Lumina 2", onetrainer="gemma"),
        EncoderKey("gemma3_4b", "Gemma-3-4B", 2560, "variants of Lumina 2"),
        EncoderKey("llama", "Llama-3-8B", 4096, "HunyuanVideo, HiDream", onetrainer="llama"),
        EncoderKey("qwen25_3b", "Qwen2.5-3B", 2048, "OmniGen 2"),
        EncoderKey("qwen25_7b", "Qwen2.5-VL-7B", 3584, "Qwen-Image, HunyuanImage"),
        EncoderKey("qwen3_06b", "Qwen3-0.6B", 1024, "Anima"),
        EncoderKey("qwen3_2b", "Qwen3-2B", 2048, "Ovis-Image"),
        EncoderKey("qwen3_4b", "Qwen3-4B", 2560, "Z-Image, FLUX.2 klein"),
        EncoderKey("qwen3_8b", "Qwen3-8B", 4096, "FLUX.2 klein 9B"),
    )
}
# OneTrainer can train a second vector that is added behind the encoder. It is no token.
OUTPUT = "_out"
# Widths that one encoder has, or one far more often than others: for files that name no encoder.
_BY_WIDTH = {
    768: "clip_l",
    1024: "clip_h",
    1280: "clip_g",
    2304: "gemma2_2b",
    2560: "qwen3_4b",
    3584: "qwen25_7b",
    4096: "t5xxl",
}
_SPELLINGS = {
    spelling: row.key
    for row in ENCODERS.values()
    for spelling in (row.key, row.onetrainer, *row.also)
    if spelling
}


def encoder_key(spelling: str) -> str | None:
    """Return the key in ENCODERS of a tool's spelling, such as `t5` or `text_encoders_0`."""
    return _SPELLINGS.get(spelling)


def is_output(key: str) -> bool:
    """Return whether a key names vectors that are added to an encoder's output."""
    return key.endswith(OUTPUT) and encoder_key(key.removesuffix(OUTPUT)) is not None


def key_of(tower: str | None, width: int) -> str | None:
    """Return the key in ENCODERS for vectors of a tower, as a file or a model names it.

    None and the first of several go by the width, then to the first encoder of SD and SDXL; the
    second is that of SDXL, or T5 where it is as wide (FLUX.1); the third is T5 (SD3). Returns None
    for a tower that is not in the table.
    """
    if tower in (None, "1", "text_encoder"):
        return _BY_WIDTH.get(width, "clip_l")
    if tower in ("2", "text_encoder_2"):
        return "t5xxl" if width == ENCODERS["t5xxl"].width else "clip_g"
    if tower in ("3", "text_encoder_3"):
        return "t5xxl"
    return encoder_key(tower)
