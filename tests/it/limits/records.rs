//! The audit trail under a flood: what one organization repeats is counted, and nobody else's record is lost.

use serde_json::Value;

use crate::support::{Message, Proxy, Raw, Shard, Wire};

const ROUNDS: u32 = 20;
const IN_A_ROUND: u32 = 200;

/// Sends refused statements as fast as the proxy answers them; of two kinds, of which one differs in each.
async fn flood(raw: &mut Raw) {
    for round in 0..ROUNDS {
        let mut wire = Wire::new();
        for number in 0..IN_A_ROUND {
            wire = wire.query("SELECT pg_read_file('a')").query(&format!("SELECT 1 fro{round} x{number} 'hunter2'"));
        }
        raw.send(wire).await;
        for _ in 0..2 * IN_A_ROUND {
            let messages = raw.until_ready().await;
            assert_eq!(messages.first().map(|message| message.tag), Some(b'E'));
        }
    }
}

fn count(records: &[Value], org: &str, action: &str) -> u64 {
    let of = records.iter().filter(|record| record["org_id"] == org && record["action"] == action);
    of.map(|record| record["metadata"]["count"].as_u64().unwrap_or(1)).sum()
}

#[tokio::test]
async fn a_loop_of_refusals_is_counted_and_takes_nobodys_place_in_the_audit_trail() {
    let plan = Proxy::before(Shard::shared()).option("audit", "file = \"audit.jsonl\"\nstatements = \"all\"");
    let proxy = plan.start().await;
    let name = "n".repeat(1000);
    let token = proxy.token("acme", "ada", &["developer"]);
    let mut greedy = Raw::log_in_with(proxy.address(), &token, &[("application_name", &name)]).await;
    flood(&mut greedy).await;
    let mut other = proxy.raw("globex").await;
    assert_eq!(other.query("SELECT 1").await, "T D(1) C(SELECT 1) ZI");
    for mut raw in [greedy, other] {
        raw.send(Wire::new().terminate()).await;
        assert_eq!(raw.until_closed().await, Vec::<Message>::new());
    }
    let page = proxy.metrics().await;
    for kind in ["security", "statement"] {
        assert!(page.contains(&format!("partywall_audit_dropped_total{{kind=\"{kind}\"}} 0\n")), "{page}");
    }
    let file = proxy.files().folder().join("audit.jsonl");
    let kept = tempfile::tempdir().expect("a folder");
    let link = kept.path().join("audit.jsonl");
    std::fs::hard_link(&file, &link).expect("the file outlives its folder");
    drop(proxy);
    let text = std::fs::read_to_string(&link).expect("reads");
    assert!(!text.contains("hunter2"), "no literal");
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(count(&records, "acme", "refusal"), u64::from(2 * ROUNDS * IN_A_ROUND), "none is lost");
    assert!(records.len() < (ROUNDS * IN_A_ROUND / 10) as usize, "{} records", records.len());
    for (org, action) in [("acme", "connect"), ("acme", "disconnect"), ("globex", "connect"), ("globex", "disconnect")]
    {
        assert_eq!(count(&records, org, action), 1, "{org} {action}");
    }
    assert_eq!(count(&records, "globex", "read"), 1);
    let agent = records.iter().find(|record| record["org_id"] == "acme").expect("a record")["user_agent"].as_str();
    assert_eq!(agent, Some(&name[..63]));
}
