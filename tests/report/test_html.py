"""The page of a session, in a real browser."""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from report_runs import HOSTILE, fitting, hostile, judged, measured, ran_out, settings

from liveavatar_core.cli.generate import read_recipe
from liveavatar_core.cli.main import make_parser
from liveavatar_core.errors import GIB
from liveavatar_core.recipes import miniature
from liveavatar_core.simulation.voice_limit import VoiceLimit
from liveavatar_core.workload import MANY_CLIPS
from suites.harness.cases.tiers import read_tiers
from suites.harness.records.history import HistoryEntry, keep
from suites.harness.records.measurements import MemoryTimeline, Timing
from suites.harness.records.record import DeclaredRecipe
from suites.harness.report.answers import INPUTS, run_command
from suites.harness.report.html import render_html
from suites.harness.report.html_markup import Markup, tag
from suites.harness.verdicts.judge import write_baseline
from suites.harness.verdicts.verdict import Verdict

TIERS = read_tiers()


def page_of(folder, *records, **changes) -> str:
    options = settings(folder, **changes)
    return render_html([judged(record, options) for record in records], TIERS, options)


def count(page, selector: str) -> int:
    return page.locator(selector).count()


def test_the_answer_comes_first_and_then_the_verdict(show, tmp_path):
    page = show(page_of(tmp_path, ran_out(), fitting()))
    assert page.locator("h1").inner_text() == "4 × RTX 4090: runs if laid out otherwise"
    assert page.locator("h1").bounding_box()["y"] < 100
    assert page.locator(".verdict.good").inner_text() == "All 2 runs ended as expected"
    page = show(page_of(tmp_path, hostile()))
    assert page.locator(".verdict.bad").inner_text() == "1 of 1 runs need a decision: outcome-changed"


def test_a_newcomer_finds_why_four_cards_fail_and_what_would_fit(show, tmp_path):
    page = show(page_of(tmp_path, ran_out(), fitting()))
    article = page.locator("article", has=page.locator(".ending.oom")).inner_text()
    assert "gathered parameters asked for 3.92 GiB; 0.64 GiB were free of 22.15 GiB" in article
    assert "gathering the text embedding adds 3.9 GiB, and 22.15 are usable" in article
    assert "bf16_sharded: 12.00 GiB a card; 19.8 s a clip, 2.43 frames a second (predicted); storage" in article
    assert "; storage_dtype = bfloat16" in article
    assert article.count("bf16_sharded:") == 1, "it ran, so it is not said once more that it is known to fit"
    assert "python -m liveavatar_core fit --cards '4xRTX 4090'" in article


def test_the_longest_voice_is_said_where_it_is_not_any(tmp_path):
    limit = VoiceLimit(clips=417, seconds=800.6, why="rank 0, encode: 0.17 GiB asked")
    page = page_of(tmp_path, fitting(longest_voice=limit))
    assert "Longest voice: 800.6 s (417 clips); beyond, rank 0, encode: 0.17 GiB asked." in page
    any_voice = VoiceLimit(clips=MANY_CLIPS, seconds=1920.0)
    assert "Longest voice" not in page_of(tmp_path, fitting(longest_voice=any_voice))


def test_without_a_run_that_fits_the_page_lists_what_is_known_to(show, tmp_path):
    """Reviewed numbers where there are some; else the arithmetic, and that it did not run."""
    reviewed = fitting(case="encoders_freed")
    write_baseline(reviewed, settings(tmp_path, baseline_update="all"))
    page = show(page_of(tmp_path, ran_out()))
    items = {item.split(":")[0]: item for item in page.locator(".remedies li").all_inner_texts()}
    assert set(items) == {case.name for case in TIERS["gpu4x24"].cases if case.expect.outcome == "pass"}
    assert "12.00 GiB a card (reviewed baseline), 19.8 s a clip predicted" in items["encoders_freed"]
    assert "not run here. " in items["bf16_sharded"]
    assert next(iter(items)) == "bf16_sharded", "the fewest changes first"
    assert "storage_dtype = bfloat16" in items["bf16_sharded"]
    assert "10.4 GiB a card; gathering the text embedding adds 3.9" in items["bf16_sharded"]
    assert "pytest -m gpu4x24 --hardware=simulated" in page.locator(".remedies").inner_text()


