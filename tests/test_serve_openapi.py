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

EXAMPLES = 15  # of each endpoint
METHODS = {"get", "post", "delete"}


@pytest.fixture(scope="module")
def served() -> Iterator[Starlette]:
    counting = Counting(Classifier(threads=1), KnownLocator(), "1" * 64)
    app = create_app(Settings(TOKEN, workers=1), counting)
    with TestClient(app):
        yield app


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["positive", "negative"])
def test_answers_are_those_of_the_description(served: Starlette, kind: str) -> None:
    if not os.environ.get("CI"):
        pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    import schemathesis  # here, since it takes a second, which each worker would spend
    from schemathesis import GenerationMode
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    mode = GenerationMode(kind)
    schema = schemathesis.openapi.from_asgi("/openapi.json", served, headers=BEARER)
    settings = hypothesis.settings(
        max_examples=EXAMPLES, suppress_health_check=list(hypothesis.HealthCheck), database=None
    )
    for path, methods in schema.raw_schema["paths"].items():
        for method in sorted(methods.keys() & METHODS):
            takes = methods.get("parameters") or methods[method].keys() & {
                "parameters",
                "requestBody",
            }
            if mode is GenerationMode.NEGATIVE and not takes:
                continue  # nothing can be wrong

            # A schema cannot say which bytes are an image, so that valid ones may be refused.
            @settings
            @hypothesis.seed(0)
            @hypothesis.given(case=schema[path][method.upper()].as_strategy(mode))
            def ask(case: Any) -> None:
                case.call_and_validate(headers=BEARER, excluded_checks=[positive_data_acceptance])

            ask()
