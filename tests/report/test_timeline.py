"""What is drawn of a simulation is what its tracker saw."""

from __future__ import annotations

from dataclasses import replace

from liveavatar_core.recipes import miniature, named_recipe
from liveavatar_core.scopes import PHASES
from liveavatar_core.simulation.alloc_events import Allocation, Event
from liveavatar_core.simulation.estimate import simulate_rank
from liveavatar_core.simulation.memory_account import Capacity
from liveavatar_core.simulation.memory_timeline import MOST_POINTS, TimelineBuilder
from suites.harness.probes.phase_timeline import PhaseTimeline
from suites.harness.probes.timelines import memory_timeline
from suites.harness.report.html_memory import totals


def test_a_timeline_has_every_peak_that_the_ledger_saw():
    recipe = miniature(named_recipe("single", 1))
    clip = replace(recipe.clip, num_clip=1, infer_frames=12, sample_steps=1)
    trace = TimelineBuilder()
    result = simulate_rank(replace(recipe, clip=clip), 0, Capacity(), trace=trace)
    points = trace.points
    assert 50 < len(points) <= MOST_POINTS
    assert max(point.allocated for point in points) == max(peak.allocated for peak in result.peaks.values())
    assert [phase for phase in PHASES if any(point.phase == phase for point in points)] == list(PHASES)
    for point in points:
        assert sum(point.by_category.values()) == point.allocated
        assert point.allocated <= result.peaks[point.phase].allocated


def test_a_record_holds_it_as_columns():
    timeline = TimelineBuilder()
    weights = Allocation(1, 512, "card", "parameters")
    timeline.on_event(Event(True, weights))
    timeline.on_event(Event(True, Allocation(2, 1024, "host", "parameters")))
    timeline.on_event(Event(True, Allocation(3, 512, "card", "kv_cache")))
    timeline.on_event(Event(False, weights))
    line = memory_timeline(2, timeline.points)
    assert (line.rank, totals(line)) == (2, [512, 1024])
    assert line.bytes_by_category == {"kv_cache": (0, 512), "parameters": (512, 512)}


def test_a_long_run_is_thinned_and_keeps_its_peak():
    timeline = TimelineBuilder()
    for number in range(1, 20_001):
        size = 1_000_000 if number == 12_345 else 512
        allocation = Allocation(number, size, "card", "activations")
        timeline.on_event(Event(True, allocation))
        timeline.on_event(Event(False, allocation))
    assert len(timeline.points) <= MOST_POINTS
    assert max(point.allocated for point in timeline.points) == 1_000_000


def test_a_real_card_has_a_point_for_each_visit_to_a_phase():
    seconds = iter((0.0, 2.5, 3.0, 4.0))
    visits = PhaseTimeline(clock=lambda: next(seconds))
    visits.end("load", 100, 140)
    visits.end("denoise", 300, 300)
    line = visits.timeline(1, "decode", 200, 350)
    assert (line.axis, line.phases, line.starts) == ("milliseconds", ("load", "denoise", "decode"), (0, 2500, 3000))
    assert line.bytes_by_category == {"allocated": (100, 300, 200), "cached": (40, 0, 150)}


def test_a_long_video_keeps_the_fullest_visit():
    visits = PhaseTimeline()
    for number in range(2000):
        visits.end("denoise" if number % 2 else "decode", 10**6 if number == 1234 else number, 0)
    assert len(visits.points) <= MOST_POINTS
    assert max(point.allocated for point in visits.points) == 10**6
