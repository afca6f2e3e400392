"""Passes on what users ask of Dagster's GraphQL: who changes something is asked for a role, and is in the audit log."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
from fastapi import APIRouter, Request
from graphql import DocumentNode, FragmentDefinitionNode, GraphQLError, OperationDefinitionNode, OperationType, parse
from graphql.language import FieldNode, FragmentSpreadNode, InlineFragmentNode, SelectionSetNode
from graphql.utilities import value_from_ast_untyped
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from images.console.problems import Problem
from images.console.state import Asking, Here
from llmops_assets.operations.access import authorise

router = APIRouter(tags=["login"], include_in_schema=False)
LARGEST = 4 * 1024 * 1024
_SECONDS = 120.0
_DEEPEST = 20
_NAMES = {
    "jobName", "pipelineName", "assetSelection", "assetKeys", "assetKey", "path", "runId", "runIds", "parentRunId",
    "rootRunId", "backfillId", "partitionNames", "partitionsByAssets", "scheduleName", "sensorName", "name", "strategy",
    "terminatePolicy", "allPartitions", "partitionKeys", "partitionKey", "key", "value", "reexecutionParams",
}  # fmt: skip
"""What of a request says what it is about. Run config stays out: it may hold what nobody should read twice."""
_TAGS = {"dagster/partition", "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"}


@router.api_route("/dagster/graphql", methods=["GET", "POST"])
async def graphql(request: Request, here: Here, asking: Asking) -> Response:
    """A query passes; a change needs `dagster.launch`, and is written down before and after."""
    data = await _read(request)
    variables = data.get("variables") if isinstance(data.get("variables"), dict) else {}
    try:
        document = parse(str(data.get("query") or ""))
        changes = list(changes_of(document, variables or {}))
    except (GraphQLError, RecursionError) as error:
        raise Problem(400, f"this is no GraphQL: {str(error)[:300]}") from error
    if changes and request.method == "GET":
        # A link on any page would be enough: a browser follows it with the session, and names no page.
        raise Problem(405, "a change is sent by POST", Allow="POST")
    actor = asking.name
    authorise(here.wiring, actor, "dagster.launch" if changes else "dagster.view")
    for name, about in changes:
        await run_in_threadpool(here.wiring.catalog.log, actor, "dagster.launch", name, **about)
    if changes:
        data = {**data, "variables": tagged(variables or {}, asking.user)}
    answer = await _passed_on(here.wiring.settings.dagster_graphql, data)
    if changes:
        done = list(_run_ids(answer.content))
        names = ", ".join(name for name, _ in changes)
        await run_in_threadpool(
            here.wiring.catalog.log, actor, "dagster.answer", names, status=answer.status_code, runs=done[:50]
        )
    kept = {"content-type": answer.headers.get("content-type", "application/json")}
    return Response(answer.content, answer.status_code, kept)


def changes_of(document: DocumentNode, variables: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The changes that a document asks for, in whichever of its operations: name, and what each is about.

    Whatever is called a mutation is one, however its fields are wrapped. Raises GraphQLError for what is nested deeper
    than any page does it: what cannot be looked into is passed on for nobody.
    """
    fragments = {d.name.value: d for d in document.definitions if isinstance(d, FragmentDefinitionNode)}
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode) and definition.operation is OperationType.MUTATION:
            fields = list(_fields(definition.selection_set, fragments))
            if not fields:
                yield "mutation", {}
            for field in fields:
                given = {a.name.value: value_from_ast_untyped(a.value, dict(variables)) for a in field.arguments}
                yield field.name.value, {"about": _about(given)}


def _fields(
    chosen: SelectionSetNode, fragments: Mapping[str, FragmentDefinitionNode], depth: int = 0
) -> Iterator[FieldNode]:
    if depth > _DEEPEST:
        raise GraphQLError(f"fragments may be nested {_DEEPEST} deep")
    for one in chosen.selections:
        if isinstance(one, FieldNode):
            yield one
        elif isinstance(one, InlineFragmentNode):
            yield from _fields(one.selection_set, fragments, depth + 1)
        elif isinstance(one, FragmentSpreadNode) and one.name.value in fragments:
            yield from _fields(fragments[one.name.value].selection_set, fragments, depth + 1)


