"""What is wrong with an installation, and what to do: every part is looked at, and no broken one hides another."""

import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from llmops_assets.operations import doctor_processes as processes
from llmops_assets.operations.access_table import decided_otherwise
from llmops_assets.operations.disks import disks_of
from llmops_assets.wiring import Wiring
from resources import at_rest, mlflow_schema
from resources.backup.make import revision_of
from resources.backup.walk import MARKER
from resources.catalog import HEAD, Lease
from resources.certificates import ends_at, left_seconds
from resources.encryption import EncryptionError
from resources.model_server import LEASE
from resources.probes import answers
from resources.traffic import spool
from resources.traffic.spool_lag import waiting_since

State = Literal["ok", "note", "warning", "fault"]

LEAST_FREE_BYTES = 1 << 30
FEW_FREE_BYTES = 10 << 30
SHIPPED_WITHIN_SECONDS = 60.0
CERTIFICATE_SECONDS = 14 * 86400.0
STUCK_AFTER = timedelta(hours=1)

_PACKAGES = ("llmops", "dagster", "mlflow", "polars", "torch", "transformers", "SQLAlchemy", "qdrant-client")
_ASSETS = (
    "question_answers", "dataset", "quality_report", "clean_dataset", "splits", "training_plan", "adapter",
    "merged_model", "evaluation", "registered_model", "quantized_model", "study", "deployment", "retrieval_index",
)  # fmt: skip


@dataclass(frozen=True)
class Diagnosis:
    """What was found of one part; `advice` says what to do where it is a warning or a fault."""

    part: str
    state: State
    what: str
    advice: str = ""

    def as_dict(self) -> dict[str, str]:
        """For programs."""
        return asdict(self)


Look = Callable[[Wiring, bool], Iterator[Diagnosis]]


def examine(wiring: Wiring, *, is_running: bool) -> list[Diagnosis]:
    """Look at every part; nothing is changed, not even the schema of a catalog of an earlier version.

    `is_running`: the platform runs on this home, so that a component that does not answer is a fault. Whatever goes
    wrong while a part is looked at is a fault of that part.
    """
    findings: list[Diagnosis] = []
    for part, look in _LOOKS.items():
        try:
            findings += look(wiring, is_running)
        except Exception as error:  # noqa: BLE001  a broken part must not hide the others
            words = str(getattr(error, "orig", None) or error).strip().splitlines()
            findings.append(
                Diagnosis(
                    part,
                    "fault",
                    f"{type(error).__name__}: {words[0] if words else ''}",
                    _ADVICE.get(part, "see what is said of the catalog first"),
                )
            )
    return findings


def _versions(wiring: Wiring, is_running: bool) -> Iterator[Diagnosis]:
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            yield Diagnosis("versions", "fault", f"{name} is not installed", "install the package again: make install")
    yield Diagnosis("versions", "ok", ", ".join(f"{name} {number}" for name, number in found.items()))


def _settings(wiring: Wiring, is_running: bool) -> Iterator[Diagnosis]:
    _ = wiring.policy
    yield Diagnosis("policy", "ok", str(wiring.settings.policy_file or "the one of the package"))
    for name in ("encryption_key_file", "watermark_key_file", "jwt_secret_file", "gateway_admin_token_file"):
        path: Path | None = getattr(wiring.settings, name)
        if path is None:
            continue
        path = path.expanduser()
        if not path.is_file():
            yield Diagnosis("settings", "fault", f"LLMOPS_{name.upper()} names {path}, which is no file", "mend it")
        elif stat.S_IMODE(path.stat().st_mode) & 0o077:
            yield Diagnosis("settings", "warning", f"{path} can be read by others", f"chmod 600 {path}")


def _home(wiring: Wiring, is_running: bool) -> Iterator[Diagnosis]:
    root = wiring.settings.root
    if not root.is_dir():
        yield Diagnosis("home", "note", f"{root} is not there yet", "llmops up makes it")
        return
    if (root / MARKER).exists():
        yield Diagnosis("home", "fault", f"{root} was being restored, and that was cut off", "llmops restore once more")
    mode = stat.S_IMODE(root.stat().st_mode)
    if mode & 0o077:
        yield Diagnosis("home", "warning", f"others may look into {root} (mode {mode:o})", f"chmod 700 {root}")
    if not os.access(root, os.W_OK):
        yield Diagnosis("home", "fault", f"{root} cannot be written", "give it to the user who runs the platform")
    else:
        yield Diagnosis("home", "ok", str(root))


