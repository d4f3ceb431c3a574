//! `partywall token inspect`: the session that a token would give, or why not; never the token.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use super::{SECRET, now, signed};
use crate::support::Proxy;
use crate::support::proxy::Files;

fn files() -> Files {
    Proxy::before_port(1, "not dialled")
        .option("auth", "issuer = \"us\"\nleeway_s = 0\norganization_type = \"bigint\"")
        .sections("[organizations.8]\nstatus = \"suspended\"\n[organizations.9]")
        .write()
}

/// Gives the program `token` on standard input.
fn inspect(files: &Files, token: &str, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_partywall"));
    command.args(["token", "inspect", "--config"]).arg(files.path()).args(more);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    child.stdin.take().expect("stdin").write_all(token.as_bytes()).expect("it listens");
    let output = child.wait_with_output().expect("it ends");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    for part in token.trim().split('.').filter(|part| part.len() > 10) {
        assert!(!printed.contains(part), "the token is printed: {printed}");
    }
    output
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

#[test]
fn a_good_token_shows_its_session() {
    let files = files();
    let claims = json!({
        "iss": "us", "org": "009", "sub": "ada", "roles": ["analyst", "a,b", "odd\n"], "permissions": ["write:orders"],
    });
    let token = signed(claims);
    let output = inspect(&files, &format!("{token}\n"), &[]);
    let shown = text(&output);
    assert!(output.status.success(), "{shown}");
    for line in [
        "organization  9",
        "user          ada",
        "project       -",
        "roles         \"analyst\", \"a,b\"",
        "permissions   \"write:orders\"",
        "left out      1 of roles: with a control character",
        "may read      every relation",
        "may write     orders",
        "may define    nothing",
        "tier          wide",
        "shard         shard_1",
        "token         alg HS256, kid none, iss us, aud none",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
    }
    assert!(shown.contains("\nexpires       20"), "{shown}");
    let output = inspect(&files, &token, &["--json"]);
    let shown: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&shown["ok"], &shown["organization"], &shown["shard"]), (&json!(true), &json!("9"), &json!("shard_1")));
    assert_eq!(shown["rights"], json!({ "read": ["*"], "write": ["orders"], "ddl": [] }));
}

#[test]
fn a_token_that_gives_no_session_says_why() {
    let files = files();
    let claims = |org: Value| json!({ "iss": "us", "org": org, "sub": "ada" });
    let foreign = {
        let mut claims = claims(json!(7));
        claims["exp"] = (now() + 60).into();
        let key = partywall::auth::mint::SigningKey::from_secret(SECRET.to_uppercase().as_bytes()).expect("a key");
        key.sign(&claims).expect("a token")
    };
    let table = [
        (signed(json!({ "iss": "them", "org": 7 })), "the token is from another issuer", "28P01"),
        (signed(claims(json!("acme"))), "the token's organization is not acceptable", "28P01"),
        (signed(claims(json!([7, 9]))), "the token names several organizations", "3D000"),
        (signed(claims(json!("08"))), "this organization is suspended", "28000"),
        (foreign, "the token's signature is wrong", "28P01"),
        ("hunter2".to_owned(), "the password is not a token", "28P01"),
        (String::new(), "the password is not a token", "28P01"),
        ("x".repeat(20_000), "the token is longer than 16384 bytes", "08P01"),
    ];
    for (token, why, sqlstate) in table {
        let output = inspect(&files, &token, &[]);
        let shown = text(&output);
        assert!(!output.status.success(), "{shown}");
        assert!(shown.starts_with(&format!("refused       {why}")), "{why}: {shown}");
        assert!(shown.contains(&format!("\nclient hears  {sqlstate} ")), "{why}: {shown}");
    }
    let several = signed(claims(json!([7, 9])));
    let output = inspect(&files, &several, &["--database", "09"]);
    assert!(output.status.success() && text(&output).starts_with("organization  9\n"), "{}", text(&output));
    // Nothing that a terminal would obey.
    let output = inspect(&files, &signed(json!({ "iss": "\u{1b}[2J", "org": 7 })), &[]);
    assert!(!text(&output).contains('\u{1b}'));
    let output = inspect(&files, &several, &["--json"]);
    let shown: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&shown["ok"], &shown["sqlstate"]), (&json!(false), &json!("3D000")));
}
