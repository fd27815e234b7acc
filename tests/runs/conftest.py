import time

import pytest
from children import Child, arguments


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    """An uninterrupted run of each script, made when it is first asked for; and the seconds it takes."""
    made = {}

    def make(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name) / "out"
            assert (
                Child(name, arguments(name, folder.with_name("warm_up"))).wait() == 0
            )  # starts the server of processes
            start = time.monotonic()
            assert Child(name, arguments(name, folder)).wait() == 0
            made[name] = folder, time.monotonic() - start
        return made[name]

    return make
