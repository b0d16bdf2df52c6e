//! Mails as bytes, and conversations with a scripted relay on loopback.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex as StdMutex};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use vigie_engine::text::Untrusted;
use vigie_engine::yaml::Node;

use super::*;
use crate::sink::contract::{
    CANARY, HOSTILE, alert_titled, build as build_kind, context, delivery, list_node, make_hostile, stateful_alert,
    text_node,
};

mod conversation;
mod encrypted;
mod mail;

/// What the relay does after a line.
#[derive(Debug, Clone)]
enum Reply {
    Say(&'static str),
    Drop,
    Stall,
}

type Script = Arc<dyn Fn(&str) -> Option<Reply> + Send + Sync>;

/// A relay that follows a script and otherwise says yes to everything.
struct FakeRelay {
    address: SocketAddr,
    heard: Arc<StdMutex<Vec<String>>>,
    mails: Arc<StdMutex<Vec<String>>>,
}

impl FakeRelay {
    /// The script sees `GREETING`, each command line, and `.` for the end of a mail.
    async fn start(script: impl Fn(&str) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let (heard, mails) = (Arc::new(StdMutex::new(Vec::new())), Arc::new(StdMutex::new(Vec::new())));
        let (log, kept, script): (_, _, Script) = (Arc::clone(&heard), Arc::clone(&mails), Arc::new(script));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, kept, script) = (Arc::clone(&log), Arc::clone(&kept), Arc::clone(&script));
                tokio::spawn(async move {
                    // A client that goes away ends its conversation.
                    converse(stream, &script, &log, &kept).await.unwrap_or_default();
                });
            }
        });
        Self { address, heard, mails }
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().expect("not poisoned").clone()
    }

    fn mails(&self) -> Vec<String> {
        self.mails.lock().expect("not poisoned").clone()
    }

    fn sink(&self, to: &[&str]) -> EmailSink {
        EmailSink::new(EmailOptions { to: to.iter().map(ToString::to_string).collect(), ..options(self.address) })
            .expect("valid options")
    }
}

async fn converse(
    stream: TcpStream,
    script: &Script,
    heard: &StdMutex<Vec<String>>,
    mails: &StdMutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut command = "GREETING".to_owned();
    loop {
        let usual = match command.split([' ', ':']).next().unwrap_or_default() {
            "GREETING" => "220 relay.example ready",
            "EHLO" => "250-relay.example\r\n250-SIZE 1000000\r\n250 AUTH PLAIN LOGIN",
            "AUTH" => "235 welcome",
            "DATA" => "354 go on",
            "." => "250 2.0.0 queued as 4F2",
            "QUIT" => "221 bye",
            _ => "250 fine",
        };
        let said = match script(&command).unwrap_or(Reply::Say(usual)) {
            Reply::Say(said) => said,
            Reply::Drop => return Ok(()),
            Reply::Stall => std::future::pending().await,
        };
        stream.write_all(format!("{said}\r\n").as_bytes()).await?;
        if said.starts_with("354") {
            let mut mail = String::new();
            while !mail.ends_with("\r\n.\r\n") {
                if stream.read_line(&mut mail).await? == 0 {
                    return Ok(());
                }
            }
            mails.lock().expect("not poisoned").push(mail);
            command = ".".into();
            continue;
        }
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        command = line.trim_end().to_owned();
        heard.lock().expect("not poisoned").push(command.clone());
    }
}

fn options(relay: SocketAddr) -> EmailOptions {
    EmailOptions {
        smtp: Url::parse(&format!("smtp://{relay}")).expect("valid"),
        user: None,
        password: None,
        from: "Vigie <vigie@example.org>".into(),
        to: vec!["soc@example.org".into()],
        ca_pem: None,
        insecure: false,
        policy: Policy { allow_private: true },
    }
}

fn nowhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9))
}

fn rendered(alert: &Alert, form: Form) -> String {
    let sink = EmailSink::new(options(nowhere())).expect("valid options");
    String::from_utf8(delivery(&sink, alert, form).body).expect("ASCII")
}