def _disk(wiring: Wiring, is_running: bool) -> Iterator[Diagnosis]:
    for disk in disks_of(wiring.settings):
        words = f"{disk.free / 2**30:,.1f} of {disk.size / 2**30:,.1f} GiB free at {disk.folder}"
        if disk.free < LEAST_FREE_BYTES:
            yield Diagnosis("disk", "fault", words, "make room: trainings and the gateway's log need some")
        elif disk.free < FEW_FREE_BYTES:
            yield Diagnosis("disk", "warning", words, "make room before the next training")
        else:
            yield Diagnosis("disk", "ok", words)


def _certificate(wiring: Wiring, is_running: bool) -> Iterator[Diagnosis]:
    if (file := wiring.settings.tls_certificate) is None:
        return
    words = f"the certificate {file} ends {ends_at(file):%Y-%m-%d %H:%M} UTC"
    left = left_seconds(file)
    state: State = "fault" if left <= 0 else "warning" if left < CERTIFICATE_SECONDS else "ok"
    yield Diagnosis("certificate", state, words, "" if state == "ok" else _ADVICE["certificate"])


def _catalog(wiring: Wiring, is_running: bool) -> Iterator[Diagnosis]:
    shown = sa.make_url(wiring.settings.catalog).render_as_string(hide_password=True)
    state = _revision(wiring)
    if state is None:
        yield Diagnosis("catalog", "note", f"{shown} holds nothing yet", "llmops up makes it")
    elif state == HEAD:
        yield Diagnosis("catalog", "ok", f"{shown}, schema {state}")
    elif state < HEAD:
        advice = f"{_UPGRADE}; without that the next start brings it up to date"
        yield Diagnosis("catalog", "warning", f"{shown} has the schema {state}, and this version {HEAD}", advice)
    else:
        advice = "run the version that wrote it, or restore a backup"
        yield Diagnosis("catalog", "fault", f"{shown} has the schema {state}, later than this version's {HEAD}", advice)


def _processes(wiring: Wiring, is_running: bool) -> Iterator[Diagnosis]:
    looks = {"keys": processes.key_files, "catalog": processes.catalog_lock}
    # Where nothing runs, nothing beats; where it does, its ports are its own.
    looks |= {"daemon": processes.daemon} if is_running else {"ports": processes.ports}
    for part, look in looks.items():
        for state, what, advice in look(wiring):
            yield Diagnosis(part, state, what, advice)


def _clock(wiring: Wiring, is_running: bool) -> Iterator[Diagnosis]:
    if _revision(wiring) != HEAD:
        return
    here = datetime.now(UTC)
    newest = wiring.catalog.audit_log(1)
    if newest and newest[0]["at"] > here + timedelta(seconds=5):
        ahead = newest[0]["at"] - here
        what = f"the newest line of the audit log is {ahead.total_seconds():,.0f} s in the future"
        yield Diagnosis("clock", "fault", what, "set the clock (NTP): times of requests and of tokens go by it")
    else:
        yield Diagnosis("clock", "ok", here.isoformat(timespec="seconds"))


def _keys(wiring: Wiring, is_running: bool) -> Iterator[Diagnosis]:
    try:
        ids = wiring.keys.ids
    except (EncryptionError, OSError) as error:
        yield Diagnosis("keys", "fault", str(error), "llmops keys new makes a key")
        return
    counted = at_rest.status(wiring.artifacts, wiring.records)
    for key, count in counted.items():
        if key != "plain" and key not in ids:
            what = f"{count:,} files are sealed with key {key}, which is not here"
            yield Diagnosis("keys", "fault", what, "set LLMOPS_ENCRYPTION_KEY or LLMOPS_ENCRYPTION_KEY_FILE to it")
    if ids and counted.get("plain"):
        yield Diagnosis("keys", "warning", f"{counted['plain']:,} files with rows are not sealed", "llmops keys rotate")
    yield Diagnosis("keys", "ok", f"sealing with {ids[0]}" if ids else "none: files are not sealed at rest")


