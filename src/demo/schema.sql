-- schema.sql: the tables of the demo, those of a data platform: what runs, what it makes, and whether that is any good.
-- After roles.sql, a context file and protect.sql of policies/sql; safe to repeat.
--
-- Every key begins with org_id, foreign keys included: a key that reached across organizations would tell one of them that
-- a row of another exists.

CREATE TABLE IF NOT EXISTS pipelines (
  org_id     text NOT NULL,
  id         uuid NOT NULL DEFAULT gen_random_uuid(),
  name       text NOT NULL,
  owner      text NOT NULL,
  schedule   text NOT NULL,
  status     text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'paused')),
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (org_id, id),
  UNIQUE (org_id, name)
);

CREATE TABLE IF NOT EXISTS datasets (
  org_id      text NOT NULL,
  id          uuid NOT NULL DEFAULT gen_random_uuid(),
  pipeline_id uuid NOT NULL,
  name        text NOT NULL,
  layer       text NOT NULL CHECK (layer IN ('raw', 'cleaned', 'served')),
  row_count   bigint NOT NULL DEFAULT 0,
  size_bytes  bigint NOT NULL DEFAULT 0,
  updated_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (org_id, id),
  UNIQUE (org_id, name),
  FOREIGN KEY (org_id, pipeline_id) REFERENCES pipelines
);
CREATE INDEX IF NOT EXISTS datasets_pipeline ON datasets (org_id, pipeline_id);

CREATE TABLE IF NOT EXISTS runs (
  org_id       text NOT NULL,
  id           uuid NOT NULL DEFAULT gen_random_uuid(),
  pipeline_id  uuid NOT NULL,
  status       text NOT NULL CHECK (status IN ('running', 'succeeded', 'failed', 'cancelled')),
  started_at   timestamptz NOT NULL DEFAULT now(),
  finished_at  timestamptz CHECK (finished_at >= started_at),
  rows_read    bigint NOT NULL DEFAULT 0,
  rows_written bigint NOT NULL DEFAULT 0,
  error        text,
  PRIMARY KEY (org_id, id),
  FOREIGN KEY (org_id, pipeline_id) REFERENCES pipelines
);
CREATE INDEX IF NOT EXISTS runs_pipeline ON runs (org_id, pipeline_id, started_at DESC);
CREATE INDEX IF NOT EXISTS runs_started ON runs (org_id, started_at DESC);

CREATE TABLE IF NOT EXISTS quality_results (
  org_id      text NOT NULL,
  id          uuid NOT NULL DEFAULT gen_random_uuid(),
  dataset_id  uuid NOT NULL,
  run_id      uuid NOT NULL,
  check_name  text NOT NULL,
  passed      boolean NOT NULL,
  failed_rows bigint NOT NULL DEFAULT 0,
  checked_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (org_id, id),
  FOREIGN KEY (org_id, dataset_id) REFERENCES datasets,
  FOREIGN KEY (org_id, run_id) REFERENCES runs
);
CREATE INDEX IF NOT EXISTS quality_results_dataset ON quality_results (org_id, dataset_id, checked_at DESC);
CREATE INDEX IF NOT EXISTS quality_results_run ON quality_results (org_id, run_id);

ALTER TABLE pipelines OWNER TO partywall_owner;
ALTER TABLE datasets OWNER TO partywall_owner;
ALTER TABLE runs OWNER TO partywall_owner;
ALTER TABLE quality_results OWNER TO partywall_owner;

GRANT USAGE ON SCHEMA public TO partywall_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON pipelines, datasets, runs, quality_results TO partywall_app;

SELECT partywall.protect(name::regclass, 'org_id')
  FROM unnest(ARRAY['public.pipelines', 'public.datasets', 'public.runs', 'public.quality_results']) AS name;

-- Nobody but the shared role and the operator has business in this cluster's databases.
DO $$ BEGIN
  EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
  EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO partywall_app', current_database());
END $$;
REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC;
