-- Recorded from Django 5.2.19 on psycopg 3, on PostgreSQL 15 and 18: inspectdb, ORM (tests/clients/run --record).
SHOW TimeZone
-- .
SELECT current_setting('application_name')
-- .

            SELECT
                c.relname,
                CASE
                    WHEN c.relispartition THEN 'p'
                    WHEN c.relkind IN ('m', 'v') THEN 'v'
                    ELSE 't'
                END,
                obj_description(c.oid, 'pg_class')
            FROM pg_catalog.pg_class c
            LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind IN ('f', 'm', 'p', 'r', 'v')
                AND n.nspname NOT IN ('pg_catalog', 'pg_toast')
                AND pg_catalog.pg_table_is_visible(c.oid)
-- .

            SELECT a1.attname, c2.relname, a2.attname
            FROM pg_constraint con
            LEFT JOIN pg_class c1 ON con.conrelid = c1.oid
            LEFT JOIN pg_class c2 ON con.confrelid = c2.oid
            LEFT JOIN
                pg_attribute a1 ON c1.oid = a1.attrelid AND a1.attnum = con.conkey[1]
            LEFT JOIN
                pg_attribute a2 ON c2.oid = a2.attrelid AND a2.attnum = con.confkey[1]
            WHERE
                c1.relname = 'datasets' AND
                con.contype = 'f' AND
                c1.relnamespace = c2.relnamespace AND
                pg_catalog.pg_table_is_visible(c1.oid)
-- .

            SELECT
                c.conname,
                array(
                    SELECT attname
                    FROM unnest(c.conkey) WITH ORDINALITY cols(colid, arridx)
                    JOIN pg_attribute AS ca ON cols.colid = ca.attnum
                    WHERE ca.attrelid = c.conrelid
                    ORDER BY cols.arridx
                ),
                c.contype,
                (SELECT fkc.relname || '.' || fka.attname
                FROM pg_attribute AS fka
                JOIN pg_class AS fkc ON fka.attrelid = fkc.oid
                WHERE fka.attrelid = c.confrelid AND fka.attnum = c.confkey[1]),
                cl.reloptions
            FROM pg_constraint AS c
            JOIN pg_class AS cl ON c.conrelid = cl.oid
            WHERE cl.relname = 'datasets' AND pg_catalog.pg_table_is_visible(cl.oid)
-- .

            SELECT
                indexname,
                array_agg(attname ORDER BY arridx),
                indisunique,
                indisprimary,
                array_agg(ordering ORDER BY arridx),
                amname,
                exprdef,
                s2.attoptions
            FROM (
                SELECT
                    c2.relname as indexname, idx.*, attr.attname, am.amname,
                    CASE
                        WHEN idx.indexprs IS NOT NULL THEN
                            pg_get_indexdef(idx.indexrelid)
                    END AS exprdef,
                    CASE am.amname
                        WHEN 'btree' THEN
                            CASE (option & 1)
                                WHEN 1 THEN 'DESC' ELSE 'ASC'
                            END
                    END as ordering,
                    c2.reloptions as attoptions
                FROM (
                    SELECT *
                    FROM
                        pg_index i,
                        unnest(i.indkey, i.indoption)
                            WITH ORDINALITY koi(key, option, arridx)
                ) idx
                LEFT JOIN pg_class c ON idx.indrelid = c.oid
                LEFT JOIN pg_class c2 ON idx.indexrelid = c2.oid
                LEFT JOIN pg_am am ON c2.relam = am.oid
                LEFT JOIN
                    pg_attribute attr ON attr.attrelid = c.oid AND attr.attnum = idx.key
                WHERE c.relname = 'datasets' AND pg_catalog.pg_table_is_visible(c.oid)
            ) s2
            GROUP BY indexname, indisunique, indisprimary, amname, exprdef, attoptions;
-- .

            SELECT
                a.attname AS column_name,
                NOT (a.attnotnull OR (t.typtype = 'd' AND t.typnotnull)) AS is_nullable,
                pg_get_expr(ad.adbin, ad.adrelid) AS column_default,
                CASE WHEN collname = 'default' THEN NULL ELSE collname END AS collation,
                a.attidentity != '' AS is_autofield,
                col_description(a.attrelid, a.attnum) AS column_comment
            FROM pg_attribute a
            LEFT JOIN pg_attrdef ad ON a.attrelid = ad.adrelid AND a.attnum = ad.adnum
            LEFT JOIN pg_collation co ON a.attcollation = co.oid
            JOIN pg_type t ON a.atttypid = t.oid
            JOIN pg_class c ON a.attrelid = c.oid
            JOIN pg_namespace n ON c.relnamespace = n.oid
            WHERE c.relkind IN ('f', 'm', 'p', 'r', 'v')
                AND c.relname = 'datasets'
                AND n.nspname NOT IN ('pg_catalog', 'pg_toast')
                AND pg_catalog.pg_table_is_visible(c.oid)
