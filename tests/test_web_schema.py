"""The published openapi.json is kept: schemathesis asks what the schema allows, and what it does not."""

import warnings

import pytest
import studio

pytest.importorskip("fastapi")
schemathesis = pytest.importorskip("schemathesis")
from hypothesis import HealthCheck, Phase, given  # noqa: E402
from hypothesis import settings as bounded  # noqa: E402
from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402

from medisyn.web.app import create  # noqa: E402
from medisyn.web.settings import Limits  # noqa: E402

QUIET = bounded(max_examples=6, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate],
                suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return studio.settings(tmp_path_factory.mktemp("schema"), limits=Limits(images=50, waiting=1_000), names=("testserver",))


@pytest.fixture(scope="module")
def described(home):
    """The schema, but for what waits for a worker: there is none here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        app = create(home)
        found = schemathesis.openapi.from_asgi("/openapi.json", app)
    return found.exclude(path="/v1/images/generations").exclude(path_regex="events$")


def test_every_operation_answers_as_it_says(described):
    seen = 0
    for found in described.get_all_operations():
        operation = found.ok()

        @QUIET
        @given(case=operation.as_strategy())
        def asks(case):
            case.call_and_validate(excluded_checks=[positive_data_acceptance])  # words beyond the vocabulary are refused
        asks()
        seen += 1
    assert seen >= 14
