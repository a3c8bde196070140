"""The transformer reproduces the reference on every case of the golden directory."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from dit import DitCase, assert_near, hidden_states, read_params

from liveavatar_core.model.cache import KVCache
from liveavatar_core.model.rope import motion_positions, noisy_positions, rotary_table, sink_positions
from liveavatar_core.model.state import ConditionState
from liveavatar_core.model.transformer import LiveAvatarTransformer

FLOW, EXACT_TABLES_FLOW = 5e-5, 2e-4
pytestmark = pytest.mark.usefixtures("_no_grad")


@pytest.fixture(scope="module")
def _no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def case(dit_case: Path) -> DitCase:
    return DitCase(dit_case)


@pytest.fixture(scope="module")
def state(case: DitCase) -> ConditionState:
    return case.prefill()


CPU = torch.device("cpu")


def table_as_stored(table_NC: torch.Tensor) -> torch.Tensor:
    """[N, pairs, (cos, sin)] like the golden files."""
    return torch.view_as_real(table_NC)


def test_names_and_shapes_are_those_of_the_published_checkpoint(golden: Path):
    manifest = json.loads((golden / "manifest_s2v_14b.json").read_text())
    expected = dict(manifest["params"])
    for template in manifest["templates"].values():
        for name, shape in template["params"].items():
            expected |= {name.replace("{N}", str(index)): shape for index in range(template["count"])}
    with torch.device("meta"):
        model = LiveAvatarTransformer(read_params(manifest["config"]))
    assert {name: list(x.shape) for name, x in model.state_dict().items()} == expected
    assert sum(x.numel() for x in model.parameters()) == manifest["total"]


@pytest.mark.parametrize("suffix", ["", "_b"])
def test_audio_encoder(case: DitCase, suffix: str):
    golden = case.file("audio_encoder")
    tokens_global, tokens_local = case.model.casual_audio_encoder(golden[f"features{suffix}"])
    assert_near(tokens_global, golden[f"out_global{suffix}"], 5e-6)
    assert_near(tokens_local, golden[f"out_local{suffix}"], 5e-6)


def test_audio_of_a_block_equals_the_reference_behind_73_held_frames(case: DitCase, state: ConditionState):
    context = case.context(case.meta["calls"][1])
    held = torch.cat([context.audio_BAET[..., :1].expand(-1, -1, -1, 73), context.audio_BAET], dim=-1)
    _, local = case.model.casual_audio_encoder(held)
    case.denoise(case.meta["calls"][1], block=context, state=state, cache=case.cache())
    assert_near(context.injections[0].local_BFKC, local[:, 19:], 1e-6)


@pytest.mark.parametrize("which", ["full", "short"])
def test_frame_packer(case: DitCase, which: str):
    golden = case.file("frame_packer")
    motion = golden.get(f"{which}.motion_latents", case.inputs["motion_latents"])
    assert_near(case.model.frame_packer(motion), golden[f"{which}.tokens"], 1e-5)
    positions = motion_positions(*motion.shape[-2:])
    table = rotary_table(positions, case.params.head_dim, float16=True, device=CPU)
    assert_near(table_as_stored(table), golden[f"{which}.rope_head0"], 1e-5)


def test_sink(case: DitCase, state: ConditionState):
    golden = case.file("sink")
    for index, layer in enumerate(state.layers):
        assert_near(layer.sink_k_BHSD.transpose(1, 2), golden[f"layer{index}.cond_k"], 1e-5)
        assert_near(layer.sink_v_BHSD.transpose(1, 2), golden[f"layer{index}.cond_v"], 1e-5)
    assert state.layers[0].sink_k_BHSD.shape[2] == golden["cond_end"].item()
    positions = sink_positions(*state.latent_size, shift=0)
    table = rotary_table(positions, case.params.head_dim, float16=True, device=CPU)
    assert_near(table_as_stored(table), golden["rope_all_head0"], 1e-5)


@pytest.mark.parametrize(
    ("float16", "atol"), [(True, FLOW), (False, EXACT_TABLES_FLOW)], ids=["float16_tables", "exact_tables"]
)
@pytest.mark.parametrize(("file", "distance"), [("inference", "relative_dist"), ("inference_rel10", "relative_dist_B")])
def test_flow_of_every_block_in_a_row(case: DitCase, file: str, distance: str, float16: bool, atol: float):
    golden = case.file(file)
    state = case.prefill(relative_dist=case.meta[distance], float16_rotary_tables=float16)
    cache = case.cache()
    compared = 0
    for call in case.meta["calls"]:
        flow = case.denoise(call, state=state, cache=cache)
        if (expected := golden.get(f"call{call['call']}.out")) is not None:
            assert_near(flow, expected, atol)
            compared += 1
    assert compared == sum(re.fullmatch(r"call\d+\.out", name) is not None for name in golden)


def test_cache_holds_what_the_reference_wrote(case: DitCase, state: ConditionState):
    golden, cache = case.file("inference"), case.cache()
    for call in case.meta["calls"]:
        case.denoise(call, state=state, cache=cache)
        start, length = call["cache_slot_start"], case.frames * case.meta["frame_seqlen"]
        for name, expected in golden.items():
            if found := re.fullmatch(rf"call{call['call']}\.layer(\d+)\.([kv])_written", name):
                layer, which = int(found[1]), found[2]
                written = getattr(cache, f"{which}_layers")[layer][:, :, start : start + length].transpose(1, 2)
                assert_near(written, expected, FLOW)
    for name, expected in golden.items():
        if found := re.fullmatch(r"final\.layer(\d+)\.([kv])", name):
            kept = getattr(cache, f"{found[2]}_layers")[int(found[1])]
            assert_near(kept.transpose(1, 2), expected, FLOW)


def test_hidden_states_after_each_block(case: DitCase, state: ConditionState):
    golden = case.file("inference")
    for number in case.meta["extra"]["capture"]:
        call = case.meta["calls"][number]
        with hidden_states(case.model) as seen:
            case.denoise(call, state=state, cache=case.cache())
        for index, hidden in seen.items():
            assert_near(hidden, golden[f"call{number}.hidden_after_block{index}"], FLOW)


@pytest.mark.parametrize(("file", "distance"), [("inference", "relative_dist"), ("inference_rel10", "relative_dist_B")])
def test_rotary_tables_follow_the_video(case: DitCase, file: str, distance: str):
    golden = case.file(file)
    state = case.prefill(relative_dist=case.meta[distance])
    cache = case.cache()
    for call in case.meta["calls"]:
        context = case.context(call)
        case.denoise(call, block=context, state=state, cache=cache)
        for name, table in (("noisy", context.rotary.noisy_LD), ("cond", context.rotary.sink_SD)):
            expected = golden.get(f"call{call['call']}.rope_{name}_head0")
            if expected is not None:
                assert_near(table_as_stored(table), expected, 1e-5)


def test_forward_at_time_zero(case: DitCase, state: ConditionState):
    golden, cache, call = case.file("t0_update"), case.cache(), case.meta["calls"][0]
    case.denoise(call, state=state, cache=cache)
    flow = case.denoise(call, latents_BCFHW=golden["x"][None], step=len(case.timesteps), state=state, cache=cache)
    assert_near(flow, golden["out"], FLOW)
    length = case.frames * case.meta["frame_seqlen"]
    for layer in case.meta["extra"]["kv_layers"]:
        k, v = cache.read(layer, length)
        assert_near(k.transpose(1, 2), golden[f"layer{layer}.k_written"], FLOW)
        assert_near(v.transpose(1, 2), golden[f"layer{layer}.v_written"], FLOW)


def test_rotary_tables_stay_exact_far_into_a_long_video():
    far = noisy_positions(44_997, 3, 1, 1)
    table = rotary_table(far, 24, float16=False, device=CPU)
    assert_near(table[:, 0].real.double(), torch.from_numpy(far[:, 0]).cos(), 1e-7)


def test_bfloat16_stays_near(case: DitCase):
    """The yardstick is the reference with bfloat16 products emulated: 0.6 % relative RMS a flow."""
    golden, half = case.file("inference"), DitCase(case.folder)
    half.model.to(torch.bfloat16)
    cache = KVCache.allocate(case.params, 1, case.meta["kv_cache_size"], case.params.num_heads, torch.bfloat16, "cpu")
    state = half.prefill()
    for call in case.meta["calls"]:
        flow = half.denoise(call, state=state, cache=cache)
        expected = golden[f"call{call['call']}.out"]
        assert ((flow - expected).square().mean().sqrt() / expected.std()) < 0.008