def test_the_answer_for_each_set_of_cards_stands_below_the_verdict(show, tmp_path):
    told = answer(show(page_of(tmp_path, ran_out(), fitting())))
    assert told == [
        "4 × RTX 4090 runs if laid out otherwise simulated",
        "bf16_sharded fits with 10.15 GiB a card to spare; 19.8 s a clip, 2.43 frames a second (predicted)."
        " published_sharded lacks 3.28 GiB a card in encode.",
        f"torchrun --nproc-per-node 4 -m liveavatar_core generate --recipe bf16_sharded {INPUTS}",
    ]


def answer(page) -> list[str]:
    """The lines of the only answer."""
    return [line for line in page.locator(".answers li").inner_text().split("\n") if line]


def test_cards_on_which_nothing_fits_get_the_search(show, tmp_path):
    page = show(page_of(tmp_path, ran_out(tier="lab1x24")))
    assert answer(page)[0] == "lab1x24 does not run simulated"
    assert answer(page)[2] == "python -m liveavatar_core fit --cards '4xRTX 4090'"


@pytest.mark.parametrize(("tier_of", "case"), [(tier, case) for tier in TIERS.values() for case in tier.cases])
def test_the_command_of_an_answer_makes_just_that_recipe(monkeypatch, tier_of, case):
    command = shlex.split(run_command(tier_of, case).removesuffix(INPUTS))
    words = command[command.index("generate") :]
    monkeypatch.setenv("WORLD_SIZE", "1" if command[0] == "python" else command[command.index("--nproc-per-node") + 1])
    given = ["--seeded_weights=14b", "--image=i", "--audio=a", "--prompt=p"]
    recipe = read_recipe(make_parser().parse_args([*words, *given]))
    declared = tier_of.recipe(case)
    assert recipe.deployment == declared.deployment
    assert recipe.clip == replace(declared.clip, num_clip=recipe.clip.num_clip), "how long a video is, people say"


def test_a_layout_that_is_known_to_fit_makes_it_run_if(show, tmp_path):
    told = answer(show(page_of(tmp_path, ran_out())))
    assert told[0] == "4 × RTX 4090 runs if laid out otherwise simulated"
    assert told[1].startswith("bf16_sharded is known to fit, and did not run here. published_sharded lacks 3.28 GiB")
    assert "--recipe bf16_sharded" in told[2]


def test_a_miniature_answers_nothing_about_real_cards(show, tmp_path):
    small = fitting(hardware="miniature", limit_bytes=17 * 2**20)
    told = answer(show(page_of(tmp_path, small)))
    assert told[0] == "4 × RTX 4090 not answered here miniature"
    assert told[2] == "pytest -m gpu4x24 --hardware=simulated"
    rows = show(page_of(tmp_path, small, fitting())).locator("table.runs tbody tr").all_inner_texts()
    assert [row.split("\t")[2] for row in rows] == ["simulated", "miniature"]


def test_tiers_of_miniatures_alone_come_last(show, tmp_path):
    small = fitting(tier="a_small_one", hardware="miniature")
    page = show(page_of(tmp_path, small, fitting()))
    assert [title.split(":")[0] for title in page.locator("main h2").all_inner_texts()] == [
        "gpu4x24",
        "a_small_one",
        "How to read the charts",
    ]


def test_where_and_when_it_ran_stands_at_the_top(show, tmp_path):
    page = show(page_of(tmp_path, measured(20.0), ran_out(commit="abcdef0+")))
    facts = dict(each.split("\n") for each in page.locator(".facts dl > div").all_inner_texts())
    assert facts["commit"] == "1f0c2ab, abcdef0+"
    assert (facts["date"], facts["torch"]) == ("2026-11-20", "2.13.0")
    assert facts["machine"].startswith("4 × NVIDIA GeForce RTX 4090, ")


def test_contents_lead_to_every_run(show, tmp_path):
    page = show(page_of(tmp_path, ran_out(), fitting(), hostile()))
    targets = [link.get_attribute("href") for link in page.locator("nav a").all()]
    assert len(targets) == 3 + 2 + 1, "runs, tiers, the help"
    assert all(page.evaluate("id => document.getElementById(id) !== null", target[1:]) for target in targets)


