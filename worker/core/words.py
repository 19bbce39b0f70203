"""Closed sets and their labels, without torch: what forms, files, and the command line share."""

from __future__ import annotations

ENUM_LABELS = {
    "lora": "LoRA",
    "loha": "LoHa",
    "lokr": "LoKr",
    "adamw": "AdamW",
    "adamw_8bit": "AdamW, 8-bit",
    "adamw_schedule_free": "AdamW, schedule-free",
    "cosine_restarts": "Cosine with restarts",
    "v_prediction": "v-prediction",
    "mse": "MSE",
    "huber": "Pseudo-Huber",
    "min_snr": "Min-SNR",
    "fp32": "fp32",
    "bf16": "bf16",
    "fp16": "fp16",
}
