"""Traitmesh's client: REST, command line, notebook helper."""

from traitmesh.client import ApiError, Client

__all__ = ["ApiError", "Client"]
