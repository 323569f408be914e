// The command line. To be loaded first: it sets what the client reads while being loaded.
'use strict';

const { parseArgs } = require('node:util');

function parse(args) {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      endpoint: { type: 'string' }, // HOST:PORT of the server
      tls: { type: 'boolean', default: false }, // use TLS
      ca: { type: 'string' }, // certificate file to trust
      prefix: { type: 'string', default: 'e2e' }, // first part of topic and group names
      timeout: { type: 'string', default: '30' }, // seconds that a scenario may wait
      topic: { type: 'string' }, // topic to use in place of the derived one
      group: { type: 'string' }, // consumer group to use in place of the derived one
      inflight: { type: 'string', default: '8' }, // sends at a time
      quiet: { type: 'string', default: '5' }, // seconds without a message that end a consumer
    },
  });
  if (!values.endpoint || positionals.length === 0) throw new TypeError('needed: --endpoint HOST:PORT SCENARIO...');
  const [timeout, inflight, quiet] = [values.timeout, values.inflight, values.quiet].map(Number);
  return { ...values, timeout, inflight, quiet, scenarios: positionals };
}

try {
  module.exports = parse(process.argv.slice(2));
} catch (error) {
  console.error(error.message);
  process.exit(2);
}

// The only way to tell this client which certificate to trust.
if (module.exports.ca) process.env.GRPC_DEFAULT_SSL_ROOTS_FILE_PATH = module.exports.ca;
