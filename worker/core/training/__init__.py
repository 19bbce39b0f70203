"""The training core: pictures in, a LoRA out; nothing of the web, database or broker."""
