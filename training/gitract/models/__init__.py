"""The zoo: `create_model` builds a network by name."""

from gitract.models.registry import create_model, model_names
from gitract.models.weights import load_network, save_model

__all__ = ["create_model", "load_network", "model_names", "save_model"]
