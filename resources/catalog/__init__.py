"""The catalog: what users registered, asked for and deployed, and what the gateway saw."""

from resources.catalog.alerts import Alert, Alerts
from resources.catalog.answered import AnsweredRequests
from resources.catalog.api_keys import ApiKey, ApiKeys
from resources.catalog.audit import AuditLog
from resources.catalog.backends import Backend, Backends
from resources.catalog.database import HEAD, Database, Transaction
from resources.catalog.datasets import Dataset, Datasets
from resources.catalog.drafts import DatasetDraft, Drafts, NamedModel
from resources.catalog.dropped_arms import DroppedArm, DroppedArms
from resources.catalog.endpoint_prompts import EndpointPrompts
from resources.catalog.endpoints import Endpoint, Endpoints
from resources.catalog.errors import Busy, CatalogDamaged, CatalogTooNew, Conflict, NotFound
from resources.catalog.experiments import Experiment, Experiments, Withheld
from resources.catalog.intents import Intent, IntentKind, Intents, Outcome
from resources.catalog.leases import Lease, LeaseLost
from resources.catalog.operations import Operation, Operations
from resources.catalog.record_digests import RecordDigests
from resources.catalog.refusals import Refusals
from resources.catalog.replicas import RouteReplicas
from resources.catalog.retrainings import Retrainings
from resources.catalog.reviews import Reviews
from resources.catalog.sessions import Sessions
from resources.catalog.shadows import Shadows
from resources.catalog.statements import Statements
from resources.catalog.traffic import Traffic
from resources.catalog.traffic_days import TrafficDays
from resources.catalog.trainings import BaseModelEntry, TrainingRequest, Trainings
from resources.catalog.usage import Usage, Used
from resources.catalog.users import User, Users
from resources.stored_paths import StoredPaths

__all__ = [
    "HEAD",
    "Alert",
    "ApiKey",
    "Backend",
    "BaseModelEntry",
    "Busy",
    "Catalog",
    "CatalogDamaged",
    "CatalogTooNew",
    "Conflict",
    "Database",
    "Dataset",
    "DatasetDraft",
    "DroppedArm",
    "Endpoint",
    "Experiment",
    "Intent",
    "IntentKind",
    "Intents",
    "Lease",
    "LeaseLost",
    "NamedModel",
    "NotFound",
    "Operation",
    "Outcome",
    "TrainingRequest",
    "Transaction",
    "Used",
    "User",
    "Withheld",
]


class Catalog(Datasets, Trainings, Endpoints, Backends, RouteReplicas, Experiments, Traffic, TrafficDays, AuditLog):
    """Reads and writes the catalog at an SQLAlchemy URL: a class a concern, all over one `database`."""

    def __init__(self, url: str, paths: StoredPaths | None = None) -> None:
        self.database = Database(url, paths)
        self.intents = Intents(self.database)
        self.operations = Operations(self.database)
        self.record_digests = RecordDigests(self.database)
        self.reviews = Reviews(self.database)
        self.statements = Statements(self.database)
        self.retrainings = Retrainings(self.database)
        self.alerts = Alerts(self.database)
        self.api_keys = ApiKeys(self.database)
        self.users = Users(self.database)
        self.sessions = Sessions(self.database)
        self.usage = Usage(self.database)
        self.refusals = Refusals(self.database)
        self.shadows = Shadows(self.database)
        self.prompts = EndpointPrompts(self.database)
        self.drafts = Drafts(self.database)
        self.dropped_arms = DroppedArms(self.database)
        self.answered = AnsweredRequests(self.database)

    @property
    def paths(self) -> StoredPaths:
        """The roots by which paths in the catalog are written."""
        return self.database.paths

    @property
    def url(self) -> str:
        return self.database.url

    @property
    def identity(self) -> str:
        """What names this catalog for ever, wherever it is moved."""
        return self.database.identity

    def open(self) -> None:
        """Connect, and bring the schema up to date; the first reading or writing would do it as well."""
        _ = self.database.engine
