"""A tier over several machines: ranks that torchrun started, and the record of what they left in a shared folder.

    torchrun ... -m suites.harness.multinode rank TIER CASE FOLDER     # every rank
    python -m suites.harness.multinode record TIER CASE FOLDER         # once, when all have ended

Ranks do what they do under the harness, in the same workers; only their commands come from here and their answers go
into files. `record` writes the run record, judges it and has an exit status by verdict, as a test has.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from liveavatar_core.errors import BadInput, LiveAvatarError
from liveavatar_core.weight_files import given_weights
from suites.harness.cases.clip_rounds import asked_rounds
from suites.harness.cases.run_plan import RunPlan
from suites.harness.cases.tiers import read_tiers
from suites.harness.cases.workloads import given_workload
from suites.harness.multinode.gather import gather
from suites.harness.multinode.torchrun_rank import plan_of, run_rank
from suites.harness.pytest_plugin.options import Settings
from suites.harness.pytest_plugin.session import Result
from suites.harness.report.terminal import render
from suites.harness.verdicts.judge import judge
from suites.harness.verdicts.verdict import exit_code


def main(arguments: Sequence[str] | None = None) -> int:
    """Be a rank, or gather what ranks left; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        workload = given_workload(options.image, options.audio, options.prompt)
        weights = given_weights(options.ckpt_dir, options.lora_path_dmd)
        rounds = asked_rounds(options.warm_up_clips, options.measured_clips)
        tiers = read_tiers(*options.tiers, workload=workload, weights=weights, rounds=rounds)
        if options.tier not in tiers:
            raise BadInput(f"there is no tier {options.tier!r}", f"tiers: {', '.join(tiers)}")
        tier = tiers[options.tier]
        case = tier.case(options.case)
        if options.part == "rank":
            run_rank(plan_of(tier, case, options.hardware, options.folder), dict(os.environ))
            return 0
        return _record(plan_of(tier, case, options.hardware, options.folder), options)
    except LiveAvatarError as error:
        print(error, file=sys.stderr)
        return 2


def _record(plan: RunPlan, options: argparse.Namespace) -> int:
    record = gather(plan, options.nodes)
    record.write(options.report_dir)
    judgement = judge(record, plan.case.expect, _settings(options))
    print("\n".join(render([Result(record=record, judgement=judgement)], (), width=80)))
    return exit_code({each.verdict for each in judgement.findings if each.fails}) if judgement.failing else 0


def _settings(options: argparse.Namespace) -> Settings:
    return Settings(
        hardware=(options.hardware,),
        tiers=tuple(options.tiers),
        baseline_dir=options.baseline_dir,
        report_dir=options.report_dir,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m suites.harness.multinode", description="A tier's case over several machines."
    )
    parser.add_argument("part", choices=("rank", "record"), help="be one rank under torchrun; or gather what they left")
    parser.add_argument("tier", metavar="TIER")
    parser.add_argument("case", metavar="CASE")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="on a file system that all machines share")
    parser.add_argument("--hardware", choices=("physical", "miniature"), default="physical")
    parser.add_argument("--nodes", type=int, default=1, help="machines that took part, for the record (1)")
    parser.add_argument("--tiers", action="append", type=Path, default=[], metavar="FILE", help="more tiers")
    parser.add_argument("--ckpt_dir", metavar="FOLDER", help="checkpoint, at one place on all machines (seeded values)")
    parser.add_argument("--lora_path_dmd", metavar="FILE", help="Live Avatar's LoRA, for --ckpt_dir")
    parser.add_argument("--image", metavar="FILE", help="portrait (a drawn one that ships)")
    parser.add_argument("--audio", metavar="FILE", help="voice (one that ships)")
    parser.add_argument("--prompt", metavar="TEXT")
    parser.add_argument("--warm-up-clips", type=int, metavar="N", help="clips before timed ones (cards: 2)")
    parser.add_argument("--measured-clips", type=int, metavar="N", help="clips that are timed (cards: 5)")
    parser.add_argument("--report-dir", type=Path, default=Path("report"), metavar="DIR")
    parser.add_argument("--baseline-dir", type=Path, default=Path("baselines"), metavar="DIR")
    return parser


if __name__ == "__main__":
    sys.exit(main())
