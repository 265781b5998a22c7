"""Each family's real folder format with tiny random weights: what tests of pretrained bases open.

    folder = tiny_bases.FAMILIES["sd"](tmp_path / "sd")
"""

import re
from collections.abc import Callable
from pathlib import Path

import diffusers
import torch
import transformers

SIDE = 32       # pixels of a tiny base's image
RECIPE = """
kind = "finetune"
base = "{base}"
image_size = {side}
seed = 3
threads = 1
[data]
collections = ["{collection}"]
[model]
name = "taught"
steps = 3
sampler = "euler"
[method]
train = "{method}"
rank = 4
[cache]
variants = 2
captions = 2
shard = 16
[tune]
n_images = 24
batch = 4
learning_rate = 1e-2
warmup = 1
watched = 4
gap = 100.0
log_images = 12
"""
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789-,."
SENTENCES = ["chest x-ray with pneumonia, frontal view", "brain mri, axial, with a glioma", "fundus photograph, no retinopathy",
             "dermoscopy of a benign nevus", "breast ultrasound with a malignant mass"]


def clip_tokenizer() -> transformers.CLIPTokenizer:
    """Byte pairs with CLIP's word ends: each word of the sentences is put together from its beginning."""
    merges: dict[tuple[str, str], None] = {}
    for word in sorted({word for sentence in SENTENCES for word in re.findall("[a-z]+", sentence)}):
        letters = [*word[:-1], word[-1] + "</w>"]
        merges |= {("".join(letters[:k]), letters[k]): None for k in range(1, len(letters))}
    pieces = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{letter}</w>" for letter in LETTERS), *map("".join, merges)]
    vocabulary = {piece: k for k, piece in enumerate(dict.fromkeys(pieces))}
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=list(merges), model_max_length=77)


def t5_tokenizer() -> transformers.T5Tokenizer:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    words = sorted({word for sentence in SENTENCES for word in sentence.split()})
    pieces += [(f"▁{word}", -3.0) for word in words] + [(letter, -6.0) for letter in LETTERS]
    return transformers.T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def gemma_tokenizer() -> transformers.GemmaTokenizer:
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *LETTERS]
    return transformers.GemmaTokenizer(vocab={name: k for k, name in enumerate(names)}, merges=[], model_max_length=512,
                                       add_bos_token=True)


def clip_text(width: int = 16, projection: int | None = None, seed: int = 0) -> transformers.PreTrainedModel:
    torch.manual_seed(seed)
    config = transformers.CLIPTextConfig(vocab_size=400, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
                                         num_attention_heads=2, projection_dim=projection or width, bos_token_id=0,
                                         eos_token_id=1, pad_token_id=1)
    kind = transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel
    return kind(config).eval()


def t5(width: int = 16) -> transformers.T5EncoderModel:
    torch.manual_seed(7)
    config = transformers.T5Config(vocab_size=120, d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
                                   is_encoder_decoder=False, use_cache=False)
    return transformers.T5EncoderModel(config).eval()


def gemma(width: int = 16) -> transformers.Gemma2Model:
    torch.manual_seed(8)
    return transformers.Gemma2Model(transformers.Gemma2Config(
        vocab_size=400, hidden_size=width, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, pad_token_id=0, eos_token_id=1, bos_token_id=2)).eval()


def vae(latent: int = 4, colours: int = 3, **more: object) -> diffusers.AutoencoderKL:
    torch.manual_seed(3)
    return diffusers.AutoencoderKL(
        in_channels=colours, out_channels=colours, latent_channels=latent, block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1, sample_size=SIDE, **more).eval()


def unet(width: int = 16, **more: object) -> diffusers.UNet2DConditionModel:
    torch.manual_seed(4)
    return diffusers.UNet2DConditionModel(
        sample_size=SIDE // 2, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=width, **({"attention_head_dim": 4} | more)).eval()


def sd_scheduler(**more: object) -> diffusers.SchedulerMixin:
    """Stable Diffusion 1.5's noise."""
    settings = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1,
                "timestep_spacing": "leading"}
    return diffusers.EulerDiscreteScheduler(**(settings | more))


def sd(folder: Path, scheduler: object = None, colours: int = 3) -> Path:
    pipe = diffusers.StableDiffusionPipeline(
        vae(colours=colours), clip_text(), clip_tokenizer(), unet(), scheduler or sd_scheduler(), None, None,
        requires_safety_checker=False)
    return saved(pipe, folder)


def sd_v(folder: Path) -> Path:
    """Stable Diffusion 2.1's kind: v-prediction, here at trailing steps."""
    return sd(folder, sd_scheduler(prediction_type="v_prediction", timestep_spacing="trailing"))


