"""The console's pages: rendered here, every form and button calls one operation, as the routes of the interface do."""

from images.console.web import (
    dataset_create,
    datasets,
    endpoints,
    experiments,
    home,
    ledgers,
    models,
    training_form,
    trainings,
)

PAGES = tuple(
    module.pages
    for module in (
        home,
        # A name of its own comes before whatever a version may be called.
        dataset_create,
        datasets,
        training_form,
        trainings,
        models,
        endpoints,
        experiments,
        ledgers,
    )
)
"""The routes of all pages, in the order in which addresses are compared with them."""
