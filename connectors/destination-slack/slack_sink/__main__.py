"""Run the sink: `python -m slack_sink --port 8099 --state-file sink.db --channels alerts,vip`."""

import argparse

import uvicorn

from slack_sink.server import Server
from slack_sink.store import Store
from slack_sink.web_api import Limits


def main() -> None:
    """Serve on the loopback address until stopped."""
    parser = argparse.ArgumentParser(prog="slack_sink", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--state-file", required=True)
    parser.add_argument("--token", default="xoxb-local", help="the only token that is let in")
    parser.add_argument("--channels", default="general", help="names, separated by commas")
    parser.add_argument("--posts-per-second", type=float, default=1.0, help="for each channel")
    parser.add_argument("--burst", type=int, default=5, help="posts let in at once for each channel")
    parser.add_argument("--retry-after", type=int, default=1, help="seconds told with a 429")
    arguments = parser.parse_args()
    store = Store(arguments.state_file, arguments.channels.split(","))
    limits = Limits(arguments.posts_per_second, arguments.burst, arguments.retry_after)
    server = Server(store, arguments.token, limits)
    uvicorn.run(server.app, host="127.0.0.1", port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
