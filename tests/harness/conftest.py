"""What several tests of the harness share."""

import pytest
from lab import ROOT, Lab


@pytest.fixture
def lab(pytester, monkeypatch) -> Lab:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return Lab(pytester)
