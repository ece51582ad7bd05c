"""A dbt project: its archive, its runs in a process of its own, what it declares, and where its columns come from."""
