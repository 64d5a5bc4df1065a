"""herd-tiny: a toy chat model and the script that makes it (see README.md)."""

SEED = 20240607
MODEL_NAME = "herd-tiny"
CONTEXT_LENGTH = 1024
