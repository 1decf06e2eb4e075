import pytest
import runs


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """Folder of a small data set and of two models to start from, see `runs.make_start`."""
    folder = tmp_path_factory.mktemp("start")
    runs.make_start(folder)
    return folder
