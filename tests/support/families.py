"""Every family of open_clip's ViTs as a small configuration, and a tokenizer without files.

Named models where they are small; otherwise the same keys with fewer layers or less width.
"""

import sys
from operator import itemgetter
from types import SimpleNamespace

import torch

WORDS = 100
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}


HF_TEXT = TEXT | {"vocab_size": WORDS, "hf_tokenizer_name": "some/tokenizer"}
SIGLIP_TEXT = HF_TEXT | {
    "context_length": 24,
    "tokenizer_kwargs": {"clean": "canonicalize"},
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
    "norm_kwargs": {"eps": 1e-6},
    "act_kwargs": {"approximate": "tanh"},
}
BOTH_WAYS = TEXT | {"no_causal_mask": True}
CLIPA_TEXT = HF_TEXT | {"pool_type": "last", "no_causal_mask": True}
CLIPA_VIT = {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True}
CUSTOM_VIT = {"qk_norm": True, "scale_attn": True}


VIT = {"image_size": 32, "layers": 3, "width": 64, "head_width": 16, "patch_size": 8}


def timm(name, size, pool, proj=None, text=TEXT, embed_dim=32):
    vision = {"timm_model_name": name, "image_size": size, "timm_pool": pool, "timm_proj": proj}
    config = {"embed_dim": embed_dim, "vision_cfg": vision, "text_cfg": text, "custom_text": True}
    return config | ({"init_logit_bias": -10} if text is SIGLIP_TEXT else {})


def native(vision=None, text=None, **more):
    config = {"embed_dim": 32, "vision_cfg": VIT | (vision or {}), "text_cfg": TEXT | (text or {})}
    return config | more


SIGLIP = timm("vit_base_patch32_siglip_256", 256, "map", "none", SIGLIP_TEXT, embed_dim=768)
#: Configuration or open_clip's name, own image size, another, tokens before the patches.
FAMILIES = {
    "OpenAI": (native(), 32, 48, 1),
    "MetaCLIP": (native(quick_gelu=True), 32, 48, 1),
    "worldwide": (native(text=HF_TEXT | {"pool_type": "eos", "eos_id": 2}), 32, 24, 1),
    "CLIPA": (native(CLIPA_VIT, CLIPA_TEXT), 32, 40, 1),
    "average pool": (
        native({"pool_type": "avg", "pos_embed_type": "sin_cos_2d"}, {"proj_bias": True}),
        32,
        48,
        1,
    ),
    "attentional pool": (native({"attentional_pool": True, "output_tokens": True}), 32, 48, 1),
    "custom blocks": (native(CUSTOM_VIT, BOTH_WAYS | {"pool_type": "first"}), 32, 48, 1),
    "small ViT": ("ViT-S-32-alt", 224, 96, 1),
    "SigLIP2": (SIGLIP, 256, 160, 0),
    "PE-Core": ("PE-Core-T-16-384", 384, 128, 1),
    "EVA02": (timm("eva02_base_patch16_clip_224", 224, "token"), 224, 96, 1),
    "MobileCLIP-B": (timm("vit_base_mci_224", 224, "token"), 224, 96, 1),
    "ViTamin": (timm("vitamin_small_224", 224, "", "linear"), 224, 96, 0),
    "timm, average": (timm("vit_medium_patch16_gap_256", 256, "", "linear"), 256, 96, 0),
    "timm, relative": (timm("vit_relpos_medium_patch16_cls_224", 224, "", "linear"), 224, 96, 1),
    "timm, class token": (timm("test_vit", 160, "token", text=BOTH_WAYS), 160, 96, 1),
    "timm, register, map": (timm("test_vit3", 160, "map"), 160, 96, 1),
    "timm, register, mlp": (timm("test_vit2", 160, "avg", "mlp"), 160, 96, 1),
}


class Words:
    """A stand-in for a tokenizer of `transformers`: one id a word, an end token, padding."""

    end, pad = 2, 0

    def __call__(self, texts, max_length=None, add_special_tokens=True, **settings):
        rows = [texts] if isinstance(texts, str) else texts
        ids = [[3 + sum(map(ord, word)) % (WORDS - 3) for word in row.split()] for row in rows]
        if add_special_tokens:
            ids = [[*row, self.end] for row in ids]
        if settings.get("truncation"):
            ids = [row[: max_length - 1] + row[max_length - 1 :][-1:] for row in ids]
        if settings.get("padding"):
            ids = torch.tensor([row + [self.pad] * (max_length - len(row)) for row in ids])
        return Encoding(input_ids=ids[0] if isinstance(texts, str) else ids)

    def get_vocab(self):
        return {f"word {number}": number for number in range(WORDS)}


class Encoding(dict):
    """As in `transformers`, `input_ids` is an item and an attribute."""

    input_ids = property(itemgetter("input_ids"))


def give_tokenizer(monkeypatch, get):
    """Let open_clip's HFTokenizer get what `get(name)` returns."""
    auto = SimpleNamespace(from_pretrained=lambda name, **settings: get(name))
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(AutoTokenizer=auto))


def shake(backbone):
    """Move every parameter, so that none is the zero or one that initialisation left."""
    generator = torch.Generator().manual_seed(1)
    for parameter in backbone.model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    return backbone