def sdxl(folder: Path) -> Path:
    network = unet(32, addition_embed_type="text_time", addition_time_embed_dim=4, transformer_layers_per_block=(1, 2),
                   projection_class_embeddings_input_dim=6 * 4 + 12, attention_head_dim=(2, 4))
    pipe = diffusers.StableDiffusionXLPipeline(
        vae(latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.1, 0.9, 1.3, 1.0]), clip_text(),
        clip_text(projection=12, seed=1), clip_tokenizer(), clip_tokenizer(), network, sd_scheduler(), add_watermarker=False)
    return saved(pipe, folder)


def sd3(folder: Path) -> Path:
    torch.manual_seed(5)
    network = diffusers.SD3Transformer2DModel(
        sample_size=SIDE // 2, patch_size=2, in_channels=8, num_layers=2, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=40, caption_projection_dim=16, pooled_projection_dim=24, out_channels=8,
        pos_embed_max_size=32, dual_attention_layers=(0,), qk_norm="rms_norm").eval()
    pipe = diffusers.StableDiffusion3Pipeline(
        network, diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), vae(8, shift_factor=0.06, scaling_factor=1.5),
        clip_text(projection=12), clip_tokenizer(), clip_text(projection=12, seed=1), clip_tokenizer(), t5(40), t5_tokenizer())
    return saved(pipe, folder)


def flux(folder: Path, guidance: bool = True) -> Path:
    torch.manual_seed(5)
    network = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=16, guidance_embeds=guidance, axes_dims_rope=(4, 6, 6)).eval()
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    pipe = diffusers.FluxPipeline(scheduler, vae(4, shift_factor=0.11, scaling_factor=0.36), clip_text(), clip_tokenizer(), t5(),
                                  t5_tokenizer(), network)
    return saved(pipe, folder)


def sana(folder: Path, scheduler: object = None) -> Path:
    torch.manual_seed(5)
    network = diffusers.SanaTransformer2DModel(
        in_channels=4, out_channels=4, num_layers=1, num_attention_heads=2, attention_head_dim=8,
        num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16, caption_channels=16,
        sample_size=SIDE // 4, patch_size=1).eval()
    coder = diffusers.AutoencoderDC(
        in_channels=3, latent_channels=4, attention_head_dim=2, encoder_block_types=("ResBlock",) * 3,
        decoder_block_types=("ResBlock",) * 3, encoder_block_out_channels=(8, 8, 8), decoder_block_out_channels=(8, 8, 8),
        encoder_qkv_multiscales=((), (), ()), decoder_qkv_multiscales=((), (), ()), encoder_layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1), downsample_block_type="conv", upsample_block_type="interpolate",
        decoder_norm_types="rms_norm", decoder_act_fns="silu", scaling_factor=0.41).eval()
    scheduler = scheduler or diffusers.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    return saved(diffusers.SanaPipeline(gemma_tokenizer(), gemma(), coder, network, scheduler), folder)


def pixart(folder: Path, kind: type = diffusers.PixArtSigmaPipeline, cells: int = SIDE // 2) -> Path:
    """PixArt-Sigma, or Alpha; Alpha's of 128 cells a side is told the image's size too."""
    torch.manual_seed(5)
    network = diffusers.PixArtTransformer2DModel(
        sample_size=cells, patch_size=2, in_channels=4, out_channels=8, num_layers=1, num_attention_heads=2,
        attention_head_dim=12, cross_attention_dim=24, caption_channels=16, norm_type="ada_norm_single",
        use_additional_conditions=cells == 128 and kind is diffusers.PixArtAlphaPipeline).eval()
    scheduler = diffusers.DPMSolverMultistepScheduler(beta_start=0.0001, beta_end=0.02, beta_schedule="linear")
    return saved(kind(t5_tokenizer(), t5(), vae(), network, scheduler), folder)


def bert(folder: Path, width: int = 24) -> Path:
    """A BERT-like encoder as BioLORD's: no part of any pipeline."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces += sorted({word for s in SENTENCES for word in s.replace(",", "").split()} | set(LETTERS)) + [f"##{c}" for c in LETTERS]
    torch.manual_seed(6)
    config = transformers.BertConfig(vocab_size=len(pieces), hidden_size=width, num_hidden_layers=2, num_attention_heads=2,
                                     intermediate_size=32, max_position_embeddings=64)
    transformers.BertModel(config).save_pretrained(folder)
    transformers.BertTokenizer(vocab={p: k for k, p in enumerate(pieces)}, model_max_length=64).save_pretrained(folder)
    return Path(folder)


@torch.no_grad()
def saved(pipe: diffusers.DiffusionPipeline, folder: Path) -> Path:
    """Written with every weight a little off: many networks begin with zeros, which would hide what they are told."""
    generator = torch.Generator().manual_seed(9)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            for weight in part.parameters():
                weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    pipe.save_pretrained(folder, safe_serialization=True)
    return Path(folder)


FAMILIES: dict[str, Callable[[Path], Path]] = {
    "sd": sd, "sd_v": sd_v, "sdxl": sdxl, "sd3": sd3, "flux": flux, "sana": sana, "pixart": pixart,
}
