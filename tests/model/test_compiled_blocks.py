"""Compiled blocks give what others give, in as many graphs as there are kinds of block: one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from deployments import small
from test_model import FRAME_TOKENS, PARAMS, SIZE, STEPS, make_model, prefill

from liveavatar_core.deployment import Deployment
from liveavatar_core.model.cache import Cache, HostKVCache, KVCache
from liveavatar_core.model.compiled_blocks import compile_blocks
from liveavatar_core.model.state import BlockContext, ConditionState
from liveavatar_core.model.transformer import Denoise, LiveAvatarTransformer
from liveavatar_core.pipeline import open_avatar
from liveavatar_core.simulation.estimate import simulated_inputs

BLOCKS = 6
CAPACITY = 4 * 3 * FRAME_TOKENS
"""Tokens of a clip of four blocks; those behind overwrite the first."""


class Graphs:
    """A backend that executes graphs as they are and counts them."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        self.made += 1
        return graph.forward


def caches(kind: type[KVCache]) -> list[Cache]:
    return [kind.allocate(PARAMS, 1, CAPACITY, PARAMS.num_heads, torch.float32, "cpu") for _ in STEPS]


def flows(model: LiveAvatarTransformer, state: ConditionState, kept: list[Cache], seen: list[int], graphs: Graphs):
    """Flows of all steps of all blocks; `seen` takes the number of graphs behind each block."""
    draw = torch.Generator().manual_seed(2)
    made = []
    for number in range(BLOCKS):
        block = BlockContext(audio_BAET=torch.randn(1, 3, 8, 12, generator=draw), frame=3 * number)
        noise = torch.randn(1, 16, 3, *SIZE, generator=draw)
        for step, cache in enumerate(kept):
            made.append(model(Denoise(latents_BCFHW=noise, step=step, block=block, cache=cache, state=state)))
        seen.append(graphs.made)
    return torch.stack(made)


@pytest.fixture(autouse=True)
def fresh():
    torch.compiler.reset()
    with torch.no_grad():
        yield


@pytest.mark.parametrize("kind", [KVCache, HostKVCache])
def test_one_graph_serves_all_blocks_steps_and_places(kind: type[KVCache]):
    model, graphs, seen = make_model(), Graphs(), []
    plain = flows(model, prefill(model), caches(kind), [], graphs)
    compile_blocks(model, graphs)
    compiled = flows(model, prefill(model), caches(kind), seen, graphs)
    assert seen == [1] * BLOCKS
    assert torch.equal(compiled, plain)


def test_a_renewed_state_is_no_new_graph():
    model, graphs = make_model(), Graphs()
    compile_blocks(model, graphs)
    for seed in (1, 2):
        flows(model, prefill(model, seed), caches(KVCache), [], graphs)
    assert graphs.made == 1


LAYOUTS = {
    "int8": Deployment(int8=True),
    "float8, cache in float8": Deployment(fp8=True, fp8_multiply=False, fp8_kv_cache=True),
    "multiplied in float8": Deployment(fp8=True),
    "offloaded": Deployment(offload_blocks=True, offload_kv_cache=True),
    "lora beside": Deployment(lora="adapter"),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_of_a_card_is_one_graph_and_the_same_video(layout: Deployment):
    recipe = replace(small(layout), deployment=replace(layout, lora_rank=4))
    avatar, graphs = open_avatar(recipe), Graphs()
    plain = [block.frames_JHWC for block in avatar.generate(simulated_inputs(recipe))]
    compile_blocks(avatar.system.transformer, graphs)
    compiled = [block.frames_JHWC for block in avatar.generate(simulated_inputs(recipe))]
    assert graphs.made == 1
    assert len(compiled) == 4
    assert all(torch.equal(*pair) for pair in zip(compiled, plain, strict=True))
