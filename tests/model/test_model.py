"""What the transformer promises beyond the reference's numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from liveavatar_core import scopes
from liveavatar_core.config import ModelParams
from liveavatar_core.errors import InvalidRecipe
from liveavatar_core.model.attention import attention, attention_over_both
from liveavatar_core.model.cache import Cache, Float8KVCache, HostKVCache, KVCache
from liveavatar_core.model.layers import Float32Linear, RMSNorm
from liveavatar_core.model.params import TransformerParams
from liveavatar_core.model.state import BlockContext, ConditionState
from liveavatar_core.model.transformer import Denoise, LiveAvatarTransformer, Prefill
from liveavatar_core.torch_private import FakeTensor, FakeTensorMode
from tiny_avatar.training.transformer import GrowingCache

PARAMS = TransformerParams(
    dim=48,
    ffn_dim=64,
    num_heads=4,
    num_layers=3,
    text_dim=16,
    text_len=8,
    audio_dim=8,
    audio_layers=3,
    freq_dim=16,
    audio_inject_layers=(0, 2),
)
SIZE = (8, 8)
FRAME_TOKENS = 16
STEPS = (1000.0, 500.0)


def make_model() -> LiveAvatarTransformer:
    torch.manual_seed(0)
    model = LiveAvatarTransformer(PARAMS)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.1)
    return model


@pytest.fixture
def model() -> Iterator[LiveAvatarTransformer]:
    with torch.no_grad():
        yield make_model()


def prefill(model: LiveAvatarTransformer, seed: int = 1, **changes: object) -> ConditionState:
    draw = torch.Generator().manual_seed(seed)
    request = {
        "reference_BCFHW": torch.randn(1, 16, 1, *SIZE, generator=draw),
        "motion_BCFHW": torch.randn(1, 16, 19, *SIZE, generator=draw),
        "text_BKE": torch.randn(1, 8, 16, generator=torch.Generator().manual_seed(9)),
        "timesteps": STEPS,
    }
    return model(Prefill(**request | changes))


def card_cache(kind: type[KVCache] = KVCache) -> KVCache:
    return kind.allocate(PARAMS, 1, 12 * FRAME_TOKENS, PARAMS.num_heads, torch.float32, "cpu")


def flows(model: LiveAvatarTransformer, state: ConditionState, cache: Cache, blocks: int = 2) -> Tensor:
    """Flows of consecutive blocks, one noise level."""
    draw = torch.Generator().manual_seed(2)
    made = []
    for number in range(blocks):
        block = BlockContext(audio_BAET=torch.randn(1, 3, 8, 12, generator=draw), frame=3 * number)
        noise = torch.randn(1, 16, 3, *SIZE, generator=draw)
        made.append(model(Denoise(latents_BCFHW=noise, step=0, block=block, cache=cache, state=state)))
    return torch.cat(made, dim=2)


def test_steps_of_a_block_share_what_the_first_one_made(model: LiveAvatarTransformer):
    state, cache = prefill(model), card_cache()
    block = BlockContext(audio_BAET=torch.randn(1, 3, 8, 12), frame=0)
    calls = []
    handle = model.casual_audio_encoder.register_forward_hook(lambda *_: calls.append(1))
    for step in range(2):
        noise = torch.randn(1, 16, 3, *SIZE)
        model(Denoise(latents_BCFHW=noise, step=step, block=block, cache=cache, state=state))
    handle.remove()
    assert len(calls) == 1


def test_second_prefill_equals_a_fresh_one_and_keeps_the_prompt(model: LiveAvatarTransformer):
    state, fresh = prefill(model, seed=1), prefill(model, seed=5)
    constants = [layer.constants for layer in state.layers]
    prefill(model, seed=5, text_BKE=None, timesteps=(), state=state)
    assert all(layer.constants is kept for layer, kept in zip(state.layers, constants, strict=True))
    assert torch.equal(flows(model, state, card_cache()), flows(model, fresh, card_cache()))


def test_prefill_asks_for_a_text_or_a_state(model: LiveAvatarTransformer):
    with pytest.raises(InvalidRecipe, match="asks for both"):
        prefill(model, state=prefill(model))


def test_host_cache_gives_the_same_flow_and_holds_nothing_on_the_card(model: LiveAvatarTransformer):
    state, host = prefill(model), card_cache(HostKVCache)
    assert torch.equal(flows(model, state, host), flows(model, state, card_cache()))
    k, _ = host.read(0, FRAME_TOKENS)
    assert k.untyped_storage().data_ptr() != host.k_layers[0].untyped_storage().data_ptr()


def float8_cache() -> Float8KVCache:
    values, scales = (
        KVCache.allocate(PARAMS, 1, FRAME_TOKENS, PARAMS.num_heads, dtype, "cpu", width)
        for dtype, width in ((torch.float8_e4m3fn, None), (torch.float32, 1))
    )
    return Float8KVCache(values, scales, torch.float32)


@pytest.mark.parametrize("make", [lambda: card_cache(HostKVCache), float8_cache], ids=["host", "float8"])
def test_what_is_read_of_a_cache_counts_as_cache(make, monkeypatch: pytest.MonkeyPatch):
    cache, moved, seen = make(), torch.Tensor.to, []
    told = lambda *a, **k: seen.append(scopes.current().category) or moved(*a, **k)  # noqa: E731
    monkeypatch.setattr(torch.Tensor, "to", told)
    cache.read(0, FRAME_TOKENS)
    assert seen == ["kv_cache", "kv_cache"]


@pytest.mark.parametrize(("kind", "place"), [(KVCache, "card"), (HostKVCache, "host")])
def test_caches_say_what_they_are_and_where_they_stand(kind, place: str, monkeypatch: pytest.MonkeyPatch):
    seen = set()
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *a, **k: seen.add(scopes.current()) or zeros(*a, **k))
    card_cache(kind)
    assert {(scope.category, scope.place) for scope in seen} == {("kv_cache", place)}


def test_runs_on_fake_tensors():
    with FakeTensorMode(allow_non_fake_inputs=False), torch.no_grad():
        torch.set_default_dtype(torch.bfloat16)
        model = LiveAvatarTransformer(PARAMS)
        torch.set_default_dtype(torch.float32)
        state = prefill_fake(model)
        cache = KVCache.allocate(PARAMS, 1, 12 * FRAME_TOKENS, 4, torch.bfloat16, "cpu")
        block = BlockContext(audio_BAET=torch.empty(1, 3, 8, 12), frame=15)
        noise = torch.empty(1, 16, 3, *SIZE)
        flow = model(Denoise(latents_BCFHW=noise, step=1, block=block, cache=cache, state=state))
    assert isinstance(flow, FakeTensor)
    assert (flow.shape, flow.dtype) == (noise.shape, torch.float32)


def prefill_fake(model: LiveAvatarTransformer) -> ConditionState:
    return model(
        Prefill(
            reference_BCFHW=torch.empty(1, 16, 1, *SIZE),
            motion_BCFHW=torch.empty(1, 16, 19, *SIZE),
            text_BKE=torch.empty(1, 8, 16),
            timesteps=STEPS,
        )
    )


def test_gradients_reach_every_weight_and_agree_with_differences():
    model = make_model()

    def loss() -> Tensor:
        return flows(model, prefill(model), GrowingCache()).square().mean()

    loss().backward()
    missing = [name for name, x in model.named_parameters() if x.grad is None or not x.grad.any()]
    assert missing == ["cond_encoder.weight"], "it sees the pose, and there is none"
    step = 1e-3
    shifts = [torch.randn_like(x) for x in model.parameters()]
    values = []
    with torch.no_grad():
        pairs = [(x.grad, shift) for x, shift in zip(model.parameters(), shifts, strict=True)]
        expected = sum((grad * shift).sum().item() for grad, shift in pairs if grad is not None)
        for sign in (1, -2):
            for x, shift in zip(model.parameters(), shifts, strict=True):
                x.add_(shift, alpha=sign * step)
            values.append(loss().item())
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(expected, rel=2e-2)


@pytest.mark.parametrize("blocks", [2, 6])
def test_flow_without_gradients_equals_flow_with(blocks: int):
    """Behind four blocks the ring writes over the oldest; the cache of training lets it go."""
    model = make_model()
    with_gradients = flows(model, prefill(model), GrowingCache(), blocks).detach()
    with torch.no_grad():
        without = flows(model, prefill(model), card_cache(), blocks)
    torch.testing.assert_close(without, with_gradients, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_attention_over_both_equals_attention_over_their_union(scale: float):
    q = torch.randn(2, 4, 10, 8) * scale
    first, second = ([torch.randn(2, 4, tokens, 8) * scale for _ in "kv"] for tokens in (7, 12))
    union = (torch.cat(pair, dim=2) for pair in zip(first, second, strict=True))
    merged = attention_over_both(q, tuple(first), tuple(second))
    torch.testing.assert_close(merged, attention(q, *union), atol=2e-5, rtol=0)


def test_attention_without_a_kernel_is_refused():
    x = torch.empty(1, 1, 4, 8, device="meta")
    with pytest.raises(InvalidRecipe, match="on meta; cpu and cuda have"):
        attention(x, x, x)


@torch.no_grad()
def test_float32_linear_upcasts_its_weights_by_parts():
    layer = Float32Linear(4, 20_000).bfloat16()
    x = torch.randn(3, 4)
    exact = torch.nn.functional.linear(x, layer.weight.float(), layer.bias.float())
    torch.testing.assert_close(layer(x), exact, atol=1e-6, rtol=0)


@torch.no_grad()
def test_rms_norm_equals_torch():
    norm = RMSNorm(48)
    norm.weight.normal_()
    for x in (torch.randn(5, 48), torch.randn(5, 48) * 1e-3):
        expected = torch.nn.functional.rms_norm(x, (48,), norm.weight, 1e-6)
        torch.testing.assert_close(norm(x), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["text_dim", "audio_dim", "audio_layers", "in_dim", "out_dim"])
def test_parts_that_do_not_fit_together_are_refused(name: str):
    usual = TransformerParams()
    with pytest.raises(InvalidRecipe, match=f"{name} {getattr(usual, name) + 1} of the transformer"):
        ModelParams(transformer=replace(usual, **{name: getattr(usual, name) + 1}))
