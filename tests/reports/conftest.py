import shutil
from collections.abc import Iterator

import pytest
from tests.reports.browser import Browser


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if shutil.which("chromium") is None:
        pytest.skip("needs chromium")
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser
