"""The model builder's tables, in the PostgreSQL schema `model`, and the questions asked of them.

Functions take the transaction that they are part of.
"""
