// postgres.js: every statement named and pipelined, cursors, COPY streams, reserve(), cancel().
'use strict';
const { assert, group, raises, org, direct, rows, total, times, connections, ssl, unique, sleep, finish } = require('./common.js');
const { pipeline } = require('node:stream/promises');
const { Readable } = require('node:stream');
const postgres = require('postgres');

const { PGHOST, PGPORT, PGDATABASE, PGUSER, PGPASSWORD } = process.env;
const open = (options = {}) => postgres({
  host: PGHOST, port: Number(PGPORT), database: PGDATABASE, username: PGUSER, password: PGPASSWORD, ssl, max: 1,
  onnotice: () => {}, ...options });

async function withSql(options, work) {
  const sql = open(options);
  try {
    return await work(sql);
  } finally {
    await sql.end({ timeout: 5 });
  }
}

async function main() {
  await group('connect', () =>
    withSql({ connection: { application_name: 'postgres.js test', statement_timeout: 61000, search_path: 'public', TimeZone: 'Asia/Tokyo' } },
      async (sql) => {
        const [row] = await sql`SELECT current_setting('statement_timeout') a, current_setting('search_path') b, current_setting('TimeZone') c`;
        assert.deepEqual({ ...row }, { a: '61s', b: 'public', c: 'Asia/Tokyo' });
        assert.equal(sql.parameters?.application_name ?? 'postgres.js test', 'postgres.js test');
      }));

  await group('introspection', () =>
    withSql({}, async (sql) => {
      const rows = await sql`SELECT column_name FROM information_schema.columns WHERE table_name = ${'runs'} ORDER BY ordinal_position`;
      assert.equal(rows[0].column_name, 'org_id');
      const described = await sql`SELECT name, created_at FROM pipelines WHERE id = ${'00000000-0000-0000-0000-000000000000'}`.describe();
      assert.equal(described.columns[0].name, 'name');
    }));

  await group('types', () =>
    withSql({}, async (sql) => {
      const when = new Date('2024-02-29T12:34:56.789Z');
      const [row] = await sql`SELECT ${7}::int a, ${'1099511627776'}::int8 b, ${"Grüße 'x'"}::text d, ${Buffer.from([0, 255])}::bytea e,
        ${when}::timestamptz f, ${sql.json({ a: [1, null] })}::jsonb g, ${[1, 2]}::int[] h, ${true}::bool i, ${null}::text j`;
      assert.deepEqual({ ...row }, { a: 7, b: '1099511627776', d: "Grüße 'x'", e: Buffer.from([0, 255]), f: when,
        g: { a: [1, null] }, h: [1, 2], i: true, j: null });
      const names = await sql`SELECT name FROM pipelines WHERE name IN ${sql(['a', 'b', 'c'])}`;
      assert.equal(names.length, 0);
    }));

  await group('transactions', () =>
    withSql({ max: 4 }, async (sql) => {
      const name = unique('postgresjs');
      await assert.rejects(sql.begin(async (tx) => {
        await tx`INSERT INTO pipelines ${tx({ org_id: org, name, owner: 'o', schedule: 's' })}`;
        throw new Error('back');
      }), /back/);
      await sql.begin('isolation level serializable', async (tx) => {
        await tx`INSERT INTO pipelines ${tx([{ org_id: org, name, owner: 'o', schedule: 's' }])}`;
        await tx.savepoint(async (inner) => {
          await inner`UPDATE pipelines SET owner = 'p' WHERE name = ${name}`;
          await inner`SELECT 1 / ${0}::int`;
        }).catch((error) => assert.equal(error.code, '22012'));
        assert.equal((await tx`SELECT owner FROM pipelines WHERE name = ${name}`)[0].owner, 'o');
      });
      const results = await sql.begin((tx) => [tx`SELECT 1 AS a`, tx`SELECT 2 AS b`, tx`DELETE FROM pipelines WHERE name = ${name}`]);
      assert.equal(results[2].count, 1);
    }));

  await group('streaming', () =>
    withSql({}, async (sql) => {
      let sum = 0;
      await sql`SELECT g FROM generate_series(1, ${rows}::int) g`.cursor(100, (batch) => { for (const row of batch) sum += row.g; });
      assert.equal(sum, total(rows));
      for await (const batch of sql`SELECT g FROM generate_series(1, 100000) g`.cursor(10)) { assert.equal(batch.length, 10); break; }
      await sql`SELECT g FROM generate_series(1, 1000) g`.forEach(() => { sum -= 1; });
      assert.equal(sum, total(rows) - 1000);
    }));

  await group('copy', () =>
    withSql({}, async (sql) => {
      let bytes = 0;
      for await (const chunk of await sql`COPY (SELECT generate_series(1, 1000)) TO STDOUT`.readable()) bytes += chunk.length;
      assert.equal(bytes, 3893);
      await sql`CREATE TEMPORARY TABLE loaded (a int, b text)`;
      await pipeline(Readable.from(['1\tx\n', '2\ty\n']), await sql`COPY loaded FROM STDIN`.writable());
      assert.equal((await sql`SELECT count(*)::int n FROM loaded`)[0].n, 2);
      assert.equal((await sql`SELECT 1 AS a`)[0].a, 1);
    }));

  await group('cancel', () =>
    withSql({}, async (sql) => {
      const sleeping = sql`SELECT pg_sleep(60)`;
      const failing = raises('57014', sleeping);
      await sleep(500);
      sleeping.cancel();
      await failing;
      assert.equal((await sql`SELECT 1 AS a`)[0].a, 1);
    }));

  await group('timeouts', () =>
    withSql({ connection: { statement_timeout: 150 } }, (sql) => raises('57014', sql`SELECT pg_sleep(60)`)));

  await group('settings', () =>
    withSql({ max: 4 }, async (sql) => {
      const held = await sql.reserve();
      await held`SET work_mem = '3MB'`;
      await held.unsafe("SET TimeZone = 'Europe/Paris'; SET search_path = pg_catalog");
      assert.equal((await held`SHOW work_mem`)[0].work_mem, '3MB');
      assert.equal((await held`SHOW search_path`)[0].search_path, 'pg_catalog');
      await held`DISCARD ALL`.simple();
      assert.notEqual((await held`SHOW search_path`)[0].search_path, 'pg_catalog');
      assert.equal((await held`SELECT current_setting('app.current_org_id') AS org`)[0].org, org);
      held.release();
    }));

  await group('prepared', () =>
    withSql({ max: connections }, async (sql) => {
      const sums = await Promise.all(Array.from({ length: times }, (_, at) => sql`SELECT ${at}::int + 1 AS sum`));
      sums.forEach(([row], at) => assert.equal(row.sum, at + 1));
      await Promise.all(Array.from({ length: times }, (_, at) => sql`SELECT name FROM pipelines WHERE name = ${String(at)}`));
    }));

  await group('deallocate', () =>
    withSql({}, async (sql) => {
      await sql`SELECT ${1}::int`;
      await sql`DEALLOCATE ALL`.simple();
      await raises('26000', sql`EXECUTE nobody`.simple());
    }));

  await group('notices', async () => {
    const heard = [];
    await withSql({ onnotice: (notice) => heard.push(notice.code) }, async (sql) => {
      await sql`ROLLBACK`.simple();
      await sql`DROP TABLE IF EXISTS pg_temp.nothing`;
    });
    assert.deepEqual(heard, ['25P01', '00000']);
  });

  await group('errors', () =>
    withSql({}, async (sql) => {
      assert.equal((await raises('23514', sql`UPDATE pipelines SET status = 'odd'`)).constraint_name, 'pipelines_status_check');
      assert.equal((await raises('42703', sql`SELECT nme FROM pipelines`)).position, '8');
      if (!direct) await raises('42501', sql.unsafe('LISTEN channel'));
    }));

  await group('temporary tables', () =>
    withSql({}, async (sql) => {
      await sql`CREATE TEMPORARY TABLE mine (a int)`;
      await sql`INSERT INTO mine ${sql(Array.from({ length: 10 }, (_, a) => ({ a })))}`;
      assert.equal((await sql`SELECT sum(a)::int AS sum FROM mine`)[0].sum, 45);
    }));

  finish();
}

main();
