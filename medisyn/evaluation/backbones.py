"""Backbones: trunks of optional libraries, (image (B, 3, H, W) in [-1, 1]) -> (B, D), imported only where asked for."""

from torch import Tensor, nn


def from_timm(name: str) -> tuple[nn.Module, int]:
    """A network of timm, untrained: every arm starts from the same nothing."""
    import timm
    made = timm.create_model(name, pretrained=False, num_classes=0, in_chans=3)
    return made, made.num_features


def from_transformers(folder: str) -> tuple[nn.Module, int]:
    """A vision model of transformers from a local folder, with its weights."""
    from transformers import AutoModel

    class Pooled(nn.Module):
        def __init__(self, model: nn.Module):
            super().__init__()
            self.model = model

        def forward(self, image: Tensor) -> Tensor:
            return self.model(pixel_values=image).last_hidden_state.mean(1)

    model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    return Pooled(model), model.config.hidden_size


BACKBONES = {"timm": from_timm, "transformers": from_transformers}
