"""Runs named scenarios with the official Python client; the contract is in ../README.md."""

import argparse
import os
import sys
import threading
import time

from fixture import Failure, Fixture, Skip
from scenarios import SCENARIOS
from tools import TOOLS

# How much longer than its own waits a scenario may take before it counts as stuck.
GRACE = 15


def main():
    options = parse(sys.argv[1:])
    if options.ca:
        os.environ["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"] = options.ca  # the only way to tell this client
    names = list(SCENARIOS) if options.scenarios == ["all"] else options.scenarios
    failed = False
    for name in names:
        line = run(name, options)
        print(line, flush=True)
        failed |= line.startswith("FAIL")
    # Not sys.exit: threads of a client that did not stop would keep the process alive.
    os._exit(1 if failed else 0)


def parse(arguments):
    parser = argparse.ArgumentParser(prog="python")
    parser.add_argument("scenarios", nargs="+", metavar="SCENARIO", help='name of a scenario, or "all"')
    parser.add_argument("--endpoint", required=True, help="HOST:PORT of the server")
    parser.add_argument("--tls", action="store_true", help="use TLS")
    parser.add_argument("--ca", help="certificate file to trust")
    parser.add_argument("--prefix", default="e2e", help="first part of topic and group names")
    parser.add_argument("--timeout", type=float, default=30, help="seconds that a scenario may wait")
    parser.add_argument("--topic", help="topic to use in place of the derived one")
    parser.add_argument("--group", help="consumer group to use in place of the derived one")
    parser.add_argument("--inflight", type=int, default=8, help="sends at a time")
    parser.add_argument("--quiet", type=float, default=5, help="seconds without a message that end a consumer")
    return parser.parse_args(arguments)


def run(name, options):
    """Runs one scenario; returns its result line."""
    scenario = SCENARIOS.get(name) or TOOLS.get(name)
    if scenario is None:
        return f"FAIL {name} unknown scenario"
    if options.tls and not options.ca:
        return f"SKIP {name} this client verifies certificates: name one to trust with --ca"
    started = time.monotonic()
    fixture = Fixture(name, options)
    limit = options.timeout + GRACE
    error = within(limit, lambda: scenario(fixture))
    close_error = within(limit, fixture.close)
    match error or close_error:
        case None:
            millis = (time.monotonic() - started) * 1000
            return f"PASS {name} {millis:.0f}ms {fixture.counts}".rstrip()
        case Skip() as reason:
            return f"SKIP {name} {reason}"
        case Failure() as reason:
            return f"FAIL {name} {one_line(reason)}"
        case error:
            return f"FAIL {name} {type(error).__name__}: {one_line(error)}"


def within(seconds, call):
    """Returns the error of `call`, if any; a call that takes too long is left to itself."""
    outcome = [Failure(f"stuck for {seconds:.0f} s")]

    def work():
        try:
            call()
            outcome[0] = None
        except Exception as error:
            outcome[0] = error

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(seconds)
    return outcome[0]


def one_line(text):
    return " ".join(str(text).split())


main()
