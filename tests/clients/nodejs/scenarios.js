// The scenarios, each a function of its fixture; what they mean is in ../README.md.
'use strict';

const { check, expect } = require('./fixture');

const MIB = 1 << 20;

async function sendReceiveAck(fixture) {
  const producer = await fixture.producer();
  const consumer = await fixture.simpleConsumer();
  const sent = [];
  for (let i = 0; i < 20; i++) {
    sent.push(
      await fixture.send(producer, `body ${i}`, {
        tag: 'tag',
        keys: [`key-${i}`, `other-key-${i}`],
        properties: { index: `${i}`, unicode: 'grüße, 世界 🚀', empty: '' },
      }),
    );
  }
  const byId = new Map(sent.map(one => [one.id, one]));
  expect('number of different message ids', byId.size, sent.length);
  for (const message of await fixture.receive(consumer, sent.length)) {
    check(byId.has(message.messageId), `message id ${message.messageId} is unknown or came twice`);
    byId.get(message.messageId).verify(message);
    byId.delete(message.messageId);
    expect('topic', message.topic, fixture.topic);
    await consumer.ack(message);
  }
  await fixture.expectNothing(consumer);
}

async function pushConsume(fixture) {
  const inbox = await fixture.pushConsumer();
  const producer = await fixture.producer();
  const sent = [];
  for (let i = 0; i < 50; i++) sent.push(await fixture.send(producer, `body ${i}`));
  const deliveries = await inbox.waitFor(sent.length, fixture);
  expect('delivered ids', deliveries.map(message => message.messageId).sort(), sent.map(one => one.id).sort());
}

async function tagFilter(fixture) {
  const producer = await fixture.producer();
  const consumer = await fixture.simpleConsumer({ tags: 'a || b' });
  const sent = [];
  for (let i = 0; i < 3; i++) {
    for (const tag of ['a', 'b', 'c', undefined]) sent.push(await fixture.send(producer, `${tag} ${i}`, { tag }));
  }
  const wanted = sent.filter(one => ['a', 'b'].includes(one.tag)).map(one => one.id);
  const messages = await fixture.receive(consumer, wanted.length);
  expect('received ids', messages.map(message => message.messageId).sort(), wanted.sort());
  for (const message of messages) await consumer.ack(message);
  await fixture.expectNothing(consumer);
}

async function redelivery(fixture) {
  const consumer = await fixture.simpleConsumer();
  const sent = await fixture.send(await fixture.producer(), 'unacknowledged at first');
  sent.verify(await fixture.receiveOne(consumer, { invisible: 10 }));
  const received = performance.now();
  const again = await fixture.receiveOne(consumer);
  const waited = secondsSince(received);
  sent.verify(again, 2);
  check(waited >= 9.5, `redelivered after ${waited.toFixed(1)} s, invisible for 10 s`);
  await consumer.ack(again);
  await fixture.expectNothing(consumer);
}

async function changeInvisible(fixture) {
  const consumer = await fixture.simpleConsumer();
  const sent = await fixture.send(await fixture.producer(), 'shortened');
  const message = await fixture.receiveOne(consumer, { invisible: 60 });
  sent.verify(message);
  const changed = performance.now();
  await consumer.changeInvisibleDuration(message, 1000);
  const again = await fixture.receiveOne(consumer);
  const waited = secondsSince(changed);
  sent.verify(again, 2);
  check(waited <= 10, `redelivered after ${waited.toFixed(1)} s, invisible for 1 s`);
  await consumer.ack(again);
  await fixture.expectNothing(consumer);
}

async function deadLetter(fixture) {
  const consumer = await fixture.simpleConsumer();
  const sent = await fixture.send(await fixture.producer(), 'never acknowledged', { properties: { kept: 'yes' } });
  for (const attempt of [1, 2]) {
    const message = await fixture.receiveOne(consumer);
    sent.verify(message, attempt);
    await consumer.changeInvisibleDuration(message, 1000);
  }
  await fixture.expectNothing(consumer);
  const deadLetters = `%DLQ%${fixture.group}`;
  const reader = await fixture.simpleConsumer({ topic: deadLetters, group: `${fixture.topic}-reader` });
  const dead = await fixture.receiveOne(reader);
  expect('message id of the dead letter', dead.messageId, sent.id);
  expect('topic of the dead letter', dead.topic, deadLetters);
  expect('property of the dead letter', dead.properties.get('kept'), 'yes');
  sent.verifyBody(dead);
  await reader.ack(dead);
  await fixture.expectNothing(reader);
  await fixture.expectNothing(consumer);
}

async function pushRetry(fixture) {
  const inbox = await fixture.pushConsumer(message => message.deliveryAttempt > 1);
  const sent = await fixture.send(await fixture.producer(), 'refused at first');
  const deliveries = await inbox.waitFor(2, fixture);
  expect('number of deliveries', deliveries.length, 2);
  deliveries.forEach((message, i) => sent.verify(message, i + 1));
}

async function largeBody(fixture) {
  const producer = await fixture.producer();
  const consumer = await fixture.simpleConsumer();
  for (const size of [MIB, Math.floor(MIB * 3.9)]) {
    const sent = await fixture.send(producer, Uint8Array.from({ length: size }, (_, i) => i % 251));
    const message = await fixture.receiveOne(consumer);
    sent.verify(message);
    await consumer.ack(message);
  }
}

async function emptyPoll(fixture) {
  const consumer = await fixture.simpleConsumer({ awaitSeconds: 5 });
  const asked = performance.now();
  await fixture.expectNothing(consumer);
  const waited = secondsSince(asked);
  check(waited >= 3 && waited <= 10, `an empty receive took ${waited.toFixed(1)} s, asked to wait 5 s`);
}

function secondsSince(moment) {
  return (performance.now() - moment) / 1000;
}

const SCENARIOS = {
  'send-receive-ack': sendReceiveAck,
  'push-consume': pushConsume,
  'tag-filter': tagFilter,
  redelivery,
  'change-invisible': changeInvisible,
  'dead-letter': deadLetter,
  'push-retry': pushRetry,
  'large-body': largeBody,
  'empty-poll': emptyPoll,
};

module.exports = { SCENARIOS };