def _about(value: Any, depth: int = 0) -> Any:
    """What of the arguments says what a change is about, cut to a size that a log can bear."""
    if depth > 8:
        return "…"
    if isinstance(value, dict):
        if value.keys() >= {"key", "value"} and value["key"] not in _TAGS:
            return {}
        inner = {k: v for k, v in value.items() if k in _NAMES or isinstance(v, (dict, list))}
        inner.pop("runConfigData", None)
        found = {str(k)[:100]: _about(v, depth + 1) for k, v in list(inner.items())[:50]}
        return {k: v for k, v in found.items() if v not in ({}, [], None)}
    if isinstance(value, list):
        return [part for part in (_about(v, depth + 1) for v in value[:50]) if part not in ({}, [], None)]
    return value[:200] if isinstance(value, str) else value


def tagged(variables: Mapping[str, Any], user: str) -> dict[str, Any]:
    """The variables with the user's name among the tags of the runs that they ask for, as Dagster shows it."""
    own = {"key": "user", "value": user}

    def with_own(tags: Any) -> list[Any]:
        others = [tag for tag in tags or [] if not (isinstance(tag, dict) and tag.get("key") == "user")]
        return [*others, own]

    found = dict(variables)
    execution = found.get("executionParams")
    for one in execution if isinstance(execution, list) else [execution]:
        if isinstance(one, dict) and "selector" in one:
            metadata = one.get("executionMetadata") or {}
            one["executionMetadata"] = {**metadata, "tags": with_own(metadata.get("tags"))}
    if isinstance(found.get("backfillParams"), dict):
        found["backfillParams"] = {**found["backfillParams"], "tags": with_own(found["backfillParams"].get("tags"))}
    return found


async def _read(request: Request) -> dict[str, Any]:
    """The request as Dagster's webserver would read it."""
    if request.method == "GET":
        return _of_query(request)
    kind, body = request.headers.get("content-type", ""), bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST:
            raise Problem(413, f"a query may have {LARGEST:,} bytes")
    if "application/json" in kind:
        try:
            data = json.loads(bytes(body))
        except (ValueError, RecursionError) as error:
            raise Problem(400, "the request is no JSON") from error
        if not isinstance(data, dict):
            raise Problem(400, "the request should be one object with a query")
    elif "application/graphql" in kind:
        data = {"query": body.decode("utf-8", "replace")}
    else:
        data = _of_query(request)
    return _with_variables(data)


def _of_query(request: Request) -> dict[str, Any]:
    return _with_variables(
        {k: v for k, v in request.query_params.items() if k in ("query", "variables", "operationName")}
    )


def _with_variables(data: dict[str, Any]) -> dict[str, Any]:
    if isinstance(data.get("variables"), str):
        try:
            data["variables"] = json.loads(data["variables"])
        except (ValueError, RecursionError) as error:
            raise Problem(400, "the variables are no JSON") from error
    return data


async def _passed_on(url: str, data: Mapping[str, Any]) -> httpx.Response:
    try:
        async with httpx.AsyncClient(timeout=_SECONDS, follow_redirects=False, trust_env=False) as client:
            return await client.post(url, json=dict(data))
    except httpx.HTTPError as error:
        raise Problem(503, f"Dagster's webserver does not answer: {type(error).__name__}") from error


def _run_ids(body: bytes) -> Iterator[str]:
    """The runs that an answer tells of."""
    try:
        open_ones: list[Any] = [json.loads(body)]
    except (ValueError, RecursionError):
        return
    while open_ones:
        value = open_ones.pop()
        if isinstance(value, dict):
            if isinstance(found := value.get("runId"), str):
                yield found
            open_ones += value.values()
        elif isinstance(value, list):
            open_ones += value