def test_the_table_says_what_was_lacking_and_how_fast_it_is(show, tmp_path):
    page = show(page_of(tmp_path, ran_out(), fitting()))
    rows = [row.split("\t")[6:10] for row in page.locator("table.runs tbody tr").all_inner_texts()]
    assert rows == [["+10.15 GiB", "19.8 (predicted)", "2.43", "10.3"], ["-3.28 GiB", "–", "–", "–"]]


def test_charts_have_a_mark_for_everything_that_was_read(show, tmp_path):
    page = show(page_of(tmp_path, ran_out()))
    charts = page.locator("svg.memory")
    assert charts.count() == 2, "rank 0 by itself, three ranks that went alike together"
    first, alike = charts.nth(0), charts.nth(1)
    assert (count(first, ".area"), count(alike, ".area")) == (2, 1), "a category that is never held is no mark"
    assert (count(first, ".oom"), count(alike, ".oom")) == (1, 0)
    assert (count(first, ".limit"), count(alike, ".limit")) == (1, 1)
    assert (count(first, ".phase"), count(alike, ".phase")) == (2, 2)


def test_a_real_card_shows_what_it_allocated_and_what_it_kept(show, tmp_path):
    line = MemoryTimeline(
        rank=0,
        axis="milliseconds",
        phases=("load", "denoise"),
        starts=(0, 8000),
        bytes_by_category={"allocated": (5 * GIB, 11 * GIB), "cached": (0, GIB)},
    )
    chart = show(page_of(tmp_path, measured(20.0, timelines=(line,)))).locator("svg.memory")
    assert [count(chart, mark) for mark in (".c-allocated", ".c-cached", ".c-other", ".phase")] == [1, 1, 0, 2]
    assert "over 8.0 s" in chart.locator("desc").text_content()
    assert chart.locator(".axis-name").text_content() == "milliseconds since the rank began"
    assert [text for text in chart.locator("text").all_text_contents() if "," in text][:2] == ["2,000", "4,000"]
    assert "denoise, 8,000 ms: 12.00 GiB" in chart.locator(".moment title").last.text_content()


def test_pointing_at_a_moment_tells_what_stood_then(show, tmp_path):
    page = show(page_of(tmp_path, ran_out()))
    chart = page.locator("svg.memory").first
    assert chart.locator(".axis-name").text_content() == "allocations on the card so far"
    told = chart.locator(".moment title").last.text_content().split("\n")
    assert told == [
        "encode, after 3 allocations: 21.91 GiB of 22.15 GiB",
        "parameters 21.51 GiB",
        "gathered parameters 0.40 GiB",
    ]
    box = chart.locator(".moment").last.bounding_box()
    under = "([x, y]) => document.elementFromPoint(x, y).getAttribute('class')"
    page.mouse.move(0, 0)
    chart.scroll_into_view_if_needed()
    box = chart.locator(".moment").last.bounding_box()
    assert page.evaluate(under, [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]) == "moment"


def test_peaks_alone_have_no_axis_of_time(show, tmp_path):
    chart = show(page_of(tmp_path, fitting())).locator("svg.memory").first
    assert chart.locator(".axis-name").text_content() == "the fullest moment of each phase, one after the other"
    assert chart.locator(".moment title").first.text_content() == "load: 11.00 GiB of 22.15 GiB\nparameters 11.00 GiB"


def test_settings_of_miniatures_are_no_remedy(show, tmp_path):
    """The small model's size and LoRA differ from the full size of layouts that did not run."""
    tier = TIERS["gpu4x24"]
    small = DeclaredRecipe.of(miniature(tier.recipe(tier.case("published_sharded"))))
    page = show(page_of(tmp_path, ran_out(hardware="miniature", recipe=small)))
    items = {item.split(":")[0]: item for item in page.locator(".remedies li").all_inner_texts()}
    assert items["bf16_sharded"].endswith("Settings: lora = merged, storage_dtype = bfloat16")
    assert not any("64*64" in item or "lora_rank" in item or "size = 688" in item for item in items.values())


def test_what_could_not_be_had_stands_above_the_limit(show, tmp_path):
    chart = show(page_of(tmp_path, ran_out())).locator("svg.memory").first
    limit = float(chart.locator(".limit").get_attribute("y1"))
    asked = chart.locator(".asked")
    top, height = (float(asked.get_attribute(name)) for name in ("y", "height"))
    assert top < limit < top + height


