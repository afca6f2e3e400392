"""The languages of the pages: English as it is written in them, and Korean from a catalog that is read at the start."""

import gettext
import io
from functools import cache
from pathlib import Path

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

LOCALE = Path(__file__).with_name("locale")
LANGUAGES = ("en", "ko")
COOKIE = "llmops_language"


def N_(message: str) -> str:
    """Marks a text for translation where it is written; it is translated where it is shown."""
    return message


@cache
def translations(language: str) -> gettext.NullTranslations:
    """The messages of a language; English is what stands in the pages."""
    file = LOCALE / f"{language}.po"
    if not file.exists():
        return gettext.NullTranslations()
    with open(file, "rb") as stream:
        catalog = read_po(stream, locale=language)
    compiled = io.BytesIO()
    write_mo(compiled, catalog)
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)


def language_of(cookie: str | None, accepted: str) -> str:
    """The language that somebody chose, or else the first of their browser's (`Accept-Language`) that there is."""
    if cookie in LANGUAGES:
        return cookie
    weighed = []
    for place, part in enumerate(accepted[:500].split(",")):
        name, _, weight = part.strip().partition(";q=")
        try:
            weighed.append((-float(weight or 1), place, name.partition("-")[0].lower()))
        except ValueError:
            continue
    return next((name for _, _, name in sorted(weighed) if name in LANGUAGES), "en")


STATES = {
    # Datasets.
    "awaiting_files": N_("awaiting files"),
    "ingesting": N_("being read"),
    "ready": N_("ready"),
    "blocked": N_("blocked"),
    "failed": N_("failed"),
    "archived": N_("archived"),
    "erased": N_("erased"),
    # Trainings.
    "requested": N_("requested"),
    "held": N_("held"),
    "queued": N_("queued"),
    "planning": N_("planning"),
    "training": N_("training"),
    "finishing": N_("finishing"),
    "stopping": N_("stopping"),
    "stopped": N_("stopped"),
    "trained": N_("trained"),
    "withheld": N_("withheld"),
    "registered": N_("registered"),
    # Models.
    "draft": N_("draft"),
    "approved": N_("approved"),
    "staging": N_("staging"),
    "production": N_("production"),
    # Endpoints.
    "pending": N_("pending"),
    "deploying": N_("deploying"),
    "healthy": N_("healthy"),
    "deleting": N_("deleting"),
    "starting": N_("starting"),
    "unhealthy": N_("unhealthy"),
    # Experiments.
    "running": N_("running"),
    "concluded": N_("concluded"),
    "continue": N_("goes on"),
    "promote": N_("promote"),
    "rollback": N_("roll back"),
    "no_difference": N_("no difference"),
    "inconclusive": N_("inconclusive"),
    "invalid": N_("invalid"),
    # Reviews.
    "open": N_("open"),
    "accept": N_("accepted"),
    "fix": N_("corrected"),
    "reject": N_("rejected"),
    "waiting": N_("waits for a second reviewer"),
    "disputed": N_("disputed"),
    # Alerts.
    "error": N_("error"),
    "warning": N_("warning"),
    "info": N_("for information"),
}
"""What states are called on pages."""

GOOD = frozenset(
    {"ready", "registered", "approved", "production", "staging", "healthy", "promote", "accept", "fix", "trained"}
)
BAD = frozenset(
    {"blocked", "failed", "withheld", "unhealthy", "invalid", "held", "rollback", "reject", "disputed", "error"}
)
BUSY = frozenset(
    {"ingesting", "requested", "queued", "planning", "training", "finishing", "stopping", "deploying", "pending"}
    | {"running", "starting", "deleting", "warning"}
)


def tone(state: str) -> str:
    """Which colour a state is shown in: good, bad, busy or quiet."""
    return "good" if state in GOOD else "bad" if state in BAD else "busy" if state in BUSY else "quiet"
