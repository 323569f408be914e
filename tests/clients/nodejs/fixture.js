// What a scenario works with: names, clients that are closed after it, and waits that end.
'use strict';

const { EventEmitter, once } = require('node:events');
const { inspect, isDeepStrictEqual } = require('node:util');
const { ConsumeResult, Producer, PushConsumer, SimpleConsumer, getDefaultLogger } = require('rocketmq-client-nodejs');

const AWAIT = 3; // seconds that a receive waits for a message
const INVISIBLE = 30; // seconds that a received message stays with its receiver
const BATCH = 32;
const WATCH = 1; // seconds for which a push consumer is watched for a delivery too many

// Version 1 of the client-made ids: 01, MAC address, process, time, counter.
const MESSAGE_ID = /^01[0-9A-Fa-f]{32}$/;

// A client closes its logger and then writes its last words to it: one for all, never closed.
const logger = Object.assign(getDefaultLogger(), { close: undefined });

/** The server did not do what the scenario asks for. */
class Failure extends Error {}

/** The client lacks what the scenario needs. */
class Skip extends Error {}

function check(condition, reason) {
  if (!condition) throw new Failure(reason);
}

function expect(what, actual, expected) {
  check(isDeepStrictEqual(actual, expected), `${what} is ${show(actual)}, expected ${show(expected)}`);
}

function show(value) {
  return inspect(value, { breakLength: Infinity, maxArrayLength: null });
}

/** A message as it was sent. */
class Sent {
  constructor(body, { tag, keys = [], properties = {} }) {
    Object.assign(this, { body, tag, keys, properties, id: undefined });
  }

  /** Checks that `message` is this one, delivered for the `attempt`th time. */
  verify(message, attempt = 1) {
    expect('message id', message.messageId, this.id);
    expect(`tag of ${this.id}`, message.tag || undefined, this.tag); // this client shows no tag as ''
    expect(`keys of ${this.id}`, new Set(message.keys), new Set(this.keys));
    expect(`properties of ${this.id}`, Object.fromEntries(message.properties), this.properties);
    expect(`delivery attempt of ${this.id}`, message.deliveryAttempt, attempt);
    this.verifyBody(message);
  }

  verifyBody(message) {
    check(message.body.equals(this.body), `body of ${this.id} (${this.body.length} bytes) came back changed`);
    check(!message.corrupted, `digest of ${this.id} does not fit its body`);
  }
}

/** Keeps what a push consumer was given; `accept` decides whether a message counts as consumed. */
class Inbox {
  #accept;
  #messages = [];
  #arrivals = new EventEmitter();

  constructor(accept) {
    this.#accept = accept;
  }

  async consume(message) {
    this.#messages.push(message);
    this.#arrivals.emit('message');
    return this.#accept(message) ? ConsumeResult.SUCCESS : ConsumeResult.FAILURE;
  }

  /** Waits until `count` deliveries came, and a moment longer for one too many; returns all. */
  async waitFor(count, fixture) {
    await this.#hold(count, fixture.remaining());
    check(this.#messages.length >= count, `${this.#messages.length} of ${count} deliveries came`);
    await this.#hold(count + 1, WATCH);
    return [...this.#messages];
  }

  /** Returns as soon as `count` deliveries are here, after `seconds` at the latest. */
  async #hold(count, seconds) {
    const late = AbortSignal.timeout(Math.ceil(seconds * 1000));
    while (this.#messages.length < count && !late.aborted) {
      await once(this.#arrivals, 'message', { signal: late }).catch(() => {});
    }
  }
}

class Fixture {
  #deadline;
  #clients = [];

  constructor(scenario, options) {
    this.options = options;
    this.topic = options.topic ?? this.nameFor(scenario);
    this.group = options.group ?? `${this.nameFor(scenario)}-group`;
    this.counts = ''; // what a tool did, for its result line
    this.#deadline = performance.now() + options.timeout * 1000;
  }

  nameFor(scenario) {
    return `${this.options.prefix}-nodejs-${scenario}`;
  }

  /** Seconds left of the scenario's time. */
  remaining() {
    return Math.max(0, (this.#deadline - performance.now()) / 1000);
  }

  producer() {
    return this.#start(Producer, { topics: [this.topic] });
  }

  simpleConsumer({ topic = this.topic, group = this.group, tags = '*', awaitSeconds = AWAIT } = {}) {
    return this.#start(SimpleConsumer, {
      consumerGroup: group,
      subscriptions: new Map([[topic, tags]]),
      awaitDuration: awaitSeconds * 1000,
    });
  }

  /** Starts a push consumer on the scenario's topic; returns its inbox. */
  async pushConsumer(accept = () => true) {
    const inbox = new Inbox(accept);
    await this.#start(PushConsumer, {
      consumerGroup: this.group,
      subscriptions: new Map([[this.topic, '*']]),
      messageListener: inbox,
    });
    return inbox;
  }

  async #start(Client, options) {
    const { endpoint, tls } = this.options;
    const client = new Client({ endpoints: endpoint, sslEnabled: tls, logger, ...options });
    this.#clients.push(client);
    await client.startup();
    return client;
  }

  /** Sends one message to the scenario's topic and checks its receipt. */
  async send(producer, body, { tag, keys, properties } = {}) {
    const sent = new Sent(Buffer.from(body), { tag, keys, properties });
    const receipt = await producer.send({
      topic: this.topic,
      body: sent.body,
      tag,
      keys,
      properties: new Map(Object.entries(sent.properties)),
    });
    check(MESSAGE_ID.test(receipt.messageId), `message id ${show(receipt.messageId)} is not of version 1`);
    sent.id = receipt.messageId;
    return sent;
  }

  /** Receives until `count` messages came; more are a failure. */
  async receive(consumer, count, { invisible = INVISIBLE } = {}) {
    const messages = [];
    while (messages.length < count) {
      check(this.remaining() > 0, `${messages.length} of ${count} messages came`);
      messages.push(...(await consumer.receive(BATCH, invisible * 1000)));
    }
    expect('number of messages', messages.length, count);
    return messages;
  }

  async receiveOne(consumer, options) {
    const [message] = await this.receive(consumer, 1, options);
    return message;
  }

  async expectNothing(consumer) {
    const surplus = await consumer.receive(BATCH, INVISIBLE * 1000);
    expect('what a further receive finds', surplus.map(message => message.messageId), []);
  }

  /** Shuts the clients down, the last one first. */
  async close() {
    while (this.#clients.length > 0) await this.#clients.pop().shutdown();
  }
}

module.exports = { AWAIT, BATCH, INVISIBLE, Failure, Fixture, Skip, check, expect };
