"""The text encoder reproduces the reference on every case of the golden directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from liveavatar_core.encoders.params import TextEncoderParams
from liveavatar_core.encoders.text import (
    ByteTokenizer,
    PublishedTokenizer,
    TextEncoder,
    Tokens,
    clean,
    encode_text,
)
from liveavatar_core.errors import CheckpointError, InvalidRecipe
from liveavatar_core.weights.names import module_name, published_name


def read_params(folder: Path) -> TextEncoderParams:
    config = json.loads((folder / "meta.json").read_text())["config"]
    return TextEncoderParams(
        vocab_size=config["vocab"],
        d_model=config["dim"],
        d_kv=config["dim_attn"] // config["num_heads"],
        d_ff=config["dim_ffn"],
        num_layers=config["num_layers"],
        num_heads=config["num_heads"],
    )


@pytest.fixture
def encoder(text_case: Path) -> TextEncoder:
    encoder = TextEncoder(read_params(text_case))
    weights = load_file(text_case / "state_dict.safetensors")
    encoder.load_state_dict({module_name("text_encoder", name): x.float() for name, x in weights.items()})
    return encoder


def test_valid_rows_equal_the_reference_and_padding_is_zero(text_case: Path, encoder: TextEncoder):
    io = load_file(text_case / "io.safetensors")
    for ids_L, mask_L, expected_LD in zip(io["ids"], io["mask"].bool(), io["out"], strict=True):
        tokens = Tokens(ids_BL=ids_L[None], mask_BL=mask_L[None])
        context_LD = encode_text(encoder, tokens, "cpu")[0]
        torch.testing.assert_close(context_LD[mask_L], expected_LD[mask_L], atol=1e-5, rtol=0)
        assert not context_LD[~mask_L].any()


def test_names_have_the_published_ones_and_back(encoder: TextEncoder, text_case: Path):
    published = set(load_file(text_case / "state_dict.safetensors"))
    names = [name for name, _ in encoder.named_parameters()]
    assert {published_name("text_encoder", name) for name in names} == published
    assert [module_name("text_encoder", published_name("text_encoder", name)) for name in names] == names


def test_real_size_has_the_published_names_and_shapes(golden: Path):
    manifest = json.loads((golden / "manifest_other.json").read_text())["umt5_xxl_encoder"]
    expected = {name: tuple(shape) for name, shape in manifest["params"].items()}
    for template, part in manifest["templates"].items():
        for number in range(part["count"]):
            for name, shape in part["params"].items():
                expected[name.replace(template, template.replace("{N}", str(number)))] = tuple(shape)
    with torch.device("meta"):
        encoder = TextEncoder(TextEncoderParams())
    have = {published_name("text_encoder", name): tuple(x.shape) for name, x in encoder.named_parameters()}
    assert have == expected


@pytest.mark.parametrize(
    ("prompt", "cleaned"),
    [
        ("  a\tman \n speaks ", "a man speaks"),
        ("Tom &amp;amp; Jerry", "Tom & Jerry"),
        ("&amp;lt;b&amp;gt;", "<b>"),
        ("caf\u00c3\u00a9", "caf\u00e9"),
        ("\u201cquoted\u201d", '"quoted"'),
        ("", ""),
    ],
)
def test_prompts_are_cleaned(prompt: str, cleaned: str):
    assert clean(prompt) == cleaned


def test_bytes_become_tokens_with_an_end_and_padding():
    tokens = ByteTokenizer(vocab_size=259, text_len=6)("ab")
    assert tokens.ids_BL.tolist() == [[3 + ord("a"), 3 + ord("b"), 1, 0, 0, 0]]
    assert tokens.mask_BL.tolist() == [[True, True, True, False, False, False]]


def test_a_long_prompt_is_cut_and_keeps_its_end():
    tokens = ByteTokenizer(vocab_size=320, text_len=4)("abcdefgh")
    assert tokens.ids_BL.tolist() == [[100, 101, 102, 1]]
    assert tokens.mask_BL.all()


def test_a_small_vocabulary_has_no_byte_tokenizer():
    with pytest.raises(InvalidRecipe, match="vocab_size 258"):
        ByteTokenizer(vocab_size=258, text_len=4)


def test_a_missing_tokenizer_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        PublishedTokenizer(tmp_path, 8)


def test_a_published_tokenizer_is_read_from_its_folder(tmp_path: Path):
    write_tokenizer(tmp_path)
    tokens = PublishedTokenizer(tmp_path, 5)(" a &amp; b")
    assert tokens.ids_BL.tolist() == [[3, 2, 4, 1, 0]]
    assert tokens.mask_BL.tolist() == [[True, True, True, True, False]]
    assert PublishedTokenizer(tmp_path, 2)("a a a").ids_BL.tolist() == [[3, 1]]


def write_tokenizer(folder: Path) -> None:
    """A word tokenizer in the published files' format: <pad> </s> <unk> a b."""
    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2, "a": 3, "b": 4}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
