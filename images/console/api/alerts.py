"""Routes of alerts: list, take on, and the daemon's heartbeat for who watches from outside."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from images.console.pages import Cursor, Limit, page
from images.console.state import Asking, Here
from llmops_assets.operations import alerts
from llmops_assets.operations.errors import Unavailable

router = APIRouter(prefix="/alerts", tags=["alerts"])


@router.get("")
def list_(
    here: Here, asking: Asking, open: bool | None = None, limit: Limit = 50, cursor: Cursor = None
) -> dict[str, Any]:
    """Alerts, those that are so first, the newest first; `open=true`: only those."""
    found = alerts.list_alerts(here.wiring, asking.name, is_open=open, limit=1000)
    shown = page(found, limit, cursor, lambda one: str(one.id))
    return {**shown, "items": [vars(one) for one in shown["items"]]}


@router.get("/heartbeat")
def heartbeat(here: Here) -> JSONResponse:
    """200 while Dagster's daemon gives signs, 503 when it gave none for too long."""
    try:
        last = alerts.assert_alive(here.wiring)
    except Unavailable as error:
        return JSONResponse({"status": "dead", "detail": str(error)}, 503)
    return JSONResponse({"status": "alive", "last_sign": last.isoformat()})


@router.post("/{alert_id}/ack")
def ack(alert_id: int, here: Here, asking: Asking) -> dict[str, Any]:
    """Take an alert on; `is_new`: by this request."""
    return {"id": alert_id, "is_new": alerts.ack(here.wiring, asking.name, alert_id)}