def test_seconds_are_dots_over_the_band_of_the_baseline(show, tmp_path):
    record = measured(22.0, 22.5, 22.2, 25.0)
    options = settings(tmp_path, baseline_update="all")
    write_baseline(record, options)
    page = show(page_of(tmp_path, record))
    plot = page.locator("svg.seconds")
    assert [count(plot, mark) for mark in (".clip", ".band", ".predicted")] == [4, 1, 0]
    left = float(plot.locator(".band").get_attribute("x"))
    right = left + float(plot.locator(".band").get_attribute("width"))
    inside = [left <= float(dot.get_attribute("cx")) <= right for dot in plot.locator(".clip").all()]
    assert inside == [True, True, True, False]
    assert plot.locator(".band").get_attribute("x") == "14", "faster is never too fast"
    both = measured(22.0, 22.5, timing=Timing(clip_seconds=(22.0, 22.5), predicted_seconds_per_clip=19.77))
    plot = show(page_of(tmp_path / "other", both)).locator("svg.seconds")
    assert [count(plot, mark) for mark in (".clip", ".band", ".predicted")] == [2, 0, 1]


def test_one_number_of_seconds_is_said_and_not_drawn(show, tmp_path):
    write_baseline(fitting(), settings(tmp_path, baseline_update="all"))
    page = show(page_of(tmp_path, fitting()))
    assert count(page, "svg.seconds") == 0
    told = page.locator(".seconds-text").inner_text()
    assert told == "Seconds a clip ◆ predicted 19.77 s, no clock was read; ▬ baseline allows at most 19.87 s"


def test_a_prediction_stands_beside_the_measurement_of_the_same_recipe(show, tmp_path):
    page = show(page_of(tmp_path, fitting(), measured(20.0, 21.0, 22.0)))
    rows = page.locator("table.agreement tbody tr").all_inner_texts()
    assert [row.split("\t") for row in rows] == [
        ["peak in load", "11.00 GiB", "11.00 GiB", "+0.0%"],
        ["peak in denoise", "12.00 GiB", "12.00 GiB", "+0.0%"],
        ["seconds a clip", "19.77 s", "21.00 s", "-5.9%"],
    ]


@pytest.fixture
def nights(tmp_path):
    """Writes a history of measurements, and gives the page of the last one."""

    def page(*seconds: float) -> str:
        runs = [measured(each, each) for each in seconds]
        start = datetime(2026, 11, 1, tzinfo=UTC)
        for day, run in enumerate((*runs, ran_out())):
            keep(tmp_path / "history", HistoryEntry.of(run, Verdict.PASS, start + timedelta(days=day)))
        return page_of(tmp_path, runs[-1], history=tmp_path / "history")

    return page


def test_a_history_becomes_a_trend(show, nights):
    charts = show(nights(20.0, 21.0)).locator("svg.history").all()
    assert [count(chart, ".run") for chart in charts] == [2, 2], "peak and seconds"
    assert [count(chart, ".fence") for chart in charts] == [0, 0], "two runs make no fence"


@pytest.mark.parametrize(("last", "outside"), [(20.1, 0), (30.0, 1)])
def test_a_value_out_of_its_trend_is_marked(show, nights, last, outside):
    page = show(nights(*(20 + 0.1 * (at % 3) for at in range(10)), last))
    chart = page.get_by_role("img", name="Time a clip, s, over time")
    assert [count(chart, mark) for mark in (".fence", ".outside")] == [1, outside]
    assert ("OUTSIDE the fence" in chart.locator("desc").text_content()) == bool(outside)


def test_what_else_needs_a_decision_stands_at_the_top(show, tmp_path):
    options = settings(tmp_path)
    text = render_html([judged(fitting(), options)], TIERS, options, ["<b>odd\nnext: look"])
    assert show(text).locator("header .next").inner_text() == "<b>odd\nnext: look"


