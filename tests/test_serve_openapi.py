"""The service against its own description: what schemathesis makes up, valid and not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from drawn_smears import KnownLocator
from hemascope import Classifier
from hemascope.serve.app.create import create_app
from hemascope.serve.app.settings import Settings
from hemascope.serve.counting import Counting
from test_serve import BEARER, TOKEN

if not os.environ.get("CI"):
    pytest.importorskip("schemathesis", reason="schemathesis is not installed")
import schemathesis

EXAMPLES = 15  # of each endpoint


@pytest.fixture(scope="module")
def served() -> Iterator[Starlette]:
    counting = Counting(Classifier(threads=1), KnownLocator(), "1" * 64)
    app = create_app(Settings(TOKEN, workers=1), counting)
    with TestClient(app):
        yield app


@pytest.fixture
def described(served: Starlette) -> Any:
    return schemathesis.openapi.from_asgi("/openapi.json", served, headers=BEARER)


schema = schemathesis.pytest.from_fixture("described")


@pytest.mark.slow
@schema.parametrize()
@hypothesis.settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
)
def test_answers_are_those_of_the_description(case: Any) -> None:
    case.call_and_validate(headers=BEARER)