def _tracking(wiring: Wiring, is_running: bool) -> Iterator[Diagnosis]:
    uri = wiring.settings.mlflow
    if uri.startswith(("http://", "https://")):
        reason = answers(f"{uri.rstrip('/')}/health")
        if reason is None:
            yield Diagnosis("MLflow", "ok", uri)
        else:
            yield Diagnosis(
                "MLflow", "fault", f"{uri}: {reason}", "start that server, or mend LLMOPS_MLFLOW_TRACKING_URI"
            )
        return
    shown = sa.make_url(uri).render_as_string(hide_password=True)
    found = None if _is_missing(uri) else revision_of(uri)
    if found is not None and found != (newest := mlflow_schema.newest()):
        what = f"{shown} has the schema {found}, and the MLflow that is installed is of {newest}"
        yield Diagnosis("MLflow", "warning", what, _UPGRADE)
        return
    yield Diagnosis("MLflow", "note" if found is None else "ok", f"{shown}, " + (found or "nothing in it yet"))


def _components(wiring: Wiring, is_running: bool) -> Iterator[Diagnosis]:
    settings = wiring.settings
    addresses = {
        "gateway": f"{settings.gateway_url}/readyz",
        "console": f"{settings.console_url}/llm-ops/v1/health",
        "Dagster": f"{settings.dagster_server}/server_info",
    }
    # A name for each of these in deploy/compose.yaml.
    services = {"gateway": "gateway", "console": "console", "Dagster": "webserver"}
    for name, url in addresses.items():
        reason = answers(url)
        if reason is None:
            yield Diagnosis(name, "ok", url)
        elif settings.reconciler == "service":
            yield Diagnosis(name, "fault", f"{url}: {reason}", f"make server-logs SERVICE={services[name]}")
        elif is_running and name == "gateway":
            yield Diagnosis(name, "fault", f"{url}: {reason}", f"look into {settings.root / 'logs'}")
        else:
            yield Diagnosis(name, "note", f"{url}: {reason}", "llmops up starts it")


def _stores(wiring: Wiring, is_running: bool) -> Iterator[Diagnosis]:
    settings = wiring.settings
    if settings.qdrant_url:
        yield Diagnosis("Qdrant", "ok", f"{settings.qdrant_url}, {len(wiring.indexes.aliases())} indexes")
    if settings.gateway_store_url:
        import redis

        with redis.Redis.from_url(settings.gateway_store_url, socket_timeout=3, socket_connect_timeout=3) as store:
            store.ping()
        yield Diagnosis("limits' store", "ok", str(redis.connection.parse_url(settings.gateway_store_url).get("host")))


def _access(wiring: Wiring, is_running: bool) -> Iterator[Diagnosis]:
    url = wiring.settings.cerbos_url
    if not url:
        return
    if others := decided_otherwise(wiring):
        what = f"{url} decides otherwise than the policy's table for {', '.join(others)}"
        yield Diagnosis("Cerbos", "warning", what, "llmops access cerbos DIR writes the table: give it to Cerbos")
    else:
        yield Diagnosis("Cerbos", "ok", f"{url} decides as the policy's table does")


def _spool(wiring: Wiring, is_running: bool) -> Iterator[Diagnosis]:
    root = spool.spool_root(wiring.settings)
    since = waiting_since(root)
    age, size = 0.0 if since is None else time.time() - since, spool.used_bytes(root)
    if age > SHIPPED_WITHIN_SECONDS:
        what = f"the gateway's log waits to be shipped, its oldest part for {age:,.0f} s ({size:,} bytes)"
        advice = "see that the shipper runs and reaches the catalog: python -m images.gateway.ship --once says why"
        yield Diagnosis("gateway's log", "warning", what, advice)
    else:
        yield Diagnosis("gateway's log", "ok", "nothing waits" if since is None else "what waits is on the way")


