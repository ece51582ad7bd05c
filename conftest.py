"""Fixtures that every suite may use."""

pytest_plugins = ["libs.kit.testing"]
