"""Pre-training: loop, checkpoints, log."""

from graphfm.train.loop import TrainConfig, pretrain

__all__ = ["TrainConfig", "pretrain"]
