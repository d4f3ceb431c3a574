#!/bin/bash
# Puts the walls up, then the demo's tables and the rows of two organizations. Safe to repeat.
set -eu

policies=${POLICIES:-/policies} demo=${DEMO:-/demo} secrets=${SECRETS:-/secrets}
export PGPASSWORD=${PGPASSWORD:-$(cat /superuser/password)}
psql=(psql -X -q -v ON_ERROR_STOP=1)

# Only where there is no better context yet: what `partywall policies apply` has put there stays.
if [ "$("${psql[@]}" -At -c "SELECT to_regprocedure('partywall.hello()') IS NULL")" = t ]; then
    "${psql[@]}" -f "$policies/roles.sql" -f "$policies/context_plain.sql" -f "$policies/protect.sql" -f "$policies/status.sql"
fi
# psql reads the password's file itself, so that no command line shows it.
"${psql[@]}" <<END
\set password \`cat $secrets/shard_1.password\`
ALTER ROLE partywall_app PASSWORD :'password';
END
"${psql[@]}" -o /dev/null -f "$demo/schema.sql"
seed() {        # seed ORG PIPELINES RUNS_PER_PIPELINE
    "${psql[@]}" -c "SET demo.org = '$1'" -c "SET demo.pipelines = '$2'" -c "SET demo.runs_per_pipeline = '$3'" -f "$demo/seed.sql"
}
seed acme 12 40
seed globex 30 60
