"""A process that merges, for the tests that kill it or race two: `python -m ... URL TABLE MODE`.

MODE `hold`: merge, say so, and wait for ever before the commit. MODE `alternate`: merge the
tables `<table>_a` and `<table>_b` in turn for ever, saying so after each commit. MODE `once`:
merge `<table>_a`, and end with 0, or with 3 on a conflict.
"""

import sys
import time

from libs.warehouse import Conflict, Warehouse, open_warehouse


def say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def merge(warehouse: Warehouse, table: str, source: str, *, hold: bool = False) -> None:
    with warehouse.transaction() as transaction:
        transaction.merge(table, source, key="k", hash_column="row_hash")
        if hold:
            say("merged")
            time.sleep(600)


def main() -> None:
    url, table, mode = sys.argv[1:]
    warehouse = open_warehouse(url, "acme")
    say("ready")
    if mode == "hold":
        merge(warehouse, table, f"{table}_b", hold=True)
    elif mode == "once":
        sys.stdin.readline()
        try:
            merge(warehouse, table, f"{table}_a")
        except Conflict:
            sys.exit(3)
    else:
        for turn in range(10_000):
            merge(warehouse, table, f"{table}_{'ba'[turn % 2]}")
            say("committed")


if __name__ == "__main__":
    main()
