//! sqlx: a statement prepared for every query, describe with EXPLAIN … EXECUTE, its pool, transactions, streams, COPY.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use sqlx::postgres::{PgConnectOptions, PgPoolCopyExt as _, PgPoolOptions, PgSslMode};
use sqlx::{
    Acquire as _, Column as _, ConnectOptions as _, Connection as _, Executor as _, PgPool, Row as _, TypeInfo as _,
};

type Answer = Result<(), Box<dyn std::error::Error + Send + Sync>>;

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn options() -> PgConnectOptions {
    let plain = env("PGSSLMODE") == "disable";
    let mode = if plain { PgSslMode::Disable } else { PgSslMode::VerifyFull };
    let options = PgConnectOptions::new_without_pgpass();
    let options =
        options.host(&env("PGHOST")).port(env("PGPORT").parse().expect("a port")).database(&env("PGDATABASE"));
    let options = options.username(&env("PGUSER")).password(&env("PGPASSWORD")).ssl_mode(mode);
    let options = if plain { options } else { options.ssl_root_cert(env("PARTYWALL_CA")) };
    options.options([("statement_timeout", "61s")]).application_name("sqlx test").disable_statement_logging()
}

fn number(name: &str, default: i32) -> i32 {
    env(name).parse().unwrap_or(default)
}

/// Whether this group is to run: all are, unless some are named.
fn wanted(name: &str) -> bool {
    let groups = env("PARTYWALL_GROUPS");
    groups.is_empty() || groups.split(',').any(|group| group == name)
}

fn is(error: &sqlx::Error, code: &str) {
    assert_eq!(error.as_database_error().and_then(|error| error.code()).as_deref(), Some(code), "{error:?}");
}

async fn connects(pool: PgPool) -> Answer {
    assert_eq!(sqlx::query_scalar::<_, String>("SHOW statement_timeout").fetch_one(&pool).await?, "61s");
    assert_eq!(sqlx::query_scalar::<_, String>("SHOW TimeZone").fetch_one(&pool).await?, "UTC");
    Ok(())
}

async fn introspection(pool: PgPool) -> Answer {
    // What `query!` does at build time: columns, their types, and whether they can be NULL (by EXPLAIN … EXECUTE).
    let described = (&pool)
        .describe("SELECT name, created_at, (SELECT error FROM runs LIMIT 1) FROM pipelines WHERE id = $1")
        .await?;
    assert_eq!(
        described.columns().iter().map(|column| column.type_info().name()).collect::<Vec<_>>(),
        ["TEXT", "TIMESTAMPTZ", "TEXT"]
    );
    assert_eq!(described.nullable(0), Some(false));
    assert_eq!(described.columns()[0].name(), "name");
    Ok(())
}

async fn types(pool: PgPool) -> Answer {
    let (id, json) = (sqlx::types::Uuid::new_v4(), serde_json::json!({"a": [1, null]}));
    let row = sqlx::query(
        "SELECT $1::int4, $2::int8, $3::text, $4::bytea, $5::uuid, $6::jsonb, $7::int4[], $8::bool, $9::text",
    )
    .bind(7i32)
    .bind(1i64 << 40)
    .bind("Grüße 'x' 世界")
    .bind(vec![0u8, 255])
    .bind(id)
    .bind(&json)
    .bind(vec![Some(1), None])
    .bind(true)
    .bind(None::<String>)
    .fetch_one(&pool)
    .await?;
    assert_eq!(
        (row.get::<i32, _>(0), row.get::<i64, _>(1), row.get::<String, _>(2)),
        (7, 1 << 40, "Grüße 'x' 世界".to_owned())
    );
    assert_eq!((row.get::<Vec<u8>, _>(3), row.get::<sqlx::types::Uuid, _>(4)), (vec![0, 255], id));
    assert_eq!((row.get::<serde_json::Value, _>(5), row.get::<Vec<Option<i32>>, _>(6)), (json, vec![Some(1), None]));
    assert_eq!((row.get::<bool, _>(7), row.get::<Option<String>, _>(8)), (true, None));
    Ok(())
}

