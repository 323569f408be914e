"""Not tests but tools for them: a producer to stop from outside, a consumer that drains a topic."""

import itertools
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from rocketmq import Message

from fixture import AWAIT, BATCH, INVISIBLE, check

PAUSE = 0.2  # seconds between two calls after the first of them failed


def produce_until_stopped(fixture):
    producer = fixture.producer()
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    numbers = itertools.count(1)  # next() of it is atomic
    outcomes = []

    def produce():
        while not stop.is_set() and fixture.remaining() > 0:
            number = next(numbers)
            message = Message()
            message.topic = fixture.topic
            message.body = str(number).encode()
            try:
                receipt = producer.send(message)
                outcomes.append("acked")
                say("ACKED", number, receipt.message_id)
            except Exception as error:
                outcomes.append("error")
                say("ERROR", number, type(error).__name__, error)
                time.sleep(PAUSE)

    workers = [threading.Thread(target=produce, daemon=True) for _ in range(fixture.options.inflight)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    fixture.counts = f"acked={outcomes.count('acked')} errors={outcomes.count('error')}"


def consume_until_quiet(fixture):
    topic = fixture.options.topic or fixture.name_for("produce-until-stopped")
    quiet = fixture.options.quiet
    consumer = fixture.simple_consumer(topic=topic, await_seconds=max(1, min(AWAIT, int(quiet))))
    acks = ThreadPoolExecutor(BATCH)
    received = errors = 0
    heard = time.monotonic()
    while time.monotonic() - heard < quiet:
        check(fixture.remaining() > 0, f"no {quiet:g} s of quiet within {fixture.options.timeout:g} s")
        try:
            messages = consumer.receive(BATCH, INVISIBLE)
            for message in messages:
                say("RECEIVED", message.body.decode(), message.message_id, message.delivery_attempt)
                received += 1
                heard = time.monotonic()
            list(acks.map(consumer.ack, messages))  # raises what one of them raised
        except Exception as error:
            errors += 1
            heard = time.monotonic()  # a server that fails is not a quiet one
            say("ERROR", type(error).__name__, error)
            time.sleep(PAUSE)
    fixture.counts = f"received={received} errors={errors}"


def say(*words):
    """Prints one line, in one piece."""
    sys.stdout.write(" ".join(" ".join(map(str, words)).split()) + "\n")
    sys.stdout.flush()


TOOLS = {
    "produce-until-stopped": produce_until_stopped,
    "consume-until-quiet": consume_until_quiet,
}
