"""What a deployment asks of a card's arithmetic, looked at before anything is loaded. Free of torch."""

from __future__ import annotations

from importlib.util import find_spec

from liveavatar_core.deployment import Deployment
from liveavatar_core.errors import InvalidRecipe
from liveavatar_core.hardware.cards import Card

FLOAT8_PRODUCTS = (8, 9)
"""The first compute capability whose tensor cores multiply float8: Ada; Hopper has 9.0."""
HOPPER = 9
"""The compute capability, before the point, that FlashAttention 3 has kernels for."""
BFLOAT16 = (8, 0)
"""The first with bfloat16 units, and with kernels of flash attention: Ampere."""
FLASH3 = "flash_attn_interface"
"""The module that FlashAttention 3 installs."""
WITHOUT_FLOAT8 = "give fp8_multiply False, which keeps weights in float8, or int8 in place of fp8"


def check_described(deployment: Deployment, card: Card) -> None:
    """Refuse what a card does not have by its data sheet, before a process starts. Raises InvalidRecipe."""
    if deployment.fp8 and deployment.fp8_multiply and card.fp8_tflops is None:
        raise InvalidRecipe(f"{card.driver_name} does not multiply float8; Ada and newer do", WITHOUT_FLOAT8)
    if deployment.attention == "flash3":
        _check_flash3(card.driver_name, on_hopper=card.architecture == "hopper")


def _check_flash3(card: str, *, on_hopper: bool) -> None:
    """Refuse FlashAttention 3 where it has no kernels, or is not installed."""
    if not on_hopper:
        raise InvalidRecipe(
            f"attention flash3 is FlashAttention 3, which is made for Hopper; {card} is not", "give attention flash"
        )
    if find_spec(FLASH3) is None:
        raise InvalidRecipe(
            f"attention flash3 takes FlashAttention 3, and there is no module {FLASH3} here",
            "install it (folder hopper of github.com/Dao-AILab/flash-attention), or give attention flash or cudnn",
        )


def check_card(deployment: Deployment, capability: tuple[int, int]) -> None:
    """Refuse what a card of that compute capability cannot compute. Raises InvalidRecipe."""
    here = "compute capability {}.{}".format(*capability)
    if deployment.compute_dtype == "bfloat16" and capability < BFLOAT16:
        raise InvalidRecipe(f"this card has {here}; bfloat16 takes 8.0 (Ampere) or newer", "take a newer card")
    if deployment.attention == "flash3":
        _check_flash3(f"this card ({here})", on_hopper=capability[0] == HOPPER)
    if not (deployment.fp8 and deployment.fp8_multiply):
        return
    if capability < FLOAT8_PRODUCTS:
        raise InvalidRecipe(f"this card has {here}; multiplying float8 takes 8.9 (Ada) or newer", WITHOUT_FLOAT8)
    if deployment.compute_dtype == "float32":
        raise InvalidRecipe(
            "fp8 with compute_dtype float32: cards multiply float8 into 16 bits alone",
            "compute in bfloat16, or give fp8_multiply False",
        )
