// What the Node clients share: groups of checks that print one line of result each.
'use strict';
const assert = require('node:assert/strict');
const crypto = require('node:crypto');

const env = process.env;
let failed = 0;

const groups = (env.PARTYWALL_GROUPS || '').split(',').filter(Boolean);

async function group(name, work) {
  if (groups.length && !groups.includes(name)) return;
  try {
    await work();
    console.log(`ok ${name}`);
  } catch (error) {
    failed += 1;
    if (env.PARTYWALL_TRACE) console.error(error);
    const at = /\w+\.js:\d+/.exec((error.stack || '').split('\n').filter((line) => /node_postgres|postgres_js/.test(line)).join());
    console.log(`FAIL ${name}: ${at || ''} ${String(error.message).replace(/\s+/g, ' ').slice(0, 400)}`);
  }
}

async function raises(code, promise) {
  try {
    await promise;
  } catch (error) {
    assert.equal(error.code, code, error.message);
    return error;
  }
  throw new Error(`no error, where ${code} was due`);
}

module.exports = {
  assert, group, raises, org: env.PARTYWALL_ORG, direct: env.PARTYWALL_DIRECT === '1',
  rows: Number(env.PARTYWALL_ROWS || 5000), bytes: Number(env.PARTYWALL_BYTES || 3000000),
  total: (rows) => (rows * (rows + 1)) / 2,
  times: Number(env.PARTYWALL_TIMES || 1000), connections: Number(env.PARTYWALL_CONNECTIONS || 20),
  ssl: env.PGSSLMODE === 'disable' ? false : { rejectUnauthorized: true, ca: env.PARTYWALL_CA && require('node:fs').readFileSync(env.PARTYWALL_CA, 'utf8') },
  unique: (prefix) => `${prefix}-${crypto.randomUUID()}`,
  sleep: (ms) => new Promise((done) => setTimeout(done, ms)),
  finish: () => process.exit(failed ? 1 : 0),
  insert: 'INSERT INTO pipelines (org_id, name, owner, schedule) VALUES',
};
