"""Warns of settings whose updates are far larger than those of a preset.

Imports only the config, so that the web front end can warn without loading torch.
"""

import math

from worker.core.training.config import Optimizer, TrainConfig
from worker.core.words import ENUM_LABELS

FAR_ABOVE = 5.0  # times the rate of the preset
FAR_ABOVE_SCHEDULE_FREE = 10.0  # its averages allow rates that ruin AdamW
RUINS = "Updates that large usually ruin the images."


def rate_warnings(config: TrainConfig, usual: TrainConfig) -> list[str]:
    """A sentence for each rate far above that of `usual`, a preset for the same optimizer.

    Alpha counts too: the adapter's change is multiplied by its scale, and with it each update.
    """
    limit = FAR_ABOVE
    if config.optimizer is Optimizer.ADAMW_SCHEDULE_FREE:
        limit = FAR_ABOVE_SCHEDULE_FREE
    optimizer = ENUM_LABELS.get(config.optimizer.value, config.optimizer.value)
    found = []
    rates = {"Learning rate": config.learning_rate}
    if config.train_text_encoder and config.text_encoder_learning_rate is not None:
        rates["Text encoder learning rate"] = config.text_encoder_learning_rate
    for title, rate in rates.items():
        if rate > limit * usual.learning_rate:
            found.append(
                f"{title} {rate:g} is {rate / usual.learning_rate:,.0f} times the preset’s for "
                f"{optimizer} ({usual.learning_rate:g}). {RUINS}"
            )
    if found:
        return found
    scale = _scale(config) / _scale(usual)
    times = config.learning_rate / usual.learning_rate * scale
    if scale > 1 and times > limit:
        found.append(
            f"Alpha {config.alpha:g} at rank {config.rank} scales the adapter by "
            f"{_scale(config):.3g}: it changes as with {times:,.0f} times the preset’s learning "
            f"rate. {RUINS}"
        )
    return found


def _scale(config: TrainConfig) -> float:
    return config.alpha / (math.sqrt(config.rank) if config.rank_stabilized else config.rank)
