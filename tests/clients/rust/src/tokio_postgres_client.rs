//! tokio-postgres: binary parameters, pipelined futures, portals with row limits, COPY, notices, cancel.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _, TryStreamExt as _, future, pin_mut};
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Error, IsolationLevel, SimpleQueryMessage};
use uuid::Uuid;

type Answer<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn tls() -> postgres_native_tls::MakeTlsConnector {
    let connector = native_tls::TlsConnector::builder().danger_accept_invalid_certs(true).build().expect("a connector");
    postgres_native_tls::MakeTlsConnector::new(connector)
}

fn config() -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config.host(env("PGHOST")).port(env("PGPORT").parse().expect("a port")).dbname(env("PGDATABASE"));
    config.user(env("PGUSER")).password(env("PGPASSWORD"));
    if env("PGSSLMODE") == "disable" {
        config.ssl_mode(tokio_postgres::config::SslMode::Disable);
    }
    config
}

async fn connect_with(
    config: tokio_postgres::Config,
) -> Answer<(Client, tokio::sync::mpsc::UnboundedReceiver<String>)> {
    let (client, mut connection) = config.connect(tls()).await?;
    let (heard, notices) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut messages = futures_util::stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notice(notice) = message {
                let _ = heard.send(notice.code().code().to_owned());
            }
        }
    });
    Ok((client, notices))
}

async fn connect() -> Answer<Client> {
    Ok(connect_with(config()).await?.0)
}

/// Whether this group is to run: all are, unless some are named.
fn wanted(name: &str) -> bool {
    let groups = env("PARTYWALL_GROUPS");
    groups.is_empty() || groups.split(',').any(|group| group == name)
}

fn is(error: Error, code: &str) {
    assert_eq!(error.code().map(|code| code.code().to_owned()).as_deref(), Some(code), "{error:?}");
}

async fn simple(client: &Client, sql: &str) -> Answer<Vec<String>> {
    let rows = client.simple_query(sql).await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| match row {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
        .collect())
}

async fn connects() -> Answer {
    let mut config = config();
    config.application_name("tokio test").options("-c timezone=Asia/Tokyo -c statement_timeout=61s");
    let client = connect_with(config).await?.0;
    assert_eq!(
        simple(&client, "SHOW application_name; SHOW TimeZone; SHOW statement_timeout").await?,
        ["tokio test", "Asia/Tokyo", "61s"]
    );
    Ok(())
}

async fn introspection() -> Answer {
    let client = connect().await?;
    let statement = client.prepare("SELECT p, name, created_at FROM pipelines p WHERE id = $1").await?;
    assert_eq!(statement.params()[0].name(), "uuid");
    assert_eq!(statement.columns()[0].type_().name(), "pipelines");
    Ok(())
}

async fn types() -> Answer {
    let client = connect().await?;
    let (id, when, json) = (Uuid::new_v4(), chrono::Utc::now(), serde_json::json!({"a": [1, null]}));
    let when = chrono::DateTime::from_timestamp_micros(when.timestamp_micros()).expect("a time");
    let row = client
        .query_one(
            "SELECT $1::int4, $2::int8, $3::text, $4::bytea, $5::uuid, $6::timestamptz, $7::jsonb, $8::int4[], $9::bool, $10::text, $11::hstores",
            &[],
        )
        .await;
    assert!(row.is_err(), "no such type");
    let row = client
        .query_one(
            "SELECT $1::int4, $2::int8, $3::text, $4::bytea, $5::uuid, $6::timestamptz, $7::jsonb, $8::int4[], $9::bool, $10::text",
            &[&7i32, &(1i64 << 40), &"Grüße 'x' 世界", &vec![0u8, 255], &id, &when, &json, &vec![Some(1), None], &true, &None::<String>],
        )
        .await?;
    assert_eq!((row.get::<_, i32>(0), row.get::<_, i64>(1), row.get::<_, &str>(2)), (7, 1 << 40, "Grüße 'x' 世界"));
    assert_eq!((row.get::<_, Vec<u8>>(3), row.get::<_, Uuid>(4)), (vec![0, 255], id));
    assert_eq!(row.get::<_, chrono::DateTime<chrono::Utc>>(5), when);
    assert_eq!((row.get::<_, serde_json::Value>(6), row.get::<_, Vec<Option<i32>>>(7)), (json, vec![Some(1), None]));
    assert_eq!((row.get::<_, bool>(8), row.get::<_, Option<String>>(9)), (true, None));
    Ok(())
}

