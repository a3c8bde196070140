"""Prompt -> context: cleaning, tokens, umt5 encoder.

Shapes: B batch (1), L text_len tokens, D width of the encoder.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, UMT5Config, UMT5EncoderModel

from liveavatar_core.encoders.params import TextEncoderParams
from liveavatar_core.errors import CheckpointError, InvalidRecipe

_PAD, _END, _FIRST_BYTE = 0, 1, 3


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """A prompt as the encoder takes it, on the CPU."""

    ids_BL: Tensor
    """int64 token ids, padded or cut to text_len."""
    mask_BL: Tensor
    """bool, True where a token is not padding."""


class Tokenizer(Protocol):
    """Turns a prompt into `Tokens` of a fixed length."""

    def __call__(self, prompt: str) -> Tokens:
        """Clean and tokenise one prompt."""
        ...


def clean(prompt: str) -> str:
    """Mend broken encodings, undo HTML escapes (twice, as in training), join whitespace."""
    import ftfy

    unescaped = html.unescape(html.unescape(ftfy.fix_text(prompt)))
    return re.sub(r"\s+", " ", unescaped).strip()


class PublishedTokenizer:
    """The tokenizer that is published beside the checkpoint (`google/umt5-xxl`)."""

    def __init__(self, directory: Path, text_len: int) -> None:
        """Read from a local folder; nothing is downloaded. Raises CheckpointError if it cannot be read."""
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(str(directory), local_files_only=True)
        except Exception as error:
            raise CheckpointError(
                f"no tokenizer could be read from {directory}: {error}",
                "put the files of google/umt5-xxl (tokenizer.json, spiece.model, ...) there",
            ) from error
        self._text_len = text_len

    def __call__(self, prompt: str) -> Tokens:
        """Clean and tokenise; the end token is kept when the prompt is cut."""
        tokens = self._tokenizer(
            [clean(prompt)],
            padding="max_length",
            truncation=True,
            max_length=self._text_len,
            add_special_tokens=True,
            return_tensors="pt",
        )
        return Tokens(ids_BL=tokens["input_ids"], mask_BL=tokens["attention_mask"].bool())


class ByteTokenizer:
    """A token a UTF-8 byte, then an end token: what small models without a published vocabulary take."""

    def __init__(self, vocab_size: int, text_len: int) -> None:
        """Raises InvalidRecipe if the vocabulary has no room for the 256 bytes."""
        if vocab_size < _FIRST_BYTE + 256:
            raise InvalidRecipe(
                f"vocab_size {vocab_size} is less than the {_FIRST_BYTE + 256} ids of a byte tokenizer",
                f"give the text encoder a vocab_size of {_FIRST_BYTE + 256} or more",
            )
        self._text_len = text_len

    def __call__(self, prompt: str) -> Tokens:
        """Clean and tokenise; the end token is kept when the prompt is cut."""
        ids = [_FIRST_BYTE + byte for byte in clean(prompt).encode()[: self._text_len - 1]]
        ids.append(_END)
        padding = self._text_len - len(ids)
        return Tokens(
            ids_BL=torch.tensor([ids + [_PAD] * padding]),
            mask_BL=torch.tensor([[True] * len(ids) + [False] * padding]),
        )


class TextEncoder(nn.Module):
    """umt5's encoder. Parameter names are those of transformers' UMT5EncoderModel, the embedding once."""

    def __init__(self, params: TextEncoderParams) -> None:
        super().__init__()
        config = UMT5Config(
            vocab_size=params.vocab_size,
            d_model=params.d_model,
            d_kv=params.d_kv,
            d_ff=params.d_ff,
            num_layers=params.num_layers,
            num_heads=params.num_heads,
            feed_forward_proj="gated-gelu",
        )
        self.encoder = UMT5EncoderModel(config).encoder
        self.encoder.set_attn_implementation("sdpa")
        self.eval()

    def forward(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Encode tokens.

        Returns context_BLD in the type of the weights; rows of padding are zero. The mask is handed over
        in its final four dimensions, so nothing branches on its values.
        """
        attend_B1LL = mask_BL[:, None, None, :].expand(-1, 1, mask_BL.shape[1], -1)
        hidden_BLD: Tensor = self.encoder(input_ids=ids_BL, attention_mask=attend_B1LL).last_hidden_state
        return hidden_BLD * mask_BL[..., None].to(hidden_BLD.dtype)


@torch.no_grad()
def encode_text(encoder: nn.Module, tokens: Tokens, device: torch.device | str) -> Tensor:
    """Context [1, text_len, D] of a tokenised prompt on `device`; padding rows are zero."""
    context: Tensor = encoder(tokens.ids_BL.to(device), tokens.mask_BL.to(device))
    return context
