"""Portrait, voice and prompt to a stream of frames: encode, prefill, denoise, decode.

The original has two pipelines that differ. Which one a recipe is: `timestep_pipeline` and quirks
(config.ORIGINAL_SINGLE, config.ORIGINAL_TIMESTEP); the defaults are neither, but better.
"""

from liveavatar_core.pipeline.avatar import Avatar, byte_tokenizer, load_avatar, open_avatar
from liveavatar_core.pipeline.types import Conditioning, FrameBlock, Inputs, LatentBlock, LatentWatch, NoiseSource

__all__ = [
    "Avatar",
    "Conditioning",
    "FrameBlock",
    "Inputs",
    "LatentBlock",
    "LatentWatch",
    "NoiseSource",
    "byte_tokenizer",
    "load_avatar",
    "open_avatar",
]