async fn transactions() -> Answer {
    let mut client = connect().await?;
    let (org, name) = (env("PARTYWALL_ORG"), format!("tokio-{}", Uuid::new_v4()));
    let insert = "INSERT INTO pipelines (org_id, name, owner, schedule) VALUES ($1, $2, 'o', 's')";
    let count = "SELECT count(*) FROM pipelines WHERE name = $1";
    let mut transaction = client.build_transaction().isolation_level(IsolationLevel::Serializable).start().await?;
    transaction.execute(insert, &[&org, &name]).await?;
    let inner = transaction.savepoint("one").await?;
    is(inner.query("SELECT 1 / $1::int4", &[&0i32]).await.expect_err("divides"), "22012");
    is(inner.query("SELECT 1", &[]).await.expect_err("failed"), "25P02");
    inner.rollback().await?;
    assert_eq!(transaction.query_one(count, &[&name]).await?.get::<_, i64>(0), 1);
    transaction.rollback().await?;
    assert_eq!(client.query_one(count, &[&name]).await?.get::<_, i64>(0), 0);
    // A transaction that is dropped rolls back without waiting.
    let transaction = client.transaction().await?;
    transaction.execute(insert, &[&org, &name]).await?;
    drop(transaction);
    assert_eq!(client.query_one(count, &[&name]).await?.get::<_, i64>(0), 0);
    Ok(())
}

async fn streaming() -> Answer {
    let mut client = connect().await?;
    let none: [&(dyn ToSql + Sync); 0] = [];
    let count = number("PARTYWALL_ROWS", 5000);
    let rows = client.query_raw(&format!("SELECT g FROM generate_series(1, {count}) g"), none).await?;
    pin_mut!(rows);
    let mut total = 0i64;
    while let Some(row) = rows.try_next().await? {
        total += i64::from(row.get::<_, i32>(0));
    }
    assert_eq!(total, i64::from(count) * (i64::from(count) + 1) / 2);
    let transaction = client.transaction().await?;
    let portal = transaction.bind("SELECT g FROM generate_series(1, 1000) g", &[]).await?;
    let mut counted = 0;
    loop {
        let rows = transaction.query_portal(&portal, 100).await?;
        counted += rows.len();
        if rows.is_empty() {
            break;
        }
    }
    assert_eq!(counted, 1000);
    transaction.commit().await?;
    Ok(())
}

async fn pipeline() -> Answer {
    let client = connect().await?;
    let statement = client.prepare("SELECT $1::int4 + 1").await?;
    let numbers: Vec<i32> = (0..300).collect();
    let asked = numbers.iter().map(|at| {
        client.query_one(
            &statement,
            std::slice::from_ref(at).iter().map(|at| at as &(dyn ToSql + Sync)).collect::<Vec<_>>().leak(),
        )
    });
    let answers = future::try_join_all(asked).await?;
    for (at, row) in numbers.iter().zip(answers) {
        assert_eq!(row.get::<_, i32>(0), at + 1);
    }
    let (good, bad, after) =
        tokio::join!(client.query("SELECT 1", &[]), client.query("SELECT 1 / 0", &[]), client.query("SELECT 2", &[]));
    assert_eq!((good?.len(), after?.len()), (1, 1));
    is(bad.expect_err("divides"), "22012");
    Ok(())
}

async fn copy() -> Answer {
    let client = connect().await?;
    client.batch_execute("CREATE TEMPORARY TABLE loaded (a int, b text)").await?;
    let sink = client.copy_in("COPY loaded FROM STDIN").await?;
    pin_mut!(sink);
    for at in 0..1000 {
        sink.send(bytes(format!("{at}\ttext\n"))).await?;
    }
    assert_eq!(sink.finish().await?, 1000);
    let rows: Vec<_> = client.copy_out("COPY loaded TO STDOUT").await?.try_collect().await?;
    assert_eq!(rows.len(), 1000);
    let sink = client.copy_in("COPY loaded FROM STDIN").await?;
    pin_mut!(sink);
    sink.send(bytes("9\tdropped\n".to_owned())).await?;
    drop(client);
    Ok(())
}

fn bytes(text: String) -> std::io::Cursor<Vec<u8>> {
    std::io::Cursor::new(text.into_bytes())
}

async fn cancel() -> Answer {
    let client = connect().await?;
    let token = client.cancel_token();
    let (slept, cancelled) = tokio::join!(client.batch_execute("SELECT pg_sleep(60)"), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        token.cancel_query(tls()).await
    });
    cancelled?;
    is(slept.expect_err("cancelled"), "57014");
    client.batch_execute("SELECT 1").await?;
    Ok(())
}

async fn timeouts() -> Answer {
    let client = connect().await?;
    client.batch_execute("SET statement_timeout = 150").await?;
    is(client.batch_execute("SELECT pg_sleep(60)").await.expect_err("slept"), "57014");
    Ok(())
}

