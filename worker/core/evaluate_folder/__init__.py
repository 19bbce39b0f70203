"""`brushwork evaluate`: evaluates the checkpoints of a training on a folder. It loads no torch."""
