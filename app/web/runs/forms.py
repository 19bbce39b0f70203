"""The form of a new run, generated from `TrainConfig`: fields, changed values and errors."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from app.registry.runs.presets import shipped_preset
from app.registry.runs.requests import RunRequest, StartCheckpoint
from app.registry.runs.several_datasets import DatasetWish, repeats_field
from app.web.form_reader import FormReader, as_id, split_lines
from app.web.runs.form_datasets import ONCE, FormDataset, read_further
from worker.core.families.facts.family_facts import Limit
from worker.core.old_names import rename_old
from worker.core.training.config import Group, TrainConfig
from worker.core.training.presets import Preset
from worker.core.words import ENUM_LABELS

PROMPTS = "sample_prompts"
EVALUATE = "evaluate"
APART = (PROMPTS, EVALUATE)  # settings outside the groups
OWN_PRESET = "own-"  # and the id: a saved preset

SEARCH_TERMS = {
    "steps": "max_train_steps iterations length",
    "batch_size": "train_batch_size bs",
    "gradient_accumulation": "gradient_accumulation_steps grad accum effective batch size",
    "kind": "network_module network type lycoris locon",
    "rank": "dim network_dim linear lora_r r",
    "alpha": "network_alpha linear_alpha lora_alpha",
    "rank_stabilized": "use_rslora",
    "targets": "target_modules layers conv",
    "blocks": "block weights lbw layers b-lora",
    "train_text_encoder": "te clip network_train_unet_only",
    "text_encoder_rank": "te dim",
    "text_encoder_alpha": "te alpha",
    "text_encoder_steps": "te stop",
    "optimizer": "optimizer_type adam adamw8bit schedulefree dadapt",
    "learning_rate": "lr unet_lr learning_rate",
    "text_encoder_learning_rate": "te lr text_encoder_lr",
    "lora_plus_ratio": "loraplus_lr_ratio loraplus lr",
    "weight_decay": "regularization wd l2",
    "lr_scheduler": "learning rate schedule lr_scheduler_type cosine_with_restarts",
    "lr_cycles": "lr_scheduler_num_cycles learning rate restarts",
    "warmup_steps": "lr_warmup_steps learning rate warm-up",
    "max_grad_norm": "gradient clip clipping",
    "ema_decay": "use_ema average",
    "prediction_type": "v_parameterization vpred",
    "loss": "loss_type l2 smooth_l1",
    "huber_delta": "huber_c",
    "loss_weighting": "snr weighting scheme debiased_estimation",
    "snr_gamma": "min_snr_gamma",
    "multires_noise_discount": "pyramid noise multires_noise_iterations",
    "noise_focus": "timestep timesteps bias sampling content style content_or_style sigma",
    "zero_terminal_snr": "ztsnr zsnr rescale betas",
    "flow_shift": "discrete_flow_shift timestep shift sigma",
    "level_density": "weighting_scheme timestep_sampling logit_normal sigmoid",
    "base_weights": "quantize quantization fp8 int8 vram memory",
    "caption_dropout": "caption_dropout_rate cfg unconditional",
    "shuffle_tags": "shuffle_caption",
    "keep_tags": "keep_tokens",
    "resolution": "size pixels px",
    "aspect_buckets": "enable_bucket ar crop",
    "flip": "flip_aug mirror augmentation",
    "masked_loss": "alpha_mask mask transparency",
    "regularization_weight": "prior_loss_weight class images dreambooth",
    "validation_share": "held-out eval validation_split",
    "validation_seed": "held-out split_seed",
    "precision": "mixed_precision dtype half float16 bfloat16",
    "gradient_checkpointing": "vram memory",
    "compile": "torch_compile dynamo",
    "checkpoint_every": "save_every_n_steps save_every",
    "keep_checkpoints": "save_last_n_steps max_step_saves_to_keep",
    "keep_adapters": "max_step_saves_to_keep",
    "patience": "early stopping",
    "sample_every": "sample_every_n_steps preview",
    "sample_negative_prompt": "neg",
    "sample_steps": "num_inference_steps",
    "sample_guidance": "cfg guidance_scale",
}
"""Other names of settings, by which the search of the form finds them too."""

Kind = Literal["integer", "number", "text", "choice", "switch", "lines"]


@dataclass(frozen=True)
class ConfigField:
    """One setting as the form shows it; all values are text."""

    name: str
    title: str
    hint: str
    kind: Kind
    value: str
    default: str
    error: str = ""
    minimum: str = ""
    maximum: str = ""
    choices: tuple[tuple[str, str], ...] = ()
    search_terms: str = ""

    @property
    def changed(self) -> bool:
        """True when the value differs from the preset's."""
        return self.value != self.default

    @property
    def default_label(self) -> str:
        """The preset's value in words."""
        if self.kind == "switch":
            return "on" if self.default else "off"
        return dict(self.choices).get(self.default) or self.default or "empty"

    @property
    def bounds(self) -> str:
        """Allowed range, as text; empty when there is none."""
        if self.minimum and self.maximum:
            return f"{_group_fields(self.minimum)} to {_group_fields(self.maximum)}"
        return ""


