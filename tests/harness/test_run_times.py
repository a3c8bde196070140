"""Seconds of a run: which clips count, where each second went, how frames came. Nothing depends on a clock's pace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from canned import physical
from fault_targets import smallest

from liveavatar_core import scopes
from liveavatar_core.deployment import Deployment
from liveavatar_core.errors import BadData, BadInput
from liveavatar_core.parallel import hooks
from suites.harness.cases.clip_rounds import ON_CARDS, ClipRounds, asked_rounds
from suites.harness.cases.run_plan import RunPlan
from suites.harness.cases.tiers import Case, Expectation, Tier, read_tiers
from suites.harness.hardware.miniature import MiniatureMode
from suites.harness.messages import ClipTime, Loaded
from suites.harness.probes.phase_clock import PhaseClock
from suites.harness.records.clip_times import ClipTimes
from suites.harness.records.record import RunRecord
from suites.harness.records.run_times import ONCE, FrameArrivals
from suites.harness.verdicts.measured import metrics
from suites.harness.verdicts.metrics import METRICS
from suites.harness.verdicts.stats import summarise
from suites.harness.verdicts.timings import part_samples, time_samples, watch
from suites.harness.workers.simulate import SimulationRequest, simulate_role

ALONE, TOGETHER = Deployment(), Deployment(num_gpus_dit=2, ulysses_size=2)
WITH_A_DECODER = Deployment(num_gpus_dit=2, ulysses_size=2, enable_vae_parallel=True)


class FarDevice:
    """A stand-in for a card: it does what it is given later, in order, and a mark is a place in its queue."""

    def __init__(self) -> None:
        self.queued = self.reached = 0.0
        self.waits = 0

    def work(self, seconds: float) -> None:
        """The host hands work over, and goes on at once."""
        self.queued += seconds

    def mark(self) -> float:
        return self.queued

    def seconds(self, earlier: float, later: float) -> float:
        assert later <= self.reached, "an event is read before the card has passed it"
        return later - earlier

    def wait(self) -> None:
        self.reached, self.waits = self.queued, self.waits + 1


def clip(seconds: float = 1.0, *, blocks: tuple[float, ...] = (1.0,), **parts: float) -> ClipTime:
    shown = {"block_seconds": blocks, "block_frames": (12,) * len(blocks)}
    return ClipTime(seconds=sum(parts.values()) or seconds, seconds_by_part=parts, **shown)


def times(*clips: list[ClipTime], rounds: ClipRounds = ON_CARDS, load: float = 3.0) -> ClipTimes:
    loaded = [Loaded(clips=len(clips), seconds_by_part={"load": load}) for _ in clips[0]]
    return ClipTimes(rounds=rounds, load_seconds=10.0, loaded=loaded, clips=clips)


# Which clips count.


def test_clips_that_warm_up_are_on_record_and_in_no_median():
    timing = times(*([clip(seconds)] for seconds in (100.0, 50.0, 20.0, 21.0, 22.0, 23.0, 24.0))).timing(
        ALONE, comparable=True
    )
    assert timing.warm_up_seconds == (100.0, 50.0)
    assert timing.clip_seconds == (20.0, 21.0, 22.0, 23.0, 24.0)
    found = metrics(replace(physical(clips=()), timing=timing))
    assert found["seconds_per_clip"].value == 22.0
    assert found["load_seconds"].value == 10.0, "loading is gated apart from clips"


@pytest.mark.parametrize("made", [1, 2, 3, 6])
def test_a_median_of_fewer_clips_than_are_declared_is_none(made: int):
    timing = times(*([clip(20.0)] for _ in range(made))).timing(ALONE, comparable=True)
    metric = metrics(replace(physical(clips=()), timing=timing))["seconds_per_clip"]
    assert metric.samples == ()
    assert metric.reason == f"{made} clips were made, and 2 to warm up and 5 to measure are declared"


def test_cards_time_at_least_five_clips_behind_two(tmp_path: Path):
    tier = read_tiers()["gpu4x24"]
    plans = {mode: RunPlan.full_size(tier, tier.cases[0], mode, tmp_path) for mode in ("physical", "simulated")}
    assert (plans["physical"].rounds, plans["physical"].recipe.clip.num_clip) == (ON_CARDS, 7)
    assert plans["simulated"].recipe.clip.num_clip == 3, "what is predicted of a clip does not depend on their number"
    few = replace(tier, rounds=ClipRounds(warm_up=2, measured=1))
    with pytest.raises(BadInput, match="2 clips to warm up and 1 to measure; seconds of cards take 2 and 5 at least"):
        RunPlan.full_size(few, few.cases[0], "physical", tmp_path)
    assert MiniatureMode().plan(few, few.cases[0], tmp_path).recipe.clip.num_clip == 3


def test_a_miniature_times_the_clips_that_it_has_unless_asked(tmp_path: Path):
    tier = read_tiers()["gpu4x24"]
    plan = MiniatureMode().plan(tier, tier.cases[0], tmp_path)
    assert (plan.rounds, plan.recipe.clip.num_clip) == (ClipRounds(warm_up=0, measured=1), 1)


def test_what_is_asked_for_completes_what_is_declared():
    assert asked_rounds(None, None) is None
    assert asked_rounds(None, 9) == ClipRounds(warm_up=2, measured=9)
    assert asked_rounds(4, None) == ClipRounds(warm_up=4, measured=5)
    for bad in ((None, 0), (-1, 5)):
        with pytest.raises(BadInput):
            asked_rounds(*bad)


def test_one_sample_has_no_spread_that_people_could_read():
    assert summarise((3.0,)).spread_text == "–"
    assert summarise((3.0, 5.0)).spread_text == "1"


# Where each second went.


def test_every_moment_belongs_to_one_part_of_the_work_of_the_device():
    device = FarDevice()
    with PhaseClock(device) as clock:
        with scopes.phase("load"):
            device.work(7)
        clock.loaded()
        assert clock.take(None) == {"load": 7.0}
        clock.pause()
        device.work(1000)
        clock.resume()
        with scopes.phase("encode"):
            device.work(2)
        with scopes.phase("denoise"):
            device.work(3)
            with hooks.exchange():
                device.work(5)
            with hooks.gather():
                device.work(11)
            device.work(13)
        device.work(17)
        assert device.reached < device.queued, "the host ran ahead"
        parts = clock.take(0)
    assert parts == {"encode": 2.0, "denoise": 16.0, "communication": 16.0, "other": 17.0}


def test_the_device_is_waited_for_once_a_clip_and_not_at_every_mark():
    device = FarDevice()
    with PhaseClock(device) as clock:
        for _ in range(100):
            with scopes.phase("denoise"), hooks.exchange():
                device.work(1)
        clock.give(0)
        assert device.waits == 0
        clock.take(0)
    assert device.waits == 1


def test_a_video_that_is_denoised_first_gives_each_clip_its_own_share():
    """The order of the work without enable_online_decode: all latents, then all frames."""
    device = FarDevice()
    with PhaseClock(device) as clock:
        clock.loaded()
        clock.take(None)
        for number in range(3):
            with scopes.phase("denoise"):
                device.work(10 + number)
            clock.give(number)
        clips = []
        for number in range(3):
            with scopes.phase("decode"):
                device.work(1)
            clips.append(clock.take(number))
    assert clips == [{"denoise": 10.0 + number, "decode": 1.0} for number in range(3)]


def test_compiling_is_a_part_of_its_own_and_in_no_phase():
    device, compiled = FarDevice(), [0.0]
    with PhaseClock(device, lambda: compiled[0]) as clock:
        clock.loaded()
        clock.take(None)
        with scopes.phase("prefill"):
            device.work(4)
        with scopes.phase("denoise"):
            device.work(30)
            compiled[0] = 25.0
        assert clock.take(0) == {"prefill": 4.0, "denoise": 5.0, "compile": 25.0}


def test_what_another_listener_and_other_hooks_do_is_left_to_them():
    heard, around = [], []

    @contextmanager
    def counted(*_: object) -> Iterator[None]:
        around.append("exchange")
        yield

    with scopes.phases_told(heard.append), hooks.hooked(hooks.RunHooks(exchange=counted)), PhaseClock() as clock:
        with scopes.phase("denoise"), hooks.exchange():
            pass
        clock.take(0)
    assert (heard, around) == (["denoise", "load"], ["exchange"])


def test_waiting_for_a_rank_that_comes_late_is_no_communication():
    """Both meet in the same collectives; the one that computes longer waits least in them."""
    rounds = ClipRounds(warm_up=0, measured=1)
    quick, slow = clip(denoise=4.0, communication=8.0), clip(denoise=10.0, communication=2.0)
    timing = times([quick, slow], rounds=rounds).timing(TOGETHER, comparable=True)
    of = {(each.rank, each.part): each.seconds for each in timing.parts}
    assert of[0, "communication"] == of[1, "communication"] == (2.0,)
    assert of[0, "waiting"] == (6.0,)
    assert (1, "waiting") not in of
    assert timing.clip_seconds == (12.0,), "a clip takes as long as it takes"


def test_a_rank_that_decodes_waits_for_latents_and_shortens_nobodys_communication():
    rounds = ClipRounds(warm_up=0, measured=1)
    decoder = clip(decode=9.0, communication=0.1, waiting=4.0)
    ranks = [clip(denoise=8.0, communication=5.0), clip(denoise=9.0, communication=4.0), decoder]
    timing = times(ranks, rounds=rounds).timing(WITH_A_DECODER, comparable=True)
    assert part_samples(timing)["communication"] == (4.0,)
    assert part_samples(timing)["waiting"] == (4.0,)


def test_parts_of_a_video_are_counted_once_whichever_clip_they_fell_into():
    first = clip(encode=5.0, prefill=2.0, denoise=9.0)
    second = clip(prefill=1.0, denoise=3.0)
    later = [clip(denoise=3.0 + number) for number in range(5)]
    timing = times(*([each] for each in (first, second, *later))).timing(ALONE, comparable=True)
    samples = part_samples(timing)
    assert samples == {"load": (3.0,), "encode": (5.0,), "prefill": (3.0,), "denoise": (3.0, 4.0, 5.0, 6.0, 7.0)}


def test_a_prediction_has_the_names_of_measured_parts():
    tier = read_tiers()["gpu4x24"]
    recipe = smallest(tier.recipe(tier.case("bf16_sharded")))
    told = simulate_role(SimulationRequest(recipe=recipe, card=tier.card, ranks=(0,)), 0)
    assert set(told.seconds_by_part) == {"encode", "prefill", "denoise", "decode", "communication"}
    clip_parts = sum(told.seconds_by_part[part] for part in ("denoise", "decode", "communication"))
    assert clip_parts == pytest.approx(told.time.seconds)


# How frames came.


def arrivals(*intervals: float, first: float = 0.0) -> FrameArrivals:
    seconds = [first]
    for interval in intervals:
        seconds.append(seconds[-1] + interval)
    return FrameArrivals(seconds=tuple(seconds), frames=(12,) * len(seconds))


def test_a_viewer_who_is_kept_up_with_sees_no_underrun_however_late_the_first_frame():
    for first in (0.0, 1000.0):
        seen = watch(arrivals(*[0.48] * 50, first=first))
        assert (seen.underruns, seen.stalled_seconds) == (0, 0.0)


def test_a_pause_that_the_buffer_covers_is_none_and_a_longer_one_is():
    """24 frames are held when the third block begins to be shown: 1.44 s of video."""
    assert watch(arrivals(0.48, 0.48, 1.40, 0.48, 0.48)).underruns == 0
    seen = watch(arrivals(0.48, 0.48, 2.44, 0.48, 0.48))
    assert seen.underruns == 1
    assert seen.stalled_seconds == pytest.approx(1.0 + 0.96), "until a second of video is held again"


def test_frames_at_half_the_pace_stand_still_half_of_the_time():
    slow = arrivals(*[0.96] * 99)
    seen, shown = watch(slow), 99 * 0.48
    assert seen.underruns > 10
    assert seen.stalled_seconds == pytest.approx(slow.seconds[-1] - shown, rel=0.1)


def test_cadence_is_that_of_the_measured_clips():
    slow_first = [clip(blocks=(100.0, 150.0)), clip(blocks=(151.0, 190.0))]
    steady = [clip(blocks=(200.0 + number, 200.5 + number)) for number in range(5)]
    timing = times(*([each] for each in (*slow_first, *steady))).timing(ALONE, comparable=True)
    samples = time_samples(timing)
    assert samples["first_frame_seconds"] == (100.0,)
    assert samples["block_interval_p50_ms"] == samples["block_interval_p99_ms"] == (500.0,)
    assert samples["frames_per_second"] == (24.0,)
    assert samples["real_time_factor"] == pytest.approx((25 / 24,))


def test_one_block_has_no_cadence():
    timing = times([clip()], rounds=ClipRounds(warm_up=0, measured=1)).timing(ALONE, comparable=False)
    assert not [name for name in time_samples(timing) if "block" in name or "underruns" in name]


def test_arrivals_of_two_clocks_are_refused():
    with pytest.raises(BadData):
        FrameArrivals(seconds=(2.0, 1.0), frames=(12, 12))
    with pytest.raises(BadData):
        FrameArrivals(seconds=(2.0,), frames=())


def test_whatever_is_measured_of_time_has_a_row_of_its_own():
    part = dict.fromkeys(
        ("compile", "encode", "prefill", "denoise", "decode", "communication", "waiting", "other"), 1.0
    )
    timing = times(*([clip(blocks=(float(number),), **part)] for number in range(1, 8))).timing(ALONE, comparable=True)
    assert time_samples(timing).keys() <= {kind.name for kind in METRICS}
    assert len(time_samples(timing)) == 18


# Of real ranks.

PASS = Expectation(outcome="pass", because="a model of this size fits anywhere")
CASE = Case(name="pair", recipe="bf16_sharded", expect=PASS, miniature_capacity_mib=64)
PAIR = Tier(
    name="pair",
    title="two cards",
    cards=2,
    card="RTX 4090",
    cases=(CASE,),
    rounds=ClipRounds(warm_up=1, measured=2),
)


def test_real_ranks_account_for_all_their_seconds(tmp_path: Path):
    record = MiniatureMode(shrink=smallest).run(PAIR, CASE, tmp_path)
    assert RunRecord.from_json(record.to_json()) == record
    timing = record.timing
    assert (len(timing.warm_up_seconds), len(timing.clip_seconds)) == (1, 2)
    assert (timing.warm_up_clips, timing.measured_clips) == (1, 2)
    steady = [
        sum(each.seconds[-1] for each in timing.parts if each.rank == rank and each.part not in ONCE) for rank in (0, 1)
    ]
    assert max(steady) == pytest.approx(timing.clip_seconds[-1]), "parts of a clip add up to it"
    assert {"load", "encode", "prefill", "denoise", "decode", "communication"} <= part_samples(timing).keys()
    assert len(timing.arrivals.seconds) == 2
    assert timing.first_frame_seconds < timing.arrivals.seconds[0], "it belongs to the clip that warmed up"


def test_ranks_go_on_without_waiting_for_each_others_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """All commands are there before the first is answered, as under torchrun: ranks behind each other stay busy."""
    from suites.harness.processes.rank_group import RankGroup

    sent: list[tuple[str, int]] = []
    before = RankGroup._send
    monkeypatch.setattr(
        RankGroup,
        "_send",
        lambda self, name, argument, times: (sent.append((name, times)), before(self, name, argument, times))[1],
    )
    record = MiniatureMode(shrink=smallest).run(PAIR, CASE, tmp_path)
    assert record.outcome == "pass"
    assert sent == [("load", 1), ("clip", 3), ("finish", 1)]
