import pytest
from helpers import ROOT

from hw5_lab.teaching.sandbox import Sandbox


@pytest.fixture(scope="session")
def box():
    """A child process for all tests of this folder. It is started with a secret and a path in the environment."""
    with Sandbox(as_root=True) as made:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SECRET_TOKEN", "1")
            patch.setenv("PYTHONPATH", str(ROOT))
            made.start()
        made.greet()
        yield made
    assert not made.folder.exists()
