"""What mutmut says is read rightly."""

from ci.mutants import EQUIVALENT, Mutant, _names, parse_diff

RESULTS = """
    suites.harness.verdicts.stats.x_disjoint__mutmut_3: survived
    suites.harness.verdicts.waivers.xǁWaiverǁ__post_init____mutmut_16: killed
"""
DIFF = """# suites.harness.verdicts.stats.x_disjoint__mutmut_3: survived
--- suites/harness/verdicts/stats.py
+++ suites/harness/verdicts/stats.py
@@ -1,4 +1,4 @@
 def disjoint(first, second):
-    return low[1] < high[0]
+    return low[1] <= high[0]
"""


def test_names_and_their_status():
    assert list(_names(RESULTS).values()) == ["survived", "killed"]


def test_a_mutant_is_known_by_its_function_and_its_line():
    name = "suites.harness.verdicts.stats.x_disjoint__mutmut_3"
    assert parse_diff(name, DIFF) == Mutant(
        function="suites.harness.verdicts.stats.disjoint",
        before="return low[1] < high[0]",
        after="return low[1] <= high[0]",
    )
    method = "suites.harness.verdicts.waivers.xǁWaiverǁ__post_init____mutmut_16"
    assert parse_diff(method, DIFF).function == "suites.harness.verdicts.waivers.Waiver.__post_init__"


def test_each_equivalent_mutant_has_a_reason():
    assert EQUIVALENT.read_text().count("[[mutant]]") == EQUIVALENT.read_text().count("\nreason = ")
