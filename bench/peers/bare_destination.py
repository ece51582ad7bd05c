"""The least that can be called a destination: it parses each line of stdin and echoes those that are a STATE."""

import sys

import orjson

for line in sys.stdin.buffer:
    if orjson.loads(line)["type"] == "STATE":
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
