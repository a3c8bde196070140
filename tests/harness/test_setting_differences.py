"""What is said of a setting that did not act, word for word, and what lies exactly on a bound. Free of torch.

That real ranks show what is written here is for test_applied_settings and test_fallbacks.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from canned import passed
from fault_targets import WIDE

from liveavatar_core.config import Recipe
from liveavatar_core.recipes import named_recipe
from suites.harness.records.measurements import ObservedSettings
from suites.harness.records.record import DeclaredRecipe, Failure
from suites.harness.verdicts.applied_settings import attention_differences, block_parameters, differences, unapplied
from suites.harness.verdicts.verdict import Verdict

LINEAR = 6 * (8 * 32**2 + 2 * 32 * 1024)
"""Parameters in the linear layers of the blocks: six layers, 32 wide, 1024 in between."""
CARDS = {"bf16_sharded": 2, "text_on_decode_rank": 3, "timestep_pipeline": 3}
"""Those that are not for one card."""


def recipe_of(name: str, **deployment) -> Recipe:
    """Two clips of two blocks, four steps each."""
    recipe = named_recipe(name, CARDS.get(name, 1))
    clip = replace(recipe.clip, size="128*64", infer_frames=24, num_clip=2)
    resident = {"offload_model": False} if name == "single" else {}
    layout = replace(recipe.deployment, **(resident | deployment))
    workload = replace(recipe.workload, portrait_height=512, portrait_width=256, voice_seconds=None)
    return replace(recipe, model=WIDE, clip=clip, deployment=layout, workload=workload)


def seen(
    transformer: dict[str, int], *, text: str = "bfloat16 card", caches: str = "bfloat16 card"
) -> ObservedSettings:
    """An honest rank that computes and decodes."""
    return ObservedSettings(
        rank=0,
        transformer_forwards={"prefill": 2, "denoise": 16},
        parameter_bytes={"transformer": transformer, "text_encoder": {text: 1000}, "vae": {"bfloat16 card": 10}},
        kv_caches=tuple(caches.split(", ")),
        latent_sizes=("16x8",),
        frame_sizes=("128x64",),
        attention_kernels={"flash": 6 * (2 * 2 + 3 * 16)},
    )


SINGLE = seen({"bfloat16 card": 2 * LINEAR})
SHARDED = seen({"bfloat16 card": 2 * LINEAR - 1}, caches="bfloat16 host")
EIGHT = seen(
    {"float8_e4m3fn host": LINEAR, "bfloat16 host": 500, "float32 host": LINEAR // 8},
    text="bfloat16 host",
    caches="float32 card, float8_e4m3fn card",
)
OFFLOADED = seen({"bfloat16 host": LINEAR, "bfloat16 card": LINEAR}, text="bfloat16 host", caches="bfloat16 host")
INTEGERS = seen({"int8 host": 2 * LINEAR, "bfloat16 host": LINEAR, "float32 host": 9}, text="bfloat16 host")
INTEGERS = replace(INTEGERS, kv_caches=("bfloat16 host",))
HONEST = {
    "block_offload_int8": INTEGERS,
    "single": SINGLE,
    "bf16_sharded": SHARDED,
    "fp8": EIGHT,
    "block_offload": OFFLOADED,
}


@pytest.mark.parametrize("name", HONEST)
def test_of_what_acted_nothing_is_said(name: str):
    assert list(differences(recipe_of(name), 0, HONEST[name])) == []


def holding(observed: ObservedSettings, part: str, **kinds: int) -> ObservedSettings:
    """With other bytes of a part: `bfloat16_card=10`."""
    held = {kind.replace("_card", " card").replace("_host", " host"): size for kind, size in kinds.items()}
    return replace(observed, parameter_bytes=observed.parameter_bytes | {part: held})


SAID = [
    ("single", replace(SINGLE, transformer_forwards={"prefill": 2, "denoise": 15}),
     "15 denoising forwards against 8 a clip (sample_steps 4), for 2 clips"),
    ("single", replace(SINGLE, transformer_forwards={"prefill": 2, "denoise": 8}),
     "8 denoising forwards against 8 a clip (sample_steps 4), for 2 clips"),
    ("single", replace(SINGLE, transformer_forwards={"prefill": 3, "denoise": 16}),
     "3 prefills against 1, or 2 where the reference is renewed"),
    ("single", replace(SINGLE, transformer_forwards={"denoise": 16}),
     "0 prefills against 1, or 2 where the reference is renewed"),
    ("single", holding(SINGLE, "vae", float32_card=10, bfloat16_card=0),
     "vae kept in float32 against bfloat16 (storage_dtype, fp8, int8)"),
    ("single", holding(SINGLE, "vae", float32_card=1, bfloat16_card=9),
     "vae kept in bfloat16, float32 against bfloat16 (storage_dtype, fp8, int8)"),
    ("single", holding(SINGLE, "vae"), "vae kept in nothing against bfloat16 (storage_dtype, fp8, int8)"),
    ("single", holding(SINGLE, "transformer", bfloat16_card=2 * LINEAR - 1),
     f"{2 * LINEAR - 1} bytes of the transformer against {2 * LINEAR} or more, all of it (shard none)"),
    ("single", holding(SINGLE, "transformer", bfloat16_card=2 * LINEAR, bfloat16_host=1),
     "1 bytes of the transformer in host memory against 0"),
    ("single", replace(SINGLE, kv_caches=("float8_e4m3fn card", "float32 card")),
     "KV caches of float32 card, float8_e4m3fn card against bfloat16 card (fp8_kv_cache, offload_kv_cache,"
     " compute_dtype)"),
    ("single", replace(SINGLE, kv_caches=()),
     "KV caches of nothing against bfloat16 card (fp8_kv_cache, offload_kv_cache, compute_dtype)"),
    ("single", replace(SINGLE, latent_sizes=("16x8", "8x8")), "latents of 16x8, 8x8 against 16x8 (size 128*64)"),
    ("single", replace(SINGLE, latent_sizes=()), "latents of nothing against 16x8 (size 128*64)"),
    ("single", replace(SINGLE, frame_sizes=("64x128",)), "frames of 64x128 against 128x64 (size 128*64)"),
    ("single", replace(SINGLE, parameter_bytes={"transformer": {"bfloat16 card": 2 * LINEAR}}),
     "0 bytes of the text encoder (t5_on_decode_rank False)"),
    ("bf16_sharded", holding(SHARDED, "transformer", bfloat16_card=2 * LINEAR),
     f"{2 * LINEAR} bytes of the transformer, no less than the {2 * LINEAR} of all blocks (shard per_parameter)"),
    ("bf16_sharded", replace(SHARDED, kv_caches=("bfloat16 card",)),
     "KV caches of bfloat16 card against bfloat16 host (fp8_kv_cache, offload_kv_cache, compute_dtype)"),
    ("fp8", holding(EIGHT, "transformer", float8_e4m3fn_host=LINEAR - 8, bfloat16_host=500),
     f"{LINEAR - 8} bytes in float8_e4m3fn against {LINEAR} or more, the linear layers of all blocks"),
    ("fp8", holding(EIGHT, "transformer", float8_e4m3fn_host=LINEAR, bfloat16_host=5, float32_host=LINEAR // 8 + 1),
     f"{LINEAR // 8 + 1} bytes of the transformer in float32 against {LINEAR / 8:g}, an eighth of its float8_e4m3fn"),
    ("fp8", holding(EIGHT, "transformer", float8_e4m3fn_host=LINEAR, bfloat16_card=500),
     "500 bytes of the transformer on the card against 0 (offload_shards, offload_model)"),
    ("fp8", holding(EIGHT, "transformer", int8_host=LINEAR, bfloat16_host=500),
     "transformer kept in bfloat16, int8 against bfloat16, float32, float8_e4m3fn (storage_dtype, fp8, int8)"),
    ("fp8", holding(EIGHT, "vae", float32_card=1, bfloat16_card=9),
     "vae kept in bfloat16, float32 against bfloat16 (storage_dtype, fp8, int8)"),
    ("fp8", holding(EIGHT, "text_encoder", bfloat16_card=7, bfloat16_host=3),
     "7 bytes of the text encoder on the card against 0 (t5_cpu, offload_model)"),
    ("fp8", replace(EIGHT, kv_caches=("float8_e4m3fn card",)),
     "KV caches of float8_e4m3fn card against float32 card, float8_e4m3fn card (fp8_kv_cache, offload_kv_cache,"
     " compute_dtype)"),
    ("block_offload_int8", holding(INTEGERS, "transformer", int8_host=LINEAR // 2 - 1, int8_card=LINEAR,
                                           bfloat16_card=1),
     f"{LINEAR // 2 - 1} bytes of the transformer in host memory against {LINEAR // 2} or more (offload_blocks)"),
    ("block_offload", holding(OFFLOADED, "transformer", bfloat16_host=LINEAR - 1, bfloat16_card=LINEAR + 1),
     f"{LINEAR - 1} bytes of the transformer in host memory against {LINEAR} or more (offload_blocks)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "observed", "said"), SAID, ids=lambda value: value[:40] if isinstance(value, str) else ""
)
def test_a_setting_that_did_not_act_is_named_with_what_was_seen(name: str, observed: ObservedSettings, said: str):
    found = list(differences(recipe_of(name), 0, observed))
    assert found[0] == said
    assert all(said.split(" bytes")[0] in each or "float8" in each for each in found), "nothing else is said"


def test_where_nothing_rests_the_text_encoder_is_on_the_card():
    found = differences(recipe_of("single"), 0, holding(SINGLE, "text_encoder", bfloat16_host=9))
    assert "9 bytes of the text encoder in host memory against 0" in list(found)


def test_a_rank_that_only_decodes_holds_the_text_encoder_and_computes_nothing():
    recipe, decodes = recipe_of("text_on_decode_rank"), replace(SINGLE, latent_sizes=(), transformer_forwards={})
    assert list(differences(recipe, 2, decodes)) == []
    assert list(attention_differences(recipe, 2, replace(decodes, attention_kernels={}), "flash")) == []
    worked = replace(decodes, transformer_forwards={"denoise": 1})
    assert list(differences(recipe, 2, worked)) == ["transformer forwards {'denoise': 1} on a rank that only decodes"]
    assert "latents of 16x8 against nothing (size 128*64)" in list(differences(recipe, 2, SINGLE))
    assert "1000 bytes of the text encoder (t5_on_decode_rank True)" in list(differences(recipe, 0, SHARDED))


def test_a_rank_of_a_timestep_pipeline_takes_one_step_of_each_block():
    recipe = recipe_of("timestep_pipeline")
    steps = recipe.deployment.num_gpus_dit
    rank = replace(SINGLE, frame_sizes=(), transformer_forwards={"prefill": 2, "denoise": 4})
    assert steps > 1
    assert not [each for each in differences(recipe, 0, rank) if "forwards" in each or "frames" in each]
    assert "frames of 128x64 against nothing (size 128*64)" in list(differences(recipe, 0, SINGLE))
    [found] = [each for each in differences(recipe, 0, SINGLE) if "forwards" in each]
    assert found == "16 denoising forwards against 2 a clip (sample_steps 1), for 2 clips"


def test_a_reference_that_is_not_renewed_takes_one_prefill():
    once = replace(SINGLE, transformer_forwards={"prefill": 1, "denoise": 16})
    assert list(differences(recipe_of("single"), 0, once)) == []


def test_forwards_that_were_not_seen_ask_for_no_attention():
    without = replace(SINGLE, transformer_forwards={"denoise": 16}, attention_kernels={"flash": 6 * 3 * 16})
    assert list(attention_differences(recipe_of("single"), 0, without, "flash")) == []


def test_a_voice_that_ends_earlier_makes_fewer_clips():
    """The voice that is declared decides, and not the number that ranks found."""
    recipe = recipe_of("single")
    longer = replace(recipe, clip=replace(recipe.clip, num_clip=3))
    [found] = differences(longer, 0, SINGLE)
    assert found == "16 denoising forwards against 8 a clip (sample_steps 4), for 3 clips"


@pytest.mark.parametrize(
    ("seen_kernels", "said"),
    [
        ({"flash": 312}, []),
        ({"flash": 311}, ["flash attention 311 times against 312 or more, 52 a block of the model"]),
        ({"flash": 312, "softmax": 1}, ["attention by flash, softmax against flash (attention, compute_dtype)"]),
        (
            {},
            [
                "attention by nothing against flash (attention, compute_dtype)",
                "flash attention 0 times against 312 or more, 52 a block of the model",
            ],
        ),
    ],
)
def test_every_block_has_its_attention_from_the_kernel_that_is_declared(seen_kernels: dict, said: list):
    observed = replace(SINGLE, attention_kernels=seen_kernels)
    assert list(attention_differences(recipe_of("single"), 0, observed, "flash")) == said


def record_of(observed: tuple[ObservedSettings, ...], **changes):
    return passed(recipe=DeclaredRecipe.of(recipe_of("bf16_sharded")), observed=observed, **changes)


def test_each_rank_answers_for_itself_under_a_verdict_of_its_own():
    both = (SHARDED, replace(SHARDED, rank=1))
    assert unapplied(record_of(both, hardware="miniature")) == []
    wrong = (SHARDED, replace(SHARDED, rank=1, latent_sizes=("8x8",), attention_kernels={"softmax": 312}))
    found = unapplied(record_of(wrong, hardware="miniature"))
    where = "gpu5x24/published_sharded on miniature cards: rank 1: "
    assert [each.what.removeprefix(where) for each in found] == [
        "latents of 8x8 against 16x8 (size 128*64)",
        "attention by softmax against flash (attention, compute_dtype)",
        "flash attention 0 times against 312 or more, 52 a block of the model",
    ]
    assert {each.verdict for each in found} == {Verdict.SETTING_NOT_APPLIED}
    assert found[0].next_step.startswith("find out why the setting did not act, or declare what did: numbers of other")
    [silent] = unapplied(record_of(both[:1], hardware="miniature"))
    assert silent.what == f"{where}it told nothing of what its settings did"


def test_a_simulation_has_no_kernels_to_show_and_a_failed_run_nothing():
    idle = tuple(replace(SHARDED, rank=rank, attention_kernels={}) for rank in (0, 1))
    assert unapplied(record_of(idle)) == []
    assert len(unapplied(record_of(idle, hardware="miniature"))) == 4
    assert unapplied(replace(record_of(()), outcome="crash", failure=Failure(message="crashed"))) == []
    assert unapplied(passed(observed=())) == [], "nothing was declared"


def test_a_card_answers_for_the_backend_of_its_profile():
    ranks = tuple(replace(SHARDED, rank=rank, attention_kernels={"cudnn": 312}) for rank in (0, 1))
    machine = replace(passed().machine, attention_backend="cudnn")
    assert unapplied(record_of(ranks, hardware="partitioned", machine=machine)) == []
    machine = replace(machine, attention_backend="efficient")
    assert len(unapplied(record_of(ranks, hardware="partitioned", machine=machine))) == 4


def test_parameters_of_blocks():
    assert block_parameters(recipe_of("single")) == LINEAR
