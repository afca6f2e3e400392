"""The DPO trainer that Axolotl runs for us: on pairs that are tokens already, in the order of our own trainer."""

from typing import Any

import numpy as np
from axolotl.core.trainers.dpo.trainer import AxolotlDPOTrainer

from images.train.order import LengthGroups


class Trainer(AxolotlDPOTrainer):
    """Named in the configuration (`trainer_cls`); its rows have the columns prompt_ids, chosen_ids and rejected_ids."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        prompt, *answers = (
            np.array([len(row) for row in self.train_dataset[f"{part}_ids"]])
            for part in ("prompt", "chosen", "rejected")
        )
        size = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroups(prompt + np.maximum(*answers), size, self.args.seed)
