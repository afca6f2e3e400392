"""What the checks of drift say, and so what an alert and a retraining say of it."""

from llmops_assets.records.serving import DriftRecord
from llmops_assets.verdict import Verdict


def like_training(record: DriftRecord) -> Verdict:
    """Whether what is asked is like what was trained on."""
    text = f"{record.requests} requests against {record.reference_rows} training rows"
    if record.drifted:
        text = f"drifted: {', '.join(record.drifted)}; {text}. Look at the newest questions and add such data"
    figures: dict[str, float | int | str] = {"requests": record.requests}
    figures |= {f"PSI of {name}": feature["psi"] for name, feature in record.features.items() if "psi" in feature}
    return Verdict(not record.drifted, text, figures)


def like_before(record: DriftRecord) -> Verdict:
    """Whether requests and answers are like those of the last good window; where there is none, they are."""
    if record.before_since is None or record.before_until is None:
        return Verdict(True, "there is no earlier window to compare with yet", {"requests": record.requests})
    of = f"the window of {record.before_since:%Y-%m-%d} to {record.before_until:%Y-%m-%d}"
    text = f"{record.requests} requests are like those of {of}"
    if record.before_drifted:
        text = (
            f"drifted: {', '.join(record.before_drifted)}; against {of}. Look at what changed: users, an application "
            "in front of the endpoint, the model server"
        )
    return Verdict(not record.before_drifted, text, {"requests": record.requests})
