"""A server that speaks the part of Qdrant's HTTP that is used here, answered by the client's own local engine."""

from typing import Any

from qdrant_client import QdrantClient
from qdrant_client import models as m
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


class FakeQdrant:
    """The engine, what it was asked, and the key that it wants; `fails` has every request answered 500."""

    def __init__(self, key: str | None = None) -> None:
        self.client = QdrantClient(":memory:")
        self.key = key
        self.fails = False
        self.asked: list[str] = []

    def app(self) -> Starlette:
        async def answer(request: Request) -> Response:
            self.asked.append(f"{request.method} {request.url.path}")
            if self.key is not None and request.headers.get("api-key") != self.key:
                return JSONResponse({"status": {"error": "Must provide an API key"}}, status_code=401)
            if self.fails:
                return JSONResponse({"status": {"error": "out of disk"}}, status_code=500)
            body = await request.json() if await request.body() else {}
            return JSONResponse({"result": self._do(request, body), "status": "ok", "time": 0.0})

        return Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "PUT", "POST", "DELETE"])])

    def _do(self, request: Request, body: dict[str, Any]) -> Any:
        client, method = self.client, request.method
        match request.path_params["path"].split("/"):
            case ["aliases"]:
                return client.get_aliases().model_dump()
            case ["collections", "aliases"]:
                return client.update_collection_aliases(m.ChangeAliasesOperation.model_validate(body).actions)
            case ["collections", name, "exists"]:
                return {"exists": client.collection_exists(name)}
            case ["collections", name, "points", "count"]:
                return {"count": client.count(name, exact=True).count}
            case ["collections", name, "points", "query"]:
                query = m.QueryRequest.model_validate(body)
                found = client.query_points(name, query=query.query, using=query.using, limit=query.limit or 10)
                return {"points": [{"id": p.id, "version": 0, "score": p.score} for p in found.points]}
            case ["collections", name, "points"]:
                points = m.PointsList.model_validate(body).points
                client.upsert(name, points)
                return {"operation_id": 1, "status": "completed"}
            case ["collections", name] if method == "PUT":
                config = m.CreateCollection.model_validate(body)
                vectors, sparse = config.vectors, config.sparse_vectors
                return client.create_collection(name, vectors_config=vectors, sparse_vectors_config=sparse)
            case ["collections", name] if method == "DELETE":
                return client.delete_collection(name)
        raise AssertionError(f"{method} {request.url.path} is not used here")