async fn transactions(pool: PgPool) -> Answer {
    let name = format!("sqlx-{}", sqlx::types::Uuid::new_v4());
    let mut transaction = pool.begin().await?;
    sqlx::query("INSERT INTO pipelines (org_id, name, owner, schedule) VALUES ($1, $2, 'o', 's')")
        .bind(env("PARTYWALL_ORG"))
        .bind(&name)
        .execute(&mut *transaction)
        .await?;
    let mut inner = transaction.begin().await?;
    is(&sqlx::query("SELECT 1 / $1").bind(0i32).execute(&mut *inner).await.expect_err("divides"), "22012");
    inner.rollback().await?;
    let count = "SELECT count(*) FROM pipelines WHERE name = $1";
    assert_eq!(sqlx::query_scalar::<_, i64>(count).bind(&name).fetch_one(&mut *transaction).await?, 1);
    drop(transaction);
    assert_eq!(sqlx::query_scalar::<_, i64>(count).bind(&name).fetch_one(&pool).await?, 0);
    Ok(())
}

async fn streaming(pool: PgPool) -> Answer {
    let count = number("PARTYWALL_ROWS", 5000);
    let mut rows = sqlx::query_scalar::<_, i32>("SELECT g FROM generate_series(1, $1) g").bind(count).fetch(&pool);
    let mut total = 0i64;
    while let Some(value) = rows.try_next().await? {
        total += i64::from(value);
    }
    assert_eq!(total, i64::from(count) * (i64::from(count) + 1) / 2);
    drop(rows);
    // One that is left in the middle.
    let mut rows = sqlx::query_scalar::<_, i32>("SELECT g FROM generate_series(1, $1) g").bind(count * 4).fetch(&pool);
    rows.try_next().await?;
    drop(rows);
    assert_eq!(sqlx::query_scalar::<_, i32>("SELECT 1").fetch_one(&pool).await?, 1);
    Ok(())
}

async fn copy(pool: PgPool) -> Answer {
    let mut conn = pool.acquire().await?;
    conn.execute("CREATE TEMPORARY TABLE loaded (a int, b text)").await?;
    let mut sink = conn.copy_in_raw("COPY loaded FROM STDIN").await?;
    sink.send("1\tx\n2\ty\n".as_bytes()).await?;
    assert_eq!(sink.finish().await?, 2);
    conn.execute("DISCARD TEMP").await?;
    let out: Vec<_> = pool.copy_out_raw("COPY (SELECT generate_series(1, 100)) TO STDOUT").await?.try_collect().await?;
    assert_eq!(out.iter().map(|chunk| chunk.len()).sum::<usize>(), 292);
    Ok(())
}

async fn temporary(pool: PgPool) -> Answer {
    let mut conn = pool.acquire().await?;
    conn.execute("CREATE TEMPORARY TABLE mine AS SELECT generate_series(1, 10) AS a").await?;
    let count = "SELECT count(*) FROM mine WHERE a > $1";
    assert_eq!(sqlx::query_scalar::<_, i64>(count).bind(5i32).fetch_one(&mut *conn).await?, 5);
    conn.execute("DISCARD TEMP").await?;
    is(&sqlx::query("SELECT * FROM mine").execute(&mut *conn).await.expect_err("gone"), "42P01");
    Ok(())
}

/// The driver has no cancel request: whoever gives up on a statement closes its connection, and the pool opens another.
async fn cancel(pool: PgPool) -> Answer {
    let mut conn = pool.acquire().await?;
    let slept = sqlx::query("SELECT pg_sleep(60)").execute(&mut *conn);
    assert!(tokio::time::timeout(Duration::from_millis(300), slept).await.is_err(), "it sleeps");
    conn.detach().close_hard().await?;
    assert_eq!(sqlx::query_scalar::<_, i32>("SELECT 1").fetch_one(&pool).await?, 1);
    Ok(())
}

