"""How the base models of a family lie in a diffusers folder, and what its configs say of them."""

from __future__ import annotations

from typing import Literal

PredictionType = Literal["epsilon", "v_prediction", "flow"]


class BaseModelError(Exception):
    """A base model that cannot be used; the message is a sentence for people."""
