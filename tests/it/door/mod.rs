//! The front door of the whole proxy: who gets in, who does not, and that nothing is left behind.

mod clients;
mod greedy;
mod keys;
mod logins;
mod places;
mod memory;
mod program;
mod signals;
mod ways;

use super::support::{Files, Plan, soon, until};
use std::net::TcpStream;
use std::process::Stdio;
use tokio::process::{Child, Command};

/// The program, serving a configuration; killed when dropped.
struct Program {
    files: Files,
    child: Child,
}

impl Program {
    /// Starts `partywall serve`; clients can connect when this returns.
    async fn serve(plan: &Plan) -> Self {
        loop {
            // A port that was free a moment ago may be somebody else's by now.
            if let Some(program) = Self::try_serve(plan.write()).await {
                return program;
            }
        }
    }

    /// `None` where a port of `files` is taken.
    async fn try_serve(files: Files) -> Option<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_partywall"));
        command.args(["serve", "--config"]).arg(files.path()).stdin(Stdio::null()).kill_on_drop(true);
        let log = std::fs::File::create(files.folder().join("log")).expect("a log");
        let child = command.stdout(Stdio::null()).stderr(log).spawn().expect("the program starts");
        let mut program = Self { files, child };
        let mut taken = false;
        until("the program listens", async || {
            taken = program.child.try_wait().expect("it was started").is_some();
            assert!(!taken || program.log().contains("cannot listen"), "it does not start: {}", program.log());
            taken || TcpStream::connect(("127.0.0.1", program.files.port)).is_ok()
        })
        .await;
        (!taken).then_some(program)
    }

    fn pid(&self) -> u32 {
        self.child.id().expect("the program runs")
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid()).expect("a process id"));
        nix::sys::signal::kill(pid, signal).expect("the program runs");
    }

    /// A field of `/proc/PID/status`, in kB.
    fn memory_kb(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the program runs");
        let line = status.lines().find(|line| line.starts_with(field)).expect("a field of status");
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
    }

    /// What it has logged until now.
    fn log(&self) -> String {
        std::fs::read_to_string(self.files.folder().join("log")).expect("a log")
    }

    fn admin_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.files.admin_port)
    }

    /// The status that `/readyz` answers with.
    async fn readyz(&self) -> u16 {
        reqwest::get(self.admin_url("/readyz")).await.map_or(0, |answer| answer.status().as_u16())
    }

    /// A metric's values, added up over its labels.
    async fn metric_sum(&self, name: &str) -> u64 {
        let page = reqwest::get(self.admin_url("/metrics")).await.expect("the admin port answers");
        let page = page.text().await.expect("text");
        let is_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        page.lines().filter(is_it).filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    async fn ended(&mut self) -> std::process::ExitStatus {
        soon("the program ends", self.child.wait()).await.expect("it ran")
    }
}

/// A metric's value; 0 where there is none.
fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
}
