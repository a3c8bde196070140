"""What a deployment asks of a card's arithmetic, looked at before anything is loaded. Free of torch."""

from __future__ import annotations

from liveavatar_core.deployment import Deployment
from liveavatar_core.errors import InvalidRecipe
from liveavatar_core.hardware.cards import Card

FLOAT8_PRODUCTS = (8, 9)
"""The first compute capability whose tensor cores multiply float8: Ada; Hopper has 9.0."""
BFLOAT16 = (8, 0)
"""The first with bfloat16 units, and with kernels of flash attention: Ampere."""
WITHOUT_FLOAT8 = "give fp8_multiply False, which keeps weights in float8, or int8 in place of fp8"


def check_described(deployment: Deployment, card: Card) -> None:
    """Refuse what a card does not have by its data sheet, before a process starts. Raises InvalidRecipe."""
    if deployment.fp8 and deployment.fp8_multiply and card.fp8_tflops is None:
        raise InvalidRecipe(f"{card.driver_name} does not multiply float8; Ada and newer do", WITHOUT_FLOAT8)


def check_card(deployment: Deployment, capability: tuple[int, int]) -> None:
    """Refuse what a card of that compute capability cannot compute. Raises InvalidRecipe."""
    here = "compute capability {}.{}".format(*capability)
    if deployment.compute_dtype == "bfloat16" and capability < BFLOAT16:
        raise InvalidRecipe(f"this card has {here}; bfloat16 takes 8.0 (Ampere) or newer", "take a newer card")
    if not (deployment.fp8 and deployment.fp8_multiply):
        return
    if capability < FLOAT8_PRODUCTS:
        raise InvalidRecipe(f"this card has {here}; multiplying float8 takes 8.9 (Ada) or newer", WITHOUT_FLOAT8)
    if deployment.compute_dtype == "float32":
        raise InvalidRecipe(
            "fp8 with compute_dtype float32: cards multiply float8 into 16 bits alone",
            "compute in bfloat16, or give fp8_multiply False",
        )
