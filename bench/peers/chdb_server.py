"""ClickHouse in a process of its own: runs each line of stdin, a JSON text of SQL, and answers seconds and rows."""

import json
import sys
import time

from chdb.session import Session  # type: ignore[import-not-found]  # as for all peers

session = Session(sys.argv[1])
for line in sys.stdin:
    sql = json.loads(line)
    started = time.perf_counter()
    answer = session.query(sql, "JSONCompactStrings")
    seconds = time.perf_counter() - started
    text = answer.data() if answer is not None else ""
    print(json.dumps({"seconds": seconds, "rows": json.loads(text)["data"] if text else []}), flush=True)
