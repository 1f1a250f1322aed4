"""The OpenAPI description: every route, and the columns of the models; test_fuzz compares responses
with it.
"""

from __future__ import annotations

from hemix.serving.http.app import make_app
from hemix.serving.http.service import Service
from hemix.serving.loaded_models import LoadedModels
from hemix.serving.stores import open_store
from tests.serving.http.fake import FakeEngine
from tests.serving.http.process import Server


def test_openapi_describes_every_route(server: Server) -> None:
    document = server.ask("GET", "/openapi.json").json
    assert document["openapi"] == "3.1.0"
    described = {
        (path, method) for path, methods in document["paths"].items() for method in methods
    }
    store = open_store("memory://")
    models = LoadedModels(lambda *run: FakeEngine(*run, store))
    service = Service(models=models, store=store)
    routes = {
        (route.path.replace(":path}", "}"), method.lower())
        for route in make_app(service)._app.routes  # type: ignore[attr-defined]
        for method in route.methods - {"HEAD"}
    }
    service.close()
    assert routes - described == {("/", "get"), ("/docs", "get"), ("/openapi.json", "get")}
    assert described <= routes


def test_openapi_has_the_columns_of_what_serves(server: Server) -> None:
    schemas = server.ask("GET", "/openapi.json").json["components"]["schemas"]
    columns = {
        message: schemas[message]["properties"][field]["properties"]
        for message, field in (
            ("RankMessage", "context"),
            ("ItemMessage", "fields"),
            ("EventMessage", "fields"),
        )
    }
    assert columns["RankMessage"].keys() == {"sleep", "fail"}, "the hour is read from no column"
    assert columns["ItemMessage"].keys() == {"item_id", "price", "picture", "match"}
    assert columns["EventMessage"].keys() == {
        "action",
        "tab",
        "user_id",
        "likes",
        "lat",
        "lon",
        "item_id",
        "price",
        "picture",
    }
    assert columns["EventMessage"]["lat"] == {
        "type": ["number", "null"],
        "minimum": -90,
        "maximum": 90,
    }
    picture = columns["ItemMessage"]["picture"]
    assert (picture["minItems"], picture["maxItems"], picture["items"]) == (
        2,
        2,
        {"type": "number"},
    )
    assert schemas["EventMessage"]["properties"]["fields"]["additionalProperties"], (
        "others are left aside"
    )