-- .
SELECT * FROM "datasets" LIMIT 1
-- .
SELECT * FROM "pipelines" LIMIT 1
-- .
SELECT * FROM "quality_results" LIMIT 1
-- .
SELECT * FROM "runs" LIMIT 1
-- .
BEGIN
-- .
INSERT INTO "pipelines" ("id", "org_id", "name", "owner", "schedule", "created_at") VALUES ('35a62a1948a74d8db06dfacbe3ce6799'::uuid, 'globex', 'django-a4cc729bcf3b', 'o', 'daily', '2026-11-22 14:04:31.876373+00:00'::timestamptz)
-- .
SAVEPOINT "s140202492648320_x1"
-- .
UPDATE "pipelines" SET "owner" = 'p' WHERE "pipelines"."name" = 'django-a4cc729bcf3b'
-- .
ROLLBACK TO SAVEPOINT "s140202492648320_x1"
-- .
RELEASE SAVEPOINT "s140202492648320_x1"
-- .
SELECT "pipelines"."id", "pipelines"."org_id", "pipelines"."name", "pipelines"."owner", "pipelines"."schedule", "pipelines"."created_at" FROM "pipelines" WHERE "pipelines"."id" = '35a62a1948a74d8db06dfacbe3ce6799'::uuid LIMIT 21
-- .
COMMIT
-- .
DELETE FROM "pipelines" WHERE "pipelines"."name" = 'django-a4cc729bcf3b'
-- .
ROLLBACK
-- .
INSERT INTO "runs" ("id", "org_id", "pipeline_id", "status", "started_at") SELECT * FROM UNNEST(('{31eaf26be5c845f9b4f0133809c6bcc9,62904aed313340eaa43ce82d1598da47,a5d51f045c164f2bbe1f2b3865c53805,7f7b43230cc643388e2771ab69bcb592,1b31efc1b28c4d5d9ecdddc4653fc833,fdd5b834239541eb81a233bb67e6fa6c,f08bacf5a9a94ba5b5f6e1a49ec0a58e,d9af29fa9aea4bd9bc429628397d6b63,f6720cbbd46b4ea7a889db23f1351005,effa3d7e0e004e90abd01c65b33775e2,6948214384174ef0a43233f68870b6c8,c606f7d3bc75494a9015f8d02182e9e3,388f8d0ab1fe4727a1f44b4427687bed,60143e6ca0c34414897cd597ab6245ef,0721cff58219415897a0969e6569b961,f80a499c5d17483084090ed2105c6326,d4e81dfba94d47208911797174787fce,24e5e40d4290471b8aa0c5c8b251e6b8,6ef26282183143dda78db917a4eadeb3,f422168a6ee94a4fb22726a762c6de40,499e4a2300ab4cbd9b5a081e9248d461,4273a546d13f45e8851db825716823f8,eece8d84cd6642a0810903cc74ef4951,9c91e1f072dd4f639fa52c2810d6a33a,3870b7b09aad4905ba4f215acb164057,4dae2ff0c299415491da690c5aded9a9,f3374ead04a34bb5a2f3aab5e291dc6f,66888ed406174fa49d8dbbde1a71b2ff,d41edef5191d43c38009a51d97246813,7d41763f219d434db427ef7e482d824a,5da6ede59a704cabb91f275aed7ff122,177a2a59c7364f14bed3c88cf40793e8,8d361124bc424da28b9b1802cd7679e5,0b903deabe0a4a958fd539c55ff1e3f5,3e1a484b7e204ce9b2ddf706dc5352b5,75216f240a5742689f5f503a3853c9a0,20d5a301e6564266b9263742eef87c33,6c5bd66f394a4101b3e0f79aa6d6829e,80aaf7db49d84f87ac7cf51070d94f29,3738a778510a46e8b1215e9db71e5e82,21c33cc982ed42d0a0daab4edff500cb,f79db0934f4e4e30b057223b7a5447ad,c585a6a5c4614d0c9804df5ae80e00aa,f78921d5df0c4f3aa982a08eae8ffba3,5582dfe914464a3ab9ac856edb0a2487,5f0d44066d3f45b282e47e54e7903a1f,9cd4ddfe08e648d7979c99b56c5290ce,74f68f2fc6c74b2a93bea69663e88ee8,bc58a45d535b429fa58290e75c700aa5,190da3bfb4094243b9c8aff9329c2ab3}'::uuid[])::uuid[], ('{globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex,globex}')::text[], ('{35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799,35a62a1948a74d8db06dfacbe3ce6799}'::uuid[])::uuid[], ('{running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running,running}')::text[], ('{"2026-11-22 14:04:31.898365+00:00","2026-11-22 14:04:31.898392+00:00","2026-11-22 14:04:31.898406+00:00","2026-11-22 14:04:31.898417+00:00","2026-11-22 14:04:31.898427+00:00","2026-11-22 14:04:31.898437+00:00","2026-11-22 14:04:31.898451+00:00","2026-11-22 14:04:31.898461+00:00","2026-11-22 14:04:31.898470+00:00","2026-11-22 14:04:31.898492+00:00","2026-11-22 14:04:31.898500+00:00","2026-11-22 14:04:31.898509+00:00","2026-11-22 14:04:31.898517+00:00","2026-11-22 14:04:31.898525+00:00","2026-11-22 14:04:31.898533+00:00","2026-11-22 14:04:31.898542+00:00","2026-11-22 14:04:31.898551+00:00","2026-11-22 14:04:31.898559+00:00","2026-11-22 14:04:31.898567+00:00","2026-11-22 14:04:31.898576+00:00","2026-11-22 14:04:31.898584+00:00","2026-11-22 14:04:31.898593+00:00","2026-11-22 14:04:31.898603+00:00","2026-11-22 14:04:31.898612+00:00","2026-11-22 14:04:31.898620+00:00","2026-11-22 14:04:31.898629+00:00","2026-11-22 14:04:31.898637+00:00","2026-11-22 14:04:31.898645+00:00","2026-11-22 14:04:31.898654+00:00","2026-11-22 14:04:31.898662+00:00","2026-11-22 14:04:31.898670+00:00","2026-11-22 14:04:31.898679+00:00","2026-11-22 14:04:31.898687+00:00","2026-11-22 14:04:31.898696+00:00","2026-11-22 14:04:31.898705+00:00","2026-11-22 14:04:31.898713+00:00","2026-11-22 14:04:31.898722+00:00","2026-11-22 14:04:31.898730+00:00","2026-11-22 14:04:31.898739+00:00","2026-11-22 14:04:31.898747+00:00","2026-11-22 14:04:31.898755+00:00","2026-11-22 14:04:31.898764+00:00","2026-11-22 14:04:31.898772+00:00","2026-11-22 14:04:31.898780+00:00","2026-11-22 14:04:31.898791+00:00","2026-11-22 14:04:31.898799+00:00","2026-11-22 14:04:31.898921+00:00","2026-11-22 14:04:31.898932+00:00","2026-11-22 14:04:31.898941+00:00","2026-11-22 14:04:31.898950+00:00"}'::timestamptz[])::timestamp with time zone[])
-- .
SELECT COUNT(*) AS "__count" FROM "runs" INNER JOIN "pipelines" ON ("runs"."pipeline_id" = "pipelines"."id") WHERE "pipelines"."name" = 'django-a4cc729bcf3b'
-- .
SELECT "runs"."id", "runs"."org_id", "runs"."pipeline_id", "runs"."status", "runs"."started_at" FROM "runs" WHERE "runs"."pipeline_id" = '35a62a1948a74d8db06dfacbe3ce6799'::uuid FOR UPDATE OF "runs"
-- .
UPDATE "runs" SET "status" = 'failed' WHERE "runs"."pipeline_id" = '35a62a1948a74d8db06dfacbe3ce6799'::uuid
-- .
DELETE FROM "runs" WHERE ("runs"."pipeline_id" = '35a62a1948a74d8db06dfacbe3ce6799'::uuid AND "runs"."status" = 'failed')
-- .
SELECT COUNT(*) AS "__count" FROM "runs"
-- .
DECLARE "_django_curs_140202492648320_sync_1" NO SCROLL CURSOR WITH HOLD FOR SELECT "runs"."id", "runs"."org_id", "runs"."pipeline_id", "runs"."status", "runs"."started_at" FROM "runs"
-- .
FETCH FORWARD 100 FROM "_django_curs_140202492648320_sync_1"
-- .
CLOSE "_django_curs_140202492648320_sync_1"
-- .
DECLARE "_django_curs_140202492648320_sync_2" NO SCROLL CURSOR FOR SELECT "runs"."id", "runs"."org_id", "runs"."pipeline_id", "runs"."status", "runs"."started_at" FROM "runs"
-- .
SET work_mem = '3MB'
-- .
SELECT "runs"."id", "runs"."org_id", "runs"."pipeline_id", "runs"."status", "runs"."started_at" FROM "runs" ORDER BY "runs"."id" ASC LIMIT 1
-- .
SHOW work_mem
-- .
