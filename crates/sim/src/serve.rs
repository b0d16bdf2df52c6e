//! The stand-in behind a real socket: HTTP/1.1 with keep-alive.
//! It writes responses on the TCP stream itself, because no HTTP server would cut a body in the middle or hold back an
//! answer. It never decides anything about content: that is `Sim::handle`.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::api::{Sim, SimResponse, Transport};
use crate::live::SharedClock;

mod wire;

use wire::{Received, Wire};

/// Most connections at a time; further ones wait in the listener's queue. A client needs a handful.
pub const MAX_CONNECTIONS: usize = 256;

/// How long a connection may stay idle between requests.
pub const IDLE_MAX: Duration = Duration::from_secs(75);

/// How long a client may take to read one piece of a response.
pub const WRITE_MAX: Duration = Duration::from_secs(60);

/// Serves until `shutdown` ends, then closes all connections.
///
/// # Errors
/// When the listener fails for good, or a connection's task panicked.
pub async fn serve(
    listener: TcpListener,
    sim: Arc<Mutex<Sim>>,
    clock: SharedClock,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    let outcome = loop {
        tokio::select! {
            () = &mut shutdown => break Ok(()),
            Some(ended) = connections.join_next() => {
                if let Err(panicked) = ended {
                    break Err(io::Error::other(panicked));
                }
            }
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(attend(stream, Arc::clone(&sim), Arc::clone(&clock)));
                }
                // The client went away before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => break Err(error),
            },
        }
    };
    connections.shutdown().await;
    outcome
}

/// Answers the requests of one connection, until either side ends it. Trouble on the connection is the client's to see:
/// it ends this connection and nothing else.
async fn attend(stream: TcpStream, sim: Arc<Mutex<Sim>>, clock: SharedClock) {
    // Head and body are written one after the other; without this the body would wait for the client's delayed ACK.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let mut wire = Wire::new(stream);
    loop {
        let Ok(Ok(received)) = timeout(IDLE_MAX, wire.receive()).await else { return };
        let stays = match received {
            Received::End => return,
            Received::Refused(status) => {
                let refusal = wire::refusal(status);
                send(&mut wire, &refusal, false, &refusal.body).await;
                false
            }
            Received::Request { request, keep_alive } => {
                // A poisoned lock means that a panic is already on its way to the operator; the rows are still whole.
                let response = sim.lock().unwrap_or_else(PoisonError::into_inner).handle(&request, clock());
                respond(&mut wire, &response, keep_alive).await && keep_alive
            }
        };
        if !stays {
            return;
        }
    }
}

/// Sends a response the way its transport says. True when the connection can go on.
async fn respond(wire: &mut Wire, response: &SimResponse, keep_alive: bool) -> bool {
    let body = &response.body;
    match response.transport {
        Transport::NoAnswer => false,
        Transport::Whole => send(wire, response, keep_alive, body).await,
        Transport::StallFor(pause) => wire.pause(pause).await && send(wire, response, keep_alive, body).await,
        Transport::CutAfter(length) => {
            // Whether or not this arrived, the connection ends here.
            send(wire, response, keep_alive, body.get(..length).unwrap_or(body)).await;
            false
        }
        Transport::SlowBytes { piece_bytes, pause } => {
            if !send(wire, response, keep_alive, &[]).await {
                return false;
            }
            for piece in body.chunks(piece_bytes.max(1)) {
                let sent = wire.pause(pause).await && matches!(timeout(WRITE_MAX, wire.send(piece)).await, Ok(Ok(())));
                if !sent {
                    return false;
                }
            }
            true
        }
    }
}

/// Sends the head, which promises the whole body, and this part of the body.
async fn send(wire: &mut Wire, response: &SimResponse, keep_alive: bool, part: &[u8]) -> bool {
    let head = wire::head(response, keep_alive);
    let sent = async {
        wire.send(&head).await?;
        wire.send(part).await
    };
    matches!(timeout(WRITE_MAX, sent).await, Ok(Ok(())))
}

#[cfg(test)]
mod tests;
