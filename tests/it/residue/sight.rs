//! What a session sees of the server process that it has: whatever an earlier session could have left there.

use crate::support::{Raw, Wire};

/// What looks, with a superuser's rights, so that nothing is hidden from it. What the threat model says may stay is left out:
/// that a setting of nobody's was ever set, that there were temporary objects, and which libraries are loaded.
pub const PROBE: &str = r"
CREATE SCHEMA probe;
GRANT USAGE ON SCHEMA probe TO partywall_app;
CREATE TABLE probe.days (d date);
INSERT INTO probe.days SELECT '2024-01-01'::date + n FROM generate_series(0, 365) n;
CREATE TABLE probe.words (w text);
INSERT INTO probe.words VALUES ('partywall'), ('partywalls'), ('party');
GRANT SELECT ON probe.days, probe.words TO partywall_app;
CREATE FUNCTION probe.dated() RETURNS bigint LANGUAGE plpgsql AS
    $f$ BEGIN RETURN (SELECT count(*) FROM probe.days WHERE d < '02/03/2024'); END $f$;
CREATE FUNCTION probe.last() RETURNS text LANGUAGE plpgsql AS
    $f$ BEGIN RETURN lastval(); EXCEPTION WHEN object_not_in_prerequisite_state THEN RETURN 'none'; END $f$;
CREATE FUNCTION probe.current(name text) RETURNS text LANGUAGE plpgsql AS
    $f$ BEGIN RETURN currval(name); EXCEPTION WHEN object_not_in_prerequisite_state THEN RETURN 'none'; END $f$;
CREATE FUNCTION probe.look() RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $f$
DECLARE
  v text;
BEGIN
  PERFORM show_limit();
  SELECT concat_ws(E'\n',
    (SELECT string_agg(concat_ws(' ', 'setting', name, setting, source, reset_val), E'\n' ORDER BY name) FROM pg_catalog.pg_settings
      WHERE name NOT IN ('backtrace_functions', 'seed')),
    (SELECT string_agg('custom ' || n || ' ' || coalesce(pg_catalog.current_setting(n, true), ''), E'\n')
       FROM unnest(ARRAY['shop.customer', 'my.own', 'my.clause', 'app.current_org_id', 'app.current_user_id', 'app.current_roles']) AS n),
    (SELECT 'prepared ' || string_agg(name, ' ') FROM pg_catalog.pg_prepared_statements WHERE from_sql AND name !~ '^partywall'),
    (SELECT 'cursors ' || string_agg(name, ' ') FROM pg_catalog.pg_cursors WHERE is_holdable OR name = 'held'),
    (SELECT 'channels ' || string_agg(c, ' ') FROM pg_catalog.pg_listening_channels() AS c),
    (SELECT 'locks ' || count(*) FROM pg_catalog.pg_locks WHERE pid = pg_catalog.pg_backend_pid() AND locktype = 'advisory'),
    (SELECT 'temporary ' || string_agg(relname, ' ') FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema()),
    (SELECT 'functions ' || string_agg(proname, ' ') FROM pg_catalog.pg_proc WHERE pronamespace = pg_catalog.pg_my_temp_schema()),
    (SELECT 'types ' || string_agg(typname, ' ') FROM pg_catalog.pg_type WHERE typnamespace = pg_catalog.pg_my_temp_schema()),
    'lastval ' || probe.last(), 'currval ' || probe.current('public.ticket'), 'currval ' || probe.current('public.ledger_id_seq'),
    'dated ' || probe.dated(), 'similar ' || (SELECT count(*) FROM probe.words WHERE w % 'partywall'),
    'null ' || (SELECT count(*) FROM probe.words WHERE w = NULL), 'day ' || date '2024-02-03', 'float ' || (0.1::float8 + 0.2::float8)) INTO v;
  RETURN v;
END $f$;
";

/// Whose rows a session sees, who it is, and whether it can write.
const OWN: &str = "SELECT min(org_id), max(org_id), count(*), partywall.org(), current_user, now() = statement_timestamp() FROM public.canary";

/// A statement that the session prepared long ago.
const STANDING: &str = "SELECT min(body) || max(body) || $1 FROM public.canary";

/// Prepares what [`of`] runs; whether that went well is seen there.
pub async fn prepare(raw: &mut Raw) {
    raw.converse(Wire::new().parse("standing", STANDING).sync(), 1).await;
}

/// What a session sees, a line for each thing; it has gone through [`prepare`].
pub async fn of(raw: &mut Raw) -> String {
    raw.send(Wire::new().query("SELECT probe.look()")).await;
    let heard = raw.until_ready().await;
    let look = heard.iter().find(|message| message.tag == b'D').map(|message| message.columns().remove(0));
    let look = look.unwrap_or_else(|| crate::support::raw::brief(&heard));
    let own = raw.query(OWN).await;
    let standing = raw.converse(Wire::new().bind("", "standing", &["!"]).execute("", 0).sync(), 1).await;
    let written = raw.query("BEGIN; INSERT INTO public.ledger (body) VALUES ('own'); ROLLBACK").await;
    format!("{look}\nown {own}\nstanding {standing}\nwritten {written}")
}

/// Three random numbers.
pub async fn random(raw: &mut Raw) -> Vec<String> {
    raw.send(Wire::new().query("SELECT random(), random(), random()")).await;
    let heard = raw.until_ready().await;
    heard.iter().filter(|message| message.tag == b'D').flat_map(crate::support::Message::columns).collect()
}

/// What is seen now and was not before, and the other way round.
pub fn difference(before: &str, now: &str) -> Option<String> {
    let (old, new): (Vec<_>, Vec<_>) = (before.lines().collect(), now.lines().collect());
    let gone: Vec<_> = old.iter().filter(|line| !new.contains(line)).collect();
    let come: Vec<_> = new.iter().filter(|line| !old.contains(line)).collect();
    (!gone.is_empty() || !come.is_empty()).then(|| format!("{gone:?} has become {come:?}"))
}