async fn settings() -> Answer {
    let (client, other) = (connect().await?, connect().await?);
    let path = simple(&client, "SHOW search_path").await?;
    client.batch_execute("SET search_path = pg_catalog; SET work_mem = '3MB'").await?;
    client.execute("SET TimeZone = 'Europe/Paris'", &[]).await?;
    assert_eq!(
        simple(&client, "SHOW search_path; SHOW work_mem; SHOW TimeZone").await?,
        ["pg_catalog", "3MB", "Europe/Paris"]
    );
    assert_eq!(simple(&other, "SHOW search_path").await?, path);
    client.batch_execute("DISCARD ALL").await?;
    assert_eq!(simple(&client, "SHOW search_path").await?, path);
    assert_eq!(simple(&client, "SELECT current_setting('app.current_org_id')").await?, [env("PARTYWALL_ORG")]);
    Ok(())
}

async fn prepared() -> Answer {
    let (times, connections) = (number("PARTYWALL_TIMES", 1000), number("PARTYWALL_CONNECTIONS", 20));
    let work = (0..connections).map(|own| async move {
        let client = connect().await.map_err(|error| error.to_string())?;
        let statement =
            client.prepare(&format!("SELECT $1::int4 + {}", own % 3)).await.map_err(|error| error.to_string())?;
        for at in 0..times / connections {
            let row = client.query_one(&statement, &[&at]).await.map_err(|error| error.to_string())?;
            assert_eq!(row.get::<_, i32>(0), at + own % 3);
        }
        Ok::<_, String>(())
    });
    future::try_join_all(work).await?;
    let client = connect().await?;
    let statement = client.prepare("SELECT count(*) FROM pipelines WHERE name = $1").await?;
    for _ in 0..times {
        assert_eq!(client.query_one(&statement, &[&"nobody"]).await?.get::<_, i64>(0), 0);
    }
    Ok(())
}

fn number(name: &str, default: i32) -> i32 {
    env(name).parse().unwrap_or(default)
}

async fn deallocate() -> Answer {
    let client = connect().await?;
    let statement = client.prepare("SELECT 1").await?;
    client.batch_execute("DEALLOCATE ALL").await?;
    is(client.query(&statement, &[]).await.expect_err("gone"), "26000");
    Ok(())
}

async fn notices() -> Answer {
    let (client, mut heard) = connect_with(config()).await?;
    client.batch_execute("ROLLBACK").await?;
    client.batch_execute("DROP TABLE IF EXISTS pg_temp.nothing").await?;
    assert_eq!([heard.recv().await.as_deref(), heard.recv().await.as_deref()], [Some("25P01"), Some("00000")]);
    Ok(())
}

async fn errors() -> Answer {
    let client = connect().await?;
    let error = client.execute("UPDATE pipelines SET status = 'odd'", &[]).await.expect_err("checked");
    assert_eq!(error.as_db_error().and_then(|error| error.constraint()), Some("pipelines_status_check"));
    is(client.query("SELECT nme FROM pipelines", &[]).await.expect_err("no column"), "42703");
    Ok(())
}

async fn temporary() -> Answer {
    let client = connect().await?;
    client.batch_execute("CREATE TEMPORARY TABLE mine AS SELECT generate_series(1, 10) AS a").await?;
    assert_eq!(client.query_one("SELECT count(*) FROM mine", &[]).await?.get::<_, i64>(0), 10);
    client.batch_execute("DISCARD TEMP").await?;
    is(client.query("SELECT * FROM mine", &[]).await.expect_err("gone"), "42P01");
    Ok(())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut failed = HashMap::new();
    macro_rules! group {
        ($name:literal, $work:expr) => {
            if wanted($name) {
                let result = tokio::spawn(async {
                    $work.await.map_err(|error| {
                        let source = error.source().map(ToString::to_string).unwrap_or_default();
                        format!("{error} {source}")
                    })
                });
                let result = tokio::time::timeout(Duration::from_secs(60), result).await;
                match result {
                    Ok(Ok(Ok(()))) => println!("ok {}", $name),
                    other => {
                        println!("FAIL {}: {}", $name, format!("{other:?}").replace('\n', " "));
                        failed.insert($name, ());
                    }
                }
            }
        };
    }
    group!("connect", connects());
    group!("introspection", introspection());
    group!("types", types());
    group!("transactions", transactions());
    group!("streaming", streaming());
    group!("pipeline", pipeline());
    group!("copy", copy());
    group!("cancel", cancel());
    group!("timeouts", timeouts());
    group!("settings", settings());
    group!("prepared", prepared());
    group!("deallocate", deallocate());
    group!("notices", notices());
    group!("errors", errors());
    group!("temporary tables", temporary());
    std::process::exit(i32::from(!failed.is_empty()));
}
