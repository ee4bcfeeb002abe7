"""The commands, one Hydra application each; only they see the configuration."""
