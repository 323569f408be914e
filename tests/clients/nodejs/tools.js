// Not tests but tools for them: a producer to stop from outside, a consumer that drains a topic.
'use strict';

const { setTimeout: sleep } = require('node:timers/promises');
const { AWAIT, BATCH, INVISIBLE, check } = require('./fixture');

const PAUSE = 0.2; // seconds between two calls after the first of them failed

async function produceUntilStopped(fixture) {
  const producer = await fixture.producer();
  let [stopped, number, acked, errors] = [false, 0, 0, 0];
  process.stdin.resume().once('end', () => (stopped = true));

  async function produce() {
    while (!stopped && fixture.remaining() > 0) {
      const mine = ++number;
      try {
        const receipt = await producer.send({ topic: fixture.topic, body: Buffer.from(`${mine}`) });
        acked++;
        say('ACKED', mine, receipt.messageId);
      } catch (error) {
        errors++;
        say('ERROR', mine, error);
        await sleep(PAUSE * 1000);
      }
    }
  }

  await Promise.all(Array.from({ length: fixture.options.inflight }, produce));
  fixture.counts = `acked=${acked} errors=${errors}`;
}

async function consumeUntilQuiet(fixture) {
  const topic = fixture.options.topic ?? fixture.nameFor('produce-until-stopped');
  const { quiet, timeout } = fixture.options;
  const consumer = await fixture.simpleConsumer({ topic, awaitSeconds: Math.max(1, Math.min(AWAIT, quiet)) });
  let [received, errors, heard] = [0, 0, performance.now()];
  while (performance.now() - heard < quiet * 1000) {
    check(fixture.remaining() > 0, `no ${quiet} s of quiet within ${timeout} s`);
    try {
      const messages = await consumer.receive(BATCH, INVISIBLE * 1000);
      for (const message of messages) {
        say('RECEIVED', message.body, message.messageId, message.deliveryAttempt);
        received++;
        heard = performance.now();
      }
      await Promise.all(messages.map(message => consumer.ack(message)));
    } catch (error) {
      errors++;
      heard = performance.now(); // a server that fails is not a quiet one
      say('ERROR', error);
      await sleep(PAUSE * 1000);
    }
  }
  fixture.counts = `received=${received} errors=${errors}`;
}

/** Prints one line. */
function say(...words) {
  console.log(words.join(' ').split(/\s+/).join(' '));
}

const TOOLS = {
  'produce-until-stopped': produceUntilStopped,
  'consume-until-quiet': consumeUntilQuiet,
};

module.exports = { TOOLS };
