//! What nobody thought of: random messages and random SQL of a tenant, none of which may end a server process, show a
//! row of another organization, or leave anything behind.

mod agreement;
mod crash;
mod grammar;
mod honest;
mod others;
mod sizes;
mod tricks;

use crate::support::Shard;

/// Fails if a process of the shard's server has died, which would have disturbed every organization.
fn assert_no_process_died(shard: &Shard, after: &str) {
    let log = std::fs::read(shard.cluster.log_file()).expect("the server's log");
    let log = String::from_utf8_lossy(&log);
    let died = log.lines().find(|line| line.contains("was terminated by signal") || line.contains("PANIC:"));
    assert_eq!(died, None, "{after}");
}
