"""The README's table of remedies is what the command writes: a row a remedy, and nothing that is not one."""

from __future__ import annotations

import re

import pytest

from liveavatar_core.errors import BadInput
from suites.harness.report.generated_blocks import lines_between, replaced
from suites.tiers import remedies_table as table

ROW = re.compile(
    r"\| (?P<cards>\d+ x [\w ]+) \| `(?P<recipe>\w+)` \| (?P<peak>\d+\.\d\d) \| (?P<room>\d+\.\d\d) \| \d+ \| \d+\.\d"
    r" \| (equal \(1e-5\)|PSNR \d+\.\d+ dB) \|"
)


def test_the_readme_has_a_row_for_every_remedy() -> None:
    lines = lines_between(table.README.read_text(), table.NAME)
    assert tuple(lines[:2]) == table.HEAD
    found = [ROW.fullmatch(line) for line in lines[2:]]
    assert all(found)
    expected = [
        (f"{tier.cards} x {tier.card}", case.recipe, tier.limit_bytes / 2**30) for tier, case in table.remedies()
    ]
    for row, (cards, recipe, usable) in zip(found, expected, strict=True):
        assert row is not None
        assert (row["cards"], row["recipe"]) == (cards, recipe)
        assert float(row["peak"]) + float(row["room"]) == pytest.approx(usable, abs=0.011)


def test_only_the_table_is_replaced() -> None:
    readme = "a\n<!-- t -->\nold\n<!-- end of t -->\nb\n"
    assert replaced(readme, "t", "new") == "a\n<!-- t -->\nnew\n<!-- end of t -->\nb\n"
    assert lines_between(replaced(readme, "t", "| x |"), "t") == ["| x |"]
    with pytest.raises(BadInput):
        replaced(readme, "other", "new")


def test_equivalence_is_read_from_junit(tmp_path) -> None:
    path = tmp_path / "equivalence.xml"
    path.write_text(
        '<testsuites><testsuite><testcase name="t[recipe-a]"/>'
        '<testcase name="t[recipe-b]"><properties><property name="psnr_db" value="31.5"/></properties></testcase>'
        '<testcase name="t[recipe-c]"><failure/></testcase></testsuite></testsuites>'
    )
    assert table.read_equivalence(path) == {"a": "equal (1e-5)", "b": "PSNR 31.5 dB"}
    with pytest.raises(BadInput):
        table.read_equivalence(tmp_path / "none.xml")
