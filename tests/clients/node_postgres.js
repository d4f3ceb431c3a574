// node-postgres: pool, named queries, cursors, streams, binary results, cancel by a second connection.
'use strict';
const { assert, group, raises, org, direct, rows, bytes, total, times, connections, ssl, unique, sleep, finish, insert } = require('./common.js');
const pg = require('pg');
const Cursor = require('pg-cursor');
const QueryStream = require('pg-query-stream');

delete process.env.PGSSLMODE;

async function withClient(options, work) {
  const client = new pg.Client({ ssl, ...options });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

const one = async (client, ...query) => Object.values((await client.query(...query)).rows[0])[0];

async function main() {
  await group('connect', () =>
    withClient(
      { statement_timeout: 61000, lock_timeout: 5000, idle_in_transaction_session_timeout: 30000, application_name: 'node test',
        options: '-c timezone=Asia/Tokyo' },
      async (client) => {
        assert.equal(await one(client, 'SHOW statement_timeout'), '61s');
        assert.equal(await one(client, 'SHOW TimeZone'), 'Asia/Tokyo');
        assert.equal(await one(client, 'SHOW application_name'), 'node test');
        assert.equal(await one(client, "SELECT current_setting('app.current_org_id')"), org);
      }));

  await group('introspection', () =>
    withClient({}, async (client) => {
      const { rows } = await client.query(
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = $1 ORDER BY ordinal_position", ['runs']);
      assert.equal(rows[1].data_type, 'uuid');
      const found = await client.query('SELECT * FROM pipelines LIMIT 0');
      assert.equal(found.fields[0].name, 'org_id');
    }));

  await group('types', () =>
    withClient({}, async (client) => {
      const when = new Date('2024-02-29T12:34:56.789Z');
      const { rows: [row] } = await client.query(
        'SELECT $1::int a, $2::bigint b, $3::numeric c, $4::text d, $5::bytea e, $6::timestamptz f, $7::jsonb g, $8::int[] h, $9::bool i, $10::text j',
        [7, '1099511627776', '1.230', "Grüße 'x' 世界", Buffer.from([0, 255]), when, { a: [1, null] }, [1, null], true, null]);
      assert.deepEqual(row, { a: 7, b: '1099511627776', c: '1.230', d: "Grüße 'x' 世界", e: Buffer.from([0, 255]), f: when,
        g: { a: [1, null] }, h: [1, null], i: true, j: null });
      const { rows: [binary] } = await client.query({ text: 'SELECT $1::int a, 2::int8 b', values: [7], binary: true });
      assert.equal(binary.a, 7);
      const big = 'x'.repeat(bytes);
      assert.equal(await one(client, 'SELECT $1::text', [big]), big);
    }));

  await group('transactions', () =>
    withClient({}, async (client) => {
      const name = unique('node');
      await client.query('BEGIN');
      await client.query(`${insert} ($1, $2, 'o', 's')`, [org, name]);
      await client.query('SAVEPOINT one');
      await raises('22012', client.query('SELECT 1 / $1::int', [0]));
      await raises('25P02', client.query('SELECT 1'));
      await client.query('ROLLBACK TO one');
      assert.equal(await one(client, 'SELECT count(*)::int FROM pipelines WHERE name = $1', [name]), 1);
      await client.query('ROLLBACK');
      assert.equal(await one(client, 'SELECT count(*)::int FROM pipelines WHERE name = $1', [name]), 0);
      const results = await client.query('BEGIN; SELECT 1 AS a; SELECT 2 AS b; COMMIT');
      assert.deepEqual(results.map((result) => result.command), ['BEGIN', 'SELECT', 'SELECT', 'COMMIT']);
    }));

  await group('streaming', () =>
    withClient({}, async (client) => {
      const cursor = client.query(new Cursor('SELECT g FROM generate_series(1, $1::int) g', [1000]));
      let read = 0;
      for (let batch = await cursor.read(64); batch.length; batch = await cursor.read(64)) read += batch.length;
      assert.equal(read, 1000);
      await cursor.close();
      const early = client.query(new Cursor('SELECT g FROM generate_series(1, 100000) g'));
      assert.equal((await early.read(10)).length, 10);
      await early.close();
      let streamed = 0;
      for await (const row of client.query(new QueryStream('SELECT g FROM generate_series(1, $1::int) g', [rows], { batchSize: 50 }))) streamed += row.g;
      assert.equal(streamed, total(rows));
      assert.equal(await one(client, 'SELECT 1'), 1);
    }));

  await group('hold cursors', () =>
    withClient({}, async (client) => {
      await client.query('DECLARE kept CURSOR WITH HOLD FOR SELECT generate_series(1, 10)');
      assert.equal((await client.query('FETCH 3 FROM kept')).rows.length, 3);
      assert.equal((await client.query('FETCH ALL FROM kept')).rows.length, 7);
      await client.query('CLOSE kept');
    }));

  await group('cancel', () =>
    withClient({}, async (client) => {
      const sleeping = client.query('SELECT pg_sleep(60)');
      const failing = raises('57014', sleeping);
      await sleep(300);
      const { host, port, processID, secretKey } = client;
      // The driver's own cancel() opens a plain connection: that is what a cancel request is.
      const other = new pg.Connection({ stream: require('node:net').connect(port, host) });
      other.on('error', () => {});
      other.stream.once('connect', () => {
        other.cancel(processID, secretKey);
      });
      await failing;
      assert.equal(await one(client, 'SELECT 1'), 1);
    }));

  await group('timeouts', () =>
    withClient({ statement_timeout: 150 }, async (client) => {
      await raises('57014', client.query('SELECT pg_sleep(60)'));
      assert.equal(await one(client, 'SELECT 1'), 1);
    }));

  await group('settings', () =>
    withClient({}, async (client) => {
      const path = await one(client, 'SHOW search_path');
      await client.query("SET client_min_messages TO warning;SET TIME ZONE INTERVAL '+00:00' HOUR TO MINUTE;");
      await client.query('SET search_path = pg_catalog');
      assert.equal(await one(client, 'SHOW client_min_messages'), 'warning');
      assert.equal(await one(client, 'SHOW search_path'), 'pg_catalog');
      await client.query('RESET ALL');
      assert.equal(await one(client, 'SHOW search_path'), path);
      await client.query('DISCARD ALL');
      assert.equal(await one(client, "SELECT current_setting('app.current_org_id')"), org);
    }));

  await group('prepared', async () => {
    const pool = new pg.Pool({ ssl, max: connections });
    const work = async (number) => {
      for (let at = 0; at < times / connections; at += 1) {
        const { rows } = await pool.query({ name: 'same', text: 'SELECT $1::int + $2::int AS sum', values: [number, at] });
        assert.equal(rows[0].sum, number + at);
      }
    };
    await Promise.all(Array.from({ length: connections }, (_, number) => work(number)));
    // The same name means different SQL in each session.
    await Promise.all(Array.from({ length: connections }, async (_, number) => {
      const client = await pool.connect();
      for (let at = 0; at < 5; at += 1) {
        const { rows } = await client.query({ name: 'own', text: `SELECT ${number} AS own` });
        assert.equal(rows[0].own, number);
      }
      client.release();
    }));
    await pool.end();
  });

  await group('deallocate', () =>
    withClient({}, async (client) => {
      await client.query({ name: 'gone', text: 'SELECT 1' });
      await client.query('DEALLOCATE gone');
      await raises('26000', client.query({ name: 'gone', text: 'SELECT 1' }));
      await raises('42601', client.query({ name: 'bad', text: 'SELEC 1' }));
      await client.query({ name: 'bad', text: 'SELECT 1' });
    }));

  await group('notices', () =>
    withClient({}, async (client) => {
      const heard = [];
      client.on('notice', (notice) => heard.push(notice.code));
      await client.query('ROLLBACK');
      await client.query('DROP TABLE IF EXISTS pg_temp.nothing');
      assert.deepEqual(heard, ['25P01', '00000']);
    }));

  await group('errors', () =>
    withClient({}, async (client) => {
      const error = await raises('23514', client.query("UPDATE pipelines SET status = 'odd'"));
      assert.equal(error.constraint, 'pipelines_status_check');
      assert.equal((await raises('42703', client.query('SELECT nme FROM pipelines'))).position, '8');
      if (!direct) {
        await raises('42501', client.query('LISTEN channel'));
      }
    }));

  await group('temporary tables', () =>
    withClient({}, async (client) => {
      await client.query('CREATE TEMPORARY TABLE mine AS SELECT generate_series(1, 10) AS a');
      assert.equal(await one(client, 'SELECT count(*)::int FROM mine WHERE a > $1', [5]), 5);
      await client.query('DROP TABLE pg_temp.mine');
      await raises('42P01', client.query('SELECT * FROM mine'));
    }));

  finish();
}

main();
