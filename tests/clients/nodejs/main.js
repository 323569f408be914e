// Runs named scenarios with the official Node.js client; the contract is in ../README.md.
'use strict';

const options = require('./options');
const { Failure, Fixture, Skip } = require('./fixture');
const { SCENARIOS } = require('./scenarios');
const { TOOLS } = require('./tools');

// How many seconds longer than its own waits a scenario may take before it counts as stuck.
const GRACE = 15;

async function main() {
  const names = options.scenarios.join() === 'all' ? Object.keys(SCENARIOS) : options.scenarios;
  let failed = false;
  for (const name of names) {
    const line = await run(name);
    console.log(line);
    failed ||= line.startsWith('FAIL');
  }
  // Timers of a client that did not stop would keep the process alive.
  process.exit(failed ? 1 : 0);
}

/** Runs one scenario; returns its result line. */
async function run(name) {
  const scenario = SCENARIOS[name] ?? TOOLS[name];
  if (!scenario) return `FAIL ${name} unknown scenario`;
  if (options.tls && !options.ca) {
    return `SKIP ${name} this client verifies certificates: name one to trust with --ca`;
  }
  const started = performance.now();
  const fixture = new Fixture(name, options);
  const limit = options.timeout + GRACE;
  const scenarioError = await within(limit, () => scenario(fixture));
  const closeError = await within(limit, () => fixture.close());
  const error = scenarioError ?? closeError;
  if (!error) return `PASS ${name} ${Math.round(performance.now() - started)}ms ${fixture.counts}`.trimEnd();
  if (error instanceof Skip) return `SKIP ${name} ${error.message}`;
  if (error instanceof Failure) return `FAIL ${name} ${oneLine(error.message)}`;
  return `FAIL ${name} ${oneLine(error)}`;
}

/** Returns the error of `call`, if any; a call that takes too long is left to itself. */
async function within(seconds, call) {
  let timer;
  const stuck = new Promise(resolve => {
    timer = setTimeout(() => resolve(new Failure(`stuck for ${seconds} s`)), seconds * 1000);
  });
  try {
    return await Promise.race([call().then(() => undefined), stuck]);
  } catch (error) {
    return error;
  } finally {
    clearTimeout(timer);
  }
}

function oneLine(text) {
  return String(text).split(/\s+/).join(' ');
}

// What goes wrong in a client's background work shows in the scenario; it must not end the program.
process.on('unhandledRejection', error => console.error(error));

main();