def _group_fields(number: str) -> str:
    return f"{int(number):,}" if number.isdigit() else number


@dataclass(frozen=True)
class ConfigGroup:
    """A section of the advanced settings, which folds."""

    key: Group
    fields: list[ConfigField]

    @property
    def is_open(self) -> bool:
        """True for the first one, and when a field was changed or is wrong."""
        return self.key is Group.LENGTH or any(row.changed or row.error for row in self.fields)


@dataclass(frozen=True)
class TrainForm:
    """Entered values, as text; `shown` holds the preset values that the form showed.

    `shown` is None in a form that the next page fills with the values of its preset.
    `adapter`: the one that gets the next version; `offer`: what the form offered of it;
    `for_adapter`: the one that the address of the form named.
    `repeats`: of the first dataset, `further`: the others; `trigger_word`: what was typed over
    `shown_trigger`, that of the first dataset.
    `kept` holds values that were changed under another preset; they stay changed when the preset
    shown has the same value, and so come back with the preset before.
    """

    name: str = ""
    dataset: str = ""
    base: str = ""
    preset: Preset = Preset.BALANCED
    own_preset: int | None = None
    values: Mapping[str, str] = field(default_factory=dict)
    shown: Mapping[str, str] | None = None
    kept: Mapping[str, str] = field(default_factory=dict)
    regularization: str = ""
    continue_run: str = ""
    continue_step: str = ""
    adapter: str = ""
    offer: str = ""
    for_adapter: str = ""
    repeats: str = ONCE
    further: tuple[FormDataset, ...] = ()
    trigger_word: str = ""
    shown_trigger: str = ""

    @property
    def is_several(self) -> bool:
        """True if the form has repeats and a trigger word of its own."""
        own = self.trigger_word != self.shown_trigger
        return bool(self.further) or self.repeats != ONCE or own

    def trigger(self, usual: str | None) -> str:
        """The trigger word: `usual`, that of the first dataset, unless another one was typed."""
        if self.trigger_word != self.shown_trigger:
            return self.trigger_word
        return usual or ""

    @property
    def changed(self) -> dict[str, str]:
        """The settings that differ from the preset that was shown, or were kept, as text."""
        shown = self.shown or {}
        return {
            name: text
            for name, text in self.values.items()
            if name in TrainConfig.model_fields
            and (text != shown.get(name, text) or text == self.kept.get(name))
        }

    @property
    def hidden_kept(self) -> dict[str, str]:
        """The settings that were kept, and that the form did not show for its base model."""
        return {name: text for name, text in self.kept.items() if name not in self.values}

    @property
    def typed(self) -> dict[str, Any]:
        """The values of these settings, which nobody has checked yet."""
        return {name: from_text(name, text) for name, text in self.changed.items()}

    @property
    def asked_evaluation(self) -> dict[str, bool]:
        """Whether to evaluate at the end, if the form differs in that from the preset it showed."""
        said = self.values if self.shown is None else self.changed
        return {EVALUATE: said[EVALUATE] == "on"} if EVALUATE in said else {}

    @property
    def dataset_id(self) -> int | None:
        """The id of the dataset; None when none was chosen."""
        return as_id(self.dataset)

    def request(self) -> RunRequest:
        """The request for the service; invalid values are passed on, and the service names them.

        A run that continues another one does not start from the preset, so it sends all values.
        """
        said = self.values if self.start else self.changed
        return RunRequest(
            dataset_id=self.dataset_id or 0,
            repeats=self.repeats,
            further=[DatasetWish(as_id(row.dataset) or 0, row.repeats) for row in self.further],
            trigger_word=(None if self.trigger_word == self.shown_trigger else self.trigger_word),
            base_model=self.base or None,
            preset=self.preset,
            own_preset_id=self.own_preset,
            name=self.name,
            config={name: from_text(name, text) for name, text in said.items()},
            continues=self.start,
            regularization_dataset_id=as_id(self.regularization),
            adapter_id=as_id(self.adapter),
        )

    @property
    def start(self) -> StartCheckpoint | None:
        """The checkpoint to continue from, if there is one."""
        run_id, step = as_id(self.continue_run), self.continue_step
        if run_id is None or not (step.isascii() and step.isdigit()):
            return None
        return StartCheckpoint(run_id, int(step[:10]))


def as_own_preset(text: str) -> int | None:
    """The id in the form's name of a saved preset, such as `own-3`; None for any other text."""
    return as_id(text.removeprefix(OWN_PRESET)) if text.startswith(OWN_PRESET) else None


def read_form(sent: Mapping[str, Any]) -> TrainForm:
    """Parse a submitted form; an absent switch is off."""
    form = FormReader(rename_old(sent))
    shown = _read_settings(form.text("shown"))
    values = {name: form.text(name) for name in shown}
    return TrainForm(
        name=form.text("name"),
        dataset=form.text("dataset_id"),
        base=form.text("base_model"),
        preset=shipped_preset(form.text("preset")),
        own_preset=as_own_preset(form.text("preset")),
        values=values,
        shown=shown,
        kept=_read_settings(form.text("kept")),
        regularization=form.text("regularization_dataset_id"),
        continue_run=form.text("continue_run"),
        continue_step=form.text("continue_step"),
        adapter=form.text("adapter_id"),
        offer=form.text("offer"),
        for_adapter=form.text("for_adapter"),
        repeats=form.text(repeats_field(1), ONCE),
        further=read_further(form),
        trigger_word=form.text("trigger_word"),
        shown_trigger=form.text("shown_trigger"),
    )


