"""What the tests of continuous integration share."""

import pytest
from repository import Repository


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path)