def _intents(wiring: Wiring, is_running: bool) -> Iterator[Diagnosis]:
    if _revision(wiring) != HEAD:
        return
    open_ = wiring.catalog.intents.open()
    stuck = 0
    for intent in open_:
        age = datetime.now(UTC) - intent.requested_at
        if age < STUCK_AFTER or wiring.run_log.busy(intent.key, _ASSETS):
            continue
        stuck += 1
        why = intent.reason or "no run works on it"
        what = f"{intent.name} is wanted for {age.total_seconds() / 3600:,.1f} h: {why}"
        advice = "see that the daemon runs and its sensors are on; the asset's page has the error of the last run"
        yield Diagnosis("intents", "warning", what, advice)
    if not stuck:
        yield Diagnosis("intents", "ok", f"{len(open_)} open, none stuck")


def _serving(wiring: Wiring, is_running: bool) -> Iterator[Diagnosis]:
    if _revision(wiring) != HEAD:
        return
    for endpoint in wiring.catalog.endpoints():
        backends = {backend.id: backend for backend in wiring.catalog.backends(endpoint.name)}
        part = f"endpoint {endpoint.name}"
        routed = [backends[route["backend_id"]] for route in endpoint.routes if route["backend_id"] in backends]
        down = [backend for backend in routed if backend.state != "healthy"]
        if endpoint.state in ("failed", "deleting") or (endpoint.message and endpoint.state != "serving"):
            advice = f"llmops endpoint show {endpoint.name}; llmops deploy tries anew"
            yield Diagnosis(part, "fault", f"{endpoint.state}: {endpoint.message}", advice)
        elif is_running and down:
            words = "; ".join(f"{b.id} is {b.state}: {b.message or 'no reason is known'}" for b in down)
            advice = f"llmops endpoint show {endpoint.name} has the end of its log"
            yield Diagnosis(part, "fault" if len(down) == len(routed) else "warning", words, advice)
        else:
            yield Diagnosis(part, "ok", f"{endpoint.state}, revision {endpoint.observed_revision}")
    holder = Lease(wiring.catalog.database, LEASE).holder()
    if is_running and holder is None:
        yield Diagnosis("reconciler", "warning", "none is at work", "llmops up runs one; llmops reconciler is one")


def _revision(wiring: Wiring) -> str | None:
    """The schema of the catalog, which is not brought up to date by asking; None where there is none."""
    return None if _is_missing(wiring.settings.catalog) else revision_of(wiring.settings.catalog)


def _is_missing(url: str) -> bool:
    """Whether an SQLite file is not there: to connect would make it."""
    file = sa.make_url(url).database if url.startswith("sqlite") else None
    return bool(file) and not Path(str(file)).exists()


_LOOKS: Mapping[str, Look] = {
    "versions": _versions,
    "settings": _settings,
    "home": _home,
    "disk": _disk,
    "certificate": _certificate,
    "catalog": _catalog,
    "processes": _processes,
    "clock": _clock,
    "keys": _keys,
    "MLflow": _tracking,
    "components": _components,
    "stores": _stores,
    "Cerbos": _access,
    "gateway's log": _spool,
    "intents": _intents,
    "serving": _serving,
}
_UPGRADE = "llmops upgrade --rehearse says what an upgrade changes, llmops upgrade --backup DIR does it"
_ADVICE: Mapping[str, str] = {
    "certificate": "put a new one and its key there (docs/operate.md, Certificate): no client takes one that has ended",
    "catalog": "see that the database is there and LLMOPS_CATALOG_URL is right",
    "MLflow": "see that its store is there and LLMOPS_MLFLOW_TRACKING_URI is right",
    "stores": "start Qdrant or Redis, or mend LLMOPS_QDRANT_URL and LLMOPS_GATEWAY_STORE_URL",
    "Cerbos": "start it, or mend LLMOPS_CERBOS_URL: nobody but the machine's owner may do anything meanwhile",
    "settings": "mend the policy: llmops settings names the file",
}


def worst(findings: list[Diagnosis]) -> State:
    """The worst state among findings."""
    order: tuple[State, ...] = ("ok", "note", "warning", "fault")
    return max((finding.state for finding in findings), key=order.index, default="ok")


def summary(findings: list[Diagnosis]) -> dict[str, Any]:
    """For programs: the worst state and every finding."""
    return {"state": worst(findings), "findings": [finding.as_dict() for finding in findings]}
