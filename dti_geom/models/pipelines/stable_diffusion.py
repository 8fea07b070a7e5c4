"""Stable Diffusion 1.x and 2.x: one CLIP tower, ε- or v-prediction."""

from torch import Tensor

from dti_geom.models.pipelines.base import Conditioning, TextToImage, at_least_float32


class StableDiffusion(TextToImage):
    """Stable Diffusion 1.x and 2.x."""

    unprompted_first = True

    def encode_text(self, prompts: list[str]) -> Conditioning:
        """Return `states`, (n, 77, d): the tower's output after its final norm."""
        states, _ = self.pipeline.encode_prompt(prompts, self.device, 1, False)
        return {"states": states}

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the UNet's prediction in float32."""
        answer = self.denoiser(noisy.to(self.dtype), t, conditioning["states"], return_dict=False)
        return at_least_float32(answer[0])