async fn settings(pool: PgPool) -> Answer {
    let mut conn = pool.acquire().await?;
    conn.execute("SET work_mem = '3MB'").await?;
    assert_eq!(sqlx::query_scalar::<_, String>("SHOW work_mem").fetch_one(&mut *conn).await?, "3MB");
    conn.execute("RESET ALL").await?;
    let org: String = sqlx::query_scalar("SELECT current_setting('app.current_org_id')").fetch_one(&mut *conn).await?;
    assert_eq!(org, env("PARTYWALL_ORG"));
    Ok(())
}

async fn timeouts(pool: PgPool) -> Answer {
    let mut transaction = pool.begin().await?;
    transaction.execute("SET LOCAL statement_timeout = 100").await?;
    is(&sqlx::query("SELECT pg_sleep(60)").execute(&mut *transaction).await.expect_err("slept"), "57014");
    Ok(())
}

async fn prepared(pool: PgPool) -> Answer {
    let (times, connections) = (number("PARTYWALL_TIMES", 1000), number("PARTYWALL_CONNECTIONS", 20));
    let mut work = tokio::task::JoinSet::new();
    for own in 0..connections {
        let pool = pool.clone();
        work.spawn(async move {
            for at in 0..times / connections {
                let sum: i32 =
                    sqlx::query_scalar(&format!("SELECT $1::int4 + {}", at % 7)).bind(own).fetch_one(&pool).await?;
                assert_eq!(sum, own + at % 7);
            }
            Ok::<_, sqlx::Error>(())
        });
    }
    while let Some(done) = work.join_next().await {
        done??;
    }
    Ok(())
}

async fn deallocate(pool: PgPool) -> Answer {
    use sqlx::Connection as _;
    let mut conn = pool.acquire().await?;
    sqlx::query("SELECT $1::int4").bind(1i32).execute(&mut *conn).await?;
    assert!(conn.cached_statements_size() > 0);
    conn.clear_cached_statements().await?;
    sqlx::query("SELECT $1::int4").bind(1i32).execute(&mut *conn).await?;
    Ok(())
}

async fn errors(pool: PgPool) -> Answer {
    let error = sqlx::query("UPDATE pipelines SET status = 'odd'").execute(&pool).await.expect_err("checked");
    assert_eq!(error.as_database_error().and_then(|error| error.constraint()), Some("pipelines_status_check"));
    is(&sqlx::query("SELECT nme FROM pipelines").execute(&pool).await.expect_err("no column"), "42703");
    if env("PARTYWALL_DIRECT") != "1" {
        is(&sqlx::query("LISTEN channel").execute(&pool).await.expect_err("refused"), "42501");
    }
    Ok(())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let connections = u32::try_from(number("PARTYWALL_CONNECTIONS", 20)).unwrap_or(20);
    let pool = PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(60))
        .connect_lazy_with(options());
    let mut failed = false;
    macro_rules! group {
        ($name:literal, $work:expr) => {
            if wanted($name) {
                let result = tokio::time::timeout(Duration::from_secs(60), tokio::spawn($work(pool.clone()))).await;
                match result {
                    Ok(Ok(Ok(()))) => println!("ok {}", $name),
                    other => {
                        println!("FAIL {}: {}", $name, format!("{other:?}").replace('\n', " "));
                        failed = true;
                    }
                }
            }
        };
    }
    group!("connect", connects);
    group!("introspection", introspection);
    group!("types", types);
    group!("transactions", transactions);
    group!("streaming", streaming);
    group!("copy", copy);
    group!("cancel", cancel);
    group!("timeouts", timeouts);
    group!("settings", settings);
    group!("prepared", prepared);
    group!("deallocate", deallocate);
    group!("errors", errors);
    group!("temporary tables", temporary);
    std::process::exit(i32::from(failed));
}
