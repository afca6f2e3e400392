"""What things cost here: prices that spending is counted with."""

from pydantic import Field

from llmops_assets.specs.base import Float, Part, Text


class Prices(Part):
    """Prices in one currency. Estimates: what a bill says is right."""

    currency: Text = "USD"
    gpu_hour: Float = Field(default=2.0, ge=0, description="Of one GPU, hardware or rent, without its energy.")
    cpu_hour: Float = Field(default=0.1, ge=0, description="Of a training without a GPU.")
    gpu_watts: Float = Field(default=350.0, ge=0, description="Drawn by one GPU and its share of the machine.")
    cpu_watts: Float = Field(default=60.0, ge=0)
    kwh: Float = Field(default=0.15, ge=0)
    human_hour: Float = Field(default=30.0, ge=0)
    review_minutes: Float = Field(default=2.0, ge=0, description="A person takes for one review.")
    million_tokens: Float = Field(default=0.0, ge=0, description="Of a model that is paid by the token.")
