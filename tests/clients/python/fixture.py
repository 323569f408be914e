"""What a scenario works with: names, clients that are closed after it, and waits that end."""

import re
import threading
import time
from dataclasses import dataclass, field

from rocketmq import (
    ClientConfiguration,
    ConsumeResult,
    Credentials,
    FilterExpression,
    Message,
    MessageListener,
    Producer,
    PushConsumer,
    SimpleConsumer,
)

AWAIT = 3  # seconds that a receive waits for a message
INVISIBLE = 30  # seconds that a received message stays with its receiver
BATCH = 32
WATCH = 1  # seconds for which a push consumer is watched for a delivery too many

# Version 1 of the client-made ids: 01, MAC address, process, time, counter.
MESSAGE_ID = re.compile("01[0-9A-Fa-f]{32}")


class Failure(Exception):
    """The server did not do what the scenario asks for."""


class Skip(Exception):
    """The client lacks what the scenario needs."""


def check(condition, reason):
    if not condition:
        raise Failure(reason)


def expect(what, actual, expected):
    check(actual == expected, f"{what} is {actual!r}, expected {expected!r}")


@dataclass
class Sent:
    """A message as it was sent."""

    body: bytes
    tag: str | None = None
    keys: list[str] = field(default_factory=list)
    properties: dict[str, str] = field(default_factory=dict)
    id: str = ""

    def verify(self, message, attempt=1):
        """Checks that `message` is this one, delivered for the `attempt`th time."""
        expect("message id", message.message_id, self.id)
        expect(f"tag of {self.id}", message.tag, self.tag)
        expect(f"keys of {self.id}", message.keys, set(self.keys))
        expect(f"properties of {self.id}", message.properties, self.properties)
        expect(f"delivery attempt of {self.id}", message.delivery_attempt, attempt)
        self.verify_body(message)

    def verify_body(self, message):
        check(message.body == self.body, f"body of {self.id} ({len(self.body)} bytes) came back changed")
        check(not message.corrupted, f"digest of {self.id} does not fit its body")


class Inbox(MessageListener):
    """Keeps what a push consumer was given; `accept` decides whether a message counts as consumed."""

    def __init__(self, accept):
        self._accept = accept
        self._messages = []
        self._arrival = threading.Condition()

    def consume(self, message):
        with self._arrival:
            self._messages.append(message)
            self._arrival.notify_all()
        return ConsumeResult.SUCCESS if self._accept(message) else ConsumeResult.FAILURE

    def wait_for(self, count, fixture):
        """Waits until `count` deliveries came, and a moment longer for one too many; returns all."""
        with self._arrival:
            self._arrival.wait_for(lambda: len(self._messages) >= count, fixture.remaining())
            check(len(self._messages) >= count, f"{len(self._messages)} of {count} deliveries came")
            self._arrival.wait_for(lambda: len(self._messages) > count, WATCH)
            return list(self._messages)


class Fixture:
    def __init__(self, scenario, options):
        self.options = options
        self.topic = options.topic or self.name_for(scenario)
        self.group = options.group or f"{self.name_for(scenario)}-group"
        self.counts = ""  # what a tool did, for its result line
        self._deadline = time.monotonic() + options.timeout
        self._configuration = ClientConfiguration(options.endpoint, Credentials())
        self._clients = []

    def name_for(self, scenario):
        return f"{self.options.prefix}-python-{scenario}"

    def remaining(self):
        """Seconds left of the scenario's time."""
        return max(0, self._deadline - time.monotonic())

    def producer(self):
        return self._start(Producer(self._configuration, [self.topic], tls_enable=self.options.tls))

    def simple_consumer(self, *, topic=None, group=None, tags="*", await_seconds=AWAIT):
        subscription = {topic or self.topic: FilterExpression(tags)}
        return self._start(
            SimpleConsumer(
                self._configuration,
                group or self.group,
                subscription,
                await_duration=await_seconds,
                tls_enable=self.options.tls,
            )
        )

    def push_consumer(self, accept=lambda message: True):
        """Starts a push consumer on the scenario's topic; returns its inbox."""
        inbox = Inbox(accept)
        subscription = {self.topic: FilterExpression("*")}
        self._start(PushConsumer(self._configuration, self.group, inbox, subscription, tls_enable=self.options.tls))
        return inbox

    def _start(self, client):
        client.startup()
        self._clients.append(client)
        return client

    def send(self, producer, body, *, tag=None, keys=(), properties=None):
        """Sends one message to the scenario's topic and checks its receipt."""
        sent = Sent(body, tag, list(keys), properties or {})
        message = Message()
        message.topic = self.topic
        message.body = body
        if tag:
            message.tag = tag
        for key in keys:
            message.keys = key  # this setter adds
        for name, value in sent.properties.items():
            message.add_property(name, value)
        receipt = producer.send(message)
        expect("message id of the receipt", receipt.message_id, message.message_id)
        check(MESSAGE_ID.fullmatch(receipt.message_id), f"message id {receipt.message_id!r} is not of version 1")
        sent.id = receipt.message_id
        return sent

    def receive(self, consumer, count, *, invisible=INVISIBLE):
        """Receives until `count` messages came; more are a failure."""
        messages = []
        while len(messages) < count:
            check(self.remaining() > 0, f"{len(messages)} of {count} messages came")
            messages += consumer.receive(BATCH, invisible)
        expect("number of messages", len(messages), count)
        return messages

    def receive_one(self, consumer, *, invisible=INVISIBLE):
        return self.receive(consumer, 1, invisible=invisible)[0]

    def expect_nothing(self, consumer):
        surplus = [message.message_id for message in consumer.receive(BATCH, INVISIBLE)]
        expect("what a further receive finds", surplus, [])

    def close(self):
        """Shuts the clients down, the last one first."""
        while self._clients:
            self._clients.pop().shutdown()
