//! TLS with a relay whose certificate comes from an authority of its own. The authority's key was thrown away; the relay's
//! key is for these tests only.

use std::io::{BufRead as _, BufReader as LineReader, Read, Write};

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;

const AUTHORITY: &str = include_str!("ca.pem");

/// A relay on a thread of its own that takes one connection and gives back the commands that came under TLS.
fn encrypted_relay(starttls: bool) -> (SocketAddr, std::thread::JoinHandle<std::io::Result<Vec<String>>>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("bound");
    let thread = std::thread::spawn(move || {
        let (mut tcp, _) = listener.accept()?;
        if starttls {
            tcp.write_all(b"220 relay\r\n")?;
            until_line(&mut tcp, "EHLO")?;
            tcp.write_all(b"250-relay\r\n250 STARTTLS\r\n")?;
            until_line(&mut tcp, "STARTTLS")?;
            tcp.write_all(b"220 go on\r\n")?;
        }
        let certificate = CertificateDer::from_pem_slice(include_bytes!("relay.pem")).expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(include_bytes!("relay.key")).expect("PEM");
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("supported")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("they fit");
        let tls = ServerConnection::new(Arc::new(config)).expect("valid");
        let mut stream = LineReader::new(StreamOwned::new(tls, tcp));
        if !starttls {
            stream.get_mut().write_all(b"220 relay\r\n")?;
        }
        talk(&mut stream)
    });
    (address, thread)
}

/// Byte by byte, so that nothing of the TLS that follows is taken.
fn until_line(tcp: &mut std::net::TcpStream, verb: &str) -> std::io::Result<()> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        tcp.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    assert!(line.starts_with(verb.as_bytes()), "{line:?}");
    Ok(())
}

fn talk<S: Read + Write>(stream: &mut LineReader<S>) -> std::io::Result<Vec<String>> {
    let (mut heard, mut in_mail) = (Vec::new(), false);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).unwrap_or_default() == 0 {
            return Ok(heard);
        }
        let line = line.trim_end().to_owned();
        let said = match line.as_str() {
            "." if in_mail => "250 queued",
            _ if in_mail => continue,
            "DATA" => "354 go on",
            _ if line.starts_with("EHLO") => "250-relay\r\n250 AUTH PLAIN",
            _ if line.starts_with("AUTH") => "235 welcome",
            "QUIT" => "221 bye",
            _ => "250 fine",
        };
        in_mail = said.starts_with("354");
        heard.push(line);
        stream.get_mut().write_all(format!("{said}\r\n").as_bytes())?;
    }
}

async fn send(scheme: &str, address: SocketAddr, ca_pem: Option<&str>) -> AttemptReport {
    let smtp = Url::parse(&format!("{scheme}://vigie:{CANARY}@{address}")).expect("valid");
    let ca_pem = ca_pem.map(|pem| pem.as_bytes().to_vec());
    let sink = EmailSink::new(EmailOptions { smtp, ca_pem, ..options(address) }).expect("valid");
    sink.send(&delivery(&sink, &alert_titled("x"), Form::Full)).await
}

#[tokio::test]
async fn a_mail_goes_over_tls_when_the_authority_is_trusted() {
    for (scheme, starttls) in [("smtps", false), ("smtp+starttls", true)] {
        let (address, thread) = encrypted_relay(starttls);
        let report = send(scheme, address, Some(AUTHORITY)).await;
        assert_eq!(report.outcome, Outcome::Delivered, "{scheme}: {report:?}");
        let heard = thread.join().expect("no panic").expect("loopback");
        assert!(heard.iter().any(|line| line.starts_with("AUTH")) && heard.contains(&"DATA".to_owned()), "{heard:?}");
    }
}

#[tokio::test]
async fn nothing_is_said_to_a_relay_of_an_unknown_authority() {
    for (scheme, starttls) in [("smtps", false), ("smtp+starttls", true)] {
        let (address, thread) = encrypted_relay(starttls);
        let report = send(scheme, address, None).await;
        assert_eq!(
            (report.outcome, report.status.as_str()),
            (Outcome::Retry, "TLS failed"),
            "{scheme}: {}",
            report.excerpt
        );
        // The relay sees its handshake fail; that is an error there.
        let heard = thread.join().expect("no panic").unwrap_or_default();
        assert!(heard.is_empty(), "{heard:?}");
    }
}
