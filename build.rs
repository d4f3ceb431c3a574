//! Tells the program the commit that it is built from: `PARTYWALL_COMMIT`, `unknown` outside of a git checkout.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=PARTYWALL_COMMIT");
    let given = std::env::var("PARTYWALL_COMMIT").ok();
    let commit = given.or_else(|| git(&["rev-parse", "--short=12", "HEAD"]));
    println!("cargo:rustc-env=PARTYWALL_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    // A build for development is not made anew for each commit.
    if std::env::var("PROFILE").as_deref() == Ok("release") {
        for name in ["HEAD", "logs/HEAD"] {
            if let Some(path) = git(&["rev-parse", "--git-path", name]) {
                println!("cargo:rerun-if-changed={path}");
            }
        }
    }
}

/// What git answers in one line; none where there is no git or no checkout.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let line = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !line.is_empty()).then_some(line)
}
