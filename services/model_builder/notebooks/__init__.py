"""Notebooks: what they declare, and their runs in a process of their own."""
