"""Every published figure is looked at, and says what claim_checks.toml says."""

from __future__ import annotations

import pytest

from suites.harness.pytest_plugin.plugin import SESSION
from suites.published.check_claims import answer
from suites.published.evidence import Evidence
from suites.published.figures import Figure, read_claim_checks, read_figures

pytestmark = pytest.mark.published
FIGURES = read_figures()


@pytest.fixture(scope="module")
def evidence(request: pytest.FixtureRequest) -> Evidence:
    """Records of this commit, made once where there are none."""
    return Evidence(request.config.stash[SESSION].settings.report_dir)


@pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)
def test_says_what_is_settled(figure: Figure, evidence: Evidence) -> None:
    """Another answer fails: then the figure is to be settled anew, in a reviewed change of claim_checks.toml."""
    settlement = read_claim_checks()[figure.id]
    if settlement.verdict == "not testable":
        pytest.skip(f"not testable here because {settlement.because}")
    found = answer(figure, settlement, evidence)
    if not found.as_settled:
        text = (
            f"{figure.id}: ours {found.ours}, published {figure.published}: {found.verdict}, not {settlement.verdict}"
        )
        pytest.fail(f"{text}\nnext: find what moved it, or settle it anew in claim_checks.toml", pytrace=False)