def _read_settings(text: str) -> dict[str, str]:
    """The settings in a hidden field; none when it is not as the form sent it."""
    try:
        sent = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(sent, dict):
        return {}
    sent = rename_old(sent)
    return {name: str(value) for name, value in sent.items() if name in TrainConfig.model_fields}


def to_texts(config: TrainConfig) -> dict[str, str]:
    """Every value of a config as the form shows it."""
    return {name: to_text(value) for name, value in config.model_dump(mode="json").items()}


def to_text(value: Any) -> str:
    """A value as a person would type it: no exponents, `on` for a switch, one prompt per line."""
    if value is None or value is False:
        return ""
    if value is True:
        return "on"
    if isinstance(value, list):
        return "\n".join(value)
    if isinstance(value, float):
        plain = format(Decimal(repr(value)), "f")
        return plain.removesuffix(".0")
    return str(value)


def from_text(name: str, text: str) -> Any:
    """Convert a text of the form to a value; pydantic validates it later."""
    info = TrainConfig.model_fields[name]
    kind, is_optional = _field_kind(info.annotation)
    if kind == "switch":
        return text == "on"
    if kind == "lines":
        return split_lines(text)
    if not text and is_optional:
        return None
    return text


def config_groups(
    default: Mapping[str, str],
    values: Mapping[str, str],
    errors: Mapping[str, str],
    limits: Mapping[str, Limit],
) -> list[ConfigGroup]:
    """All settings with a default that are not apart, in the order and groups of `TrainConfig`.

    `limits`: those of the base model's family.
    """
    groups: dict[Group, list[ConfigField]] = {group: [] for group in Group}
    for name, info in TrainConfig.model_fields.items():
        extra = info.json_schema_extra
        if name in APART or name not in default or not isinstance(extra, dict):
            continue
        row = config_field(name, default=default, values=values, errors=errors)
        if name in limits and limits[name].values:
            row = limited_choices(row, limits[name])
        groups[Group(str(extra["group"]))].append(row)
    return [ConfigGroup(group, fields) for group, fields in groups.items() if fields]


def limited_choices(row: ConfigField, limit: Limit) -> ConfigField:
    """A choice with the values that a family has, and its usual one."""
    usual = to_text(TrainConfig.model_fields[row.name].default)
    known = {usual, *limit.values, row.value}
    return replace(row, choices=tuple(one for one in row.choices if one[0] in known))


def config_field(
    name: str,
    *,
    default: Mapping[str, str],
    values: Mapping[str, str],
    errors: Mapping[str, str],
) -> ConfigField:
    """One setting of the form."""
    info = TrainConfig.model_fields[name]
    kind, is_optional = _field_kind(info.annotation)
    minimum, maximum = _field_bounds(info)
    return ConfigField(
        name=name,
        title=info.title or name,
        hint=info.description or "",
        kind=kind,
        value=values.get(name, default[name]),
        default=default[name],
        error=errors.get(name, ""),
        minimum=minimum,
        maximum=maximum,
        choices=_enum_choices(info.annotation, is_optional=is_optional),
        search_terms=SEARCH_TERMS.get(name, ""),
    )


def _field_kind(annotation: Any) -> tuple[Kind, bool]:
    inner, is_optional = _inner_type(annotation)
    if inner is bool:
        return "switch", is_optional
    if inner is int:
        return "integer", is_optional
    if inner is float:
        return "number", is_optional
    if isinstance(inner, type) and issubclass(inner, StrEnum):
        return "choice", is_optional
    return ("lines" if get_origin(inner) is list else "text"), is_optional


def _inner_type(annotation: Any) -> tuple[Any, bool]:
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [part for part in get_args(annotation) if part is not type(None)]
        return inner[0], True
    return annotation, False


def _enum_choices(annotation: Any, *, is_optional: bool) -> tuple[tuple[str, str], ...]:
    inner, _ = _inner_type(annotation)
    if not (isinstance(inner, type) and issubclass(inner, StrEnum)):
        return ()
    words = tuple(
        (item.value, ENUM_LABELS.get(item.value) or item.value.replace("_", " ").capitalize())
        for item in inner
    )
    return ((("", "As the base model declares"),) if is_optional else ()) + words


def _field_bounds(info: FieldInfo) -> tuple[str, str]:
    minimum = maximum = ""
    for bound in info.metadata:
        for name in ("ge", "gt"):
            if getattr(bound, name, None) is not None:
                minimum = to_text(getattr(bound, name))
        for name in ("le", "lt"):
            if getattr(bound, name, None) is not None:
                maximum = to_text(getattr(bound, name))
    return minimum, maximum