def test_quality_stands_beside_its_baseline_or_the_reason_why_there_is_none(show, tmp_path):
    reviewed = fitting(quality={"latent_cosine": 0.99})
    write_baseline(reviewed, settings(tmp_path, baseline_update="all"))
    record = fitting(quality={"latent_cosine": 0.98, "psnr_db": 40.0}, quality_missing={"lip_sync_strength": "no face"})
    rows = show(page_of(tmp_path, record)).locator("details.quality[open] tbody tr").all_inner_texts()
    cells = [row.split("\t") for row in rows]
    assert [[row[0], row[2]] for row in cells] == [
        ["latent_cosine", "0.98"],
        ["psnr_db", "40"],
        ["lip_sync_strength", "none: no face"],
    ]
    assert cells[0][3] == "at least 0.989", "a higher likeness is never too high"
    assert cells[2][3] == "no baseline yet"


def test_charts_have_names_that_are_read_aloud(show, tmp_path):
    page = show(page_of(tmp_path, ran_out(), fitting()))
    assert page.get_by_role("img", name="Memory of ranks 1–3, published_sharded on gpu4x24").count() == 1
    assert page.get_by_role("img", name="Memory of rank 0, published_sharded on gpu4x24").count() == 1
    assert page.get_by_role("img").count() == count(page, "svg")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_screen(show, tmp_path, scheme):
    text = page_of(tmp_path, ran_out(), fitting(), measured(20.0, 21.0), hostile())
    wide = show(text, width=1280, scheme=scheme)
    assert wide.evaluate("document.documentElement.scrollWidth") == 1280
    page = show(text, width=390, scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    smallest = page.evaluate("Math.min(...[...document.querySelectorAll('svg')].map(e => e.clientWidth / 360))")
    assert smallest > 0.8, "drawn so small, its text cannot be read"


def test_dark_and_light_can_both_be_read(show, tmp_path):
    for scheme in ("light", "dark"):
        page = show(page_of(tmp_path, ran_out(), fitting()), scheme=scheme)
        for selector in ("body", ".quiet", "h1", ".badge", ".next", "a"):
            assert contrast(page, selector) >= 4.5, (scheme, selector)


def contrast(page, selector: str) -> float:
    """Of the first such element's text with what is behind it, as WCAG counts it."""
    return page.locator(selector).first.evaluate(
        """element => {
            const parts = text => text.match(/[\\d.]+/g).map(Number);
            const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
                .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
                .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
            let behind = element;
            while (parts(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
            const [a, b] = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor]
                .map(text => light(parts(text)) + 0.05);
            return Math.max(a, b) / Math.min(a, b);
        }"""
    )


def test_hostile_names_stay_text(show, tmp_path):
    page = show(page_of(tmp_path, hostile()))
    assert page.evaluate("window.owned") is None
    assert count(page, "script") == count(page, "img") == count(page, "[onerror]") == 0
    shown = page.locator("body").inner_text()
    assert HOSTILE[:80].split("\u202e")[0] in shown
    assert "\u202e" not in shown
    assert "\x1b" not in shown


def test_a_video_is_shown_in_frames_and_can_be_played(show, tmp_path):
    numpy, media = pytest.importorskip("numpy"), pytest.importorskip("liveavatar_core.media")
    folder = tmp_path / "report/runs/gpu4x24.bf16_sharded.simulated"
    folder.mkdir(parents=True)
    with media.VideoWriter(folder / "video.mp4", 64, 48) as writer:
        writer.write(numpy.zeros((12, 64, 48, 3), numpy.uint8))
    page = show(page_of(tmp_path, fitting(), ran_out()))
    picture = page.get_by_role("img", name="Frames of the video")
    assert picture.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [720, 160]
    assert page.locator("video").get_attribute("src").startswith("data:video/mp4;base64,")
    assert page.locator("video").get_attribute("poster").startswith("data:image/jpeg;base64,")


def test_a_broken_video_and_a_run_without_readings_leave_a_page(show, tmp_path):
    folder = tmp_path / "report/runs/gpu4x24.published_sharded.simulated"
    folder.mkdir(parents=True)
    (folder / "video.mp4").write_text("no video")
    page = show(page_of(tmp_path, ran_out(memory=(), timelines=(), limit_bytes=None)))
    assert count(page, "article") == 1
    assert count(page, "svg") == 0
    assert "Nothing ran" in show(page_of(tmp_path)).locator("h1").inner_text()


def test_text_is_escaped_unless_it_was_made_as_markup():
    assert tag("p", "<b>", Markup("<i></i>"), title='"&') == '<p title="&quot;&amp;">&lt;b&gt;<i></i></p>'
