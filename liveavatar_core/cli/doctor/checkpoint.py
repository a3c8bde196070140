"""The checkpoint and its LoRA: whole, and made for each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from liveavatar_core.cli.doctor.checks import CheckGroup, CheckResult, bad, good, refused, skipped

FETCH = "fetch the checkpoint again: huggingface-cli download Wan-AI/Wan2.2-S2V-14B"


def weights_branch(ckpt_dir: Path | None, lora: Path | None, *, values: bool) -> CheckGroup:
    """Both, where they are given. `values`: read every weight, which takes minutes."""
    if ckpt_dir is None:
        why = "no --ckpt_dir was given"
        return CheckGroup(name="weights", results=(skipped("checkpoint", why), skipped("LoRA", why)))
    found = (refused("checkpoint", lambda: _checkpoint(ckpt_dir, values)), _lora(ckpt_dir, lora))
    return CheckGroup(name="weights", results=found)


def _checkpoint(ckpt_dir: Path, values: bool) -> CheckResult:
    from liveavatar_core.weights.checkpoint_summary import CheckpointReport, inspect_checkpoint

    def problems(report: CheckpointReport) -> Iterator[str]:
        yield from report.problems
        if not report.has_tokenizer:
            yield "the tokenizer is missing"
        for part in report.components:
            yield from (f"{part.name}: {problem}" for problem in part.problems)

    report = inspect_checkpoint(ckpt_dir, hashes=False, values=values)
    found = list(problems(report))
    if found:
        return bad("checkpoint", f"{len(found)} problems, the first: {found[0]}", FETCH)
    parameters = sum(part.parameters for part in report.components)
    depth = "every weight read" if values else "names and shapes; --every_weight reads the values too"
    return good("checkpoint", f"{parameters / 1e9:.2f} B weights as the model wants them ({depth})")


def _lora(ckpt_dir: Path, lora: Path | None) -> CheckResult:
    if lora is None:
        return skipped("LoRA", "no --lora_path_dmd was given")
    return refused("LoRA", lambda: _lora_fits(ckpt_dir, lora))


def _lora_fits(ckpt_dir: Path, path: Path) -> CheckResult:
    from liveavatar_core.weights.checkpoint import open_component
    from liveavatar_core.weights.lora import check_fits, read_lora

    lora = read_lora(path)
    check_fits(lora, open_component(ckpt_dir, "transformer"))
    return good("LoRA", f"{len(lora.layers)} layers of rank {lora.rank} belong to this transformer")
