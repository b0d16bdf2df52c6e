//! The server over real sockets: requests as bytes in, answers as bytes out.

use chrono::{DateTime, Utc};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::api::DEFAULT_SECRET;
use crate::faults::Fault;
use crate::world::{World, WorldConfig};

struct Server {
    sim: Arc<Mutex<Sim>>,
    address: std::net::SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<io::Result<()>>,
}

impl Server {
    async fn start() -> Self {
        let start: DateTime<Utc> = "2026-03-02T00:00:00Z".parse().unwrap();
        let world = World::generate(&WorldConfig::new(1, start));
        let end = world.end();
        let sim = Arc::new(Mutex::new(Sim::from_world(&world)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move {
            stopped.await.unwrap();
        };
        let task = tokio::spawn(serve(listener, Arc::clone(&sim), Arc::new(move || end), shutdown));
        Self { sim, address, stop, task }
    }

    fn fault(&self, name: &str) {
        self.sim.lock().unwrap().set_fault(Some(Fault::named(name).unwrap()));
    }

    async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(self.address).await.unwrap() }
    }

    /// One request on a connection of its own: everything that came until the server closed it.
    async fn ask(&self, target: &str) -> String {
        let mut client = self.connect().await;
        client.request(target, "Connection: close\r\n").await;
        client.rest().await
    }
}

struct Client {
    stream: TcpStream,
}

impl Client {
    async fn request(&mut self, target: &str, extra: &str) {
        let authorization = Sim::basic_authorization("abcd1234", DEFAULT_SECRET);
        let head = format!("GET {target} HTTP/1.1\r\nHost: sim\r\nAuthorization: {authorization}\r\n{extra}\r\n");
        self.stream.write_all(head.as_bytes()).await.unwrap();
    }

    async fn rest(&mut self) -> String {
        let mut all = Vec::new();
        self.stream.read_to_end(&mut all).await.unwrap();
        String::from_utf8(all).unwrap()
    }

    /// Reads one response by its Content-Length.
    async fn response(&mut self) -> (String, String) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let mut body = vec![0; promised(&head)];
        self.stream.read_exact(&mut body).await.unwrap();
        (head, String::from_utf8(body).unwrap())
    }
}

fn promised(head: &str) -> usize {
    let (_, rest) = head.split_once("Content-Length: ").unwrap();
    rest.split("\r\n").next().unwrap().parse().unwrap()
}

const LIST: &str = "/beta/audit/events?size=20";

#[tokio::test]
async fn keeps_a_connection_for_many_requests_and_stops_when_told() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    for page in 1..=5 {
        client.request(&format!("{LIST}&page={page}"), "").await;
        let (head, body) = client.response().await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nDate: Wed, 01 Apr 2026 00:00:00 GMT\r\n"), "{head}");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["page"]["number"], page);
        assert_eq!(body["_embedded"]["events"].as_array().unwrap().len(), 20);
    }
    assert_eq!(server.sim.lock().unwrap().requests(), 5);
    server.stop.send(()).unwrap();
    server.task.await.unwrap().unwrap();
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn answers_requests_that_were_sent_together() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.request(LIST, "Content-Length: 3\r\n").await;
    client.stream.write_all(b"abc").await.unwrap();
    client.request("/beta/audit/events/none", "").await;
    assert!(client.response().await.0.starts_with("HTTP/1.1 200 "));
    assert!(client.response().await.0.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn a_cut_body_ends_before_its_length() {
    let server = Server::start().await;
    server.fault("cut");
    let mut client = server.connect().await;
    client.request(LIST, "").await;
    let all = client.rest().await;
    let (head, body) = all.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert!(body.len() > 1_000 && body.len() == promised(head) / 2, "{} of {}", body.len(), promised(head));
}

#[tokio::test]
async fn a_reset_gives_no_answer() {
    let server = Server::start().await;
    server.fault("reset");
    assert_eq!(server.ask(LIST).await, "");
}

#[tokio::test]
async fn a_stall_sends_nothing_for_its_time_and_then_everything() {
    let server = Server::start().await;
    let pause = Duration::from_millis(150);
    server.sim.lock().unwrap().set_fault(Some(Fault::Stall(pause)));
    let begun = tokio::time::Instant::now();
    let mut client = server.connect().await;
    client.request(LIST, "Connection: close\r\n").await;
    let first = client.stream.read_u8().await.unwrap();
    assert!(begun.elapsed() >= pause);
    let rest = client.rest().await;
    assert_eq!(first, b'H');
    assert!(rest.ends_with("}}"), "{rest}");
}

#[tokio::test]
async fn a_stalled_client_that_leaves_frees_its_connection() {
    let server = Server::start().await;
    server.fault("stall");
    for _ in 0..MAX_CONNECTIONS + 10 {
        let mut client = server.connect().await;
        client.request(LIST, "").await;
    }
    while server.sim.lock().unwrap().requests() < MAX_CONNECTIONS as u64 + 10 {
        tokio::task::yield_now().await;
    }
    server.sim.lock().unwrap().set_fault(None);
    assert!(server.ask(LIST).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn a_slow_body_comes_in_pieces() {
    let server = Server::start().await;
    let pause = Duration::from_millis(2);
    server.sim.lock().unwrap().set_fault(Some(Fault::SlowBody { piece_bytes: 512, pause }));
    let begun = tokio::time::Instant::now();
    let all = server.ask(LIST).await;
    let (head, body) = all.split_once("\r\n\r\n").unwrap();
    assert_eq!(body.len(), promised(head));
    let pieces = u32::try_from(body.len().div_ceil(512)).unwrap();
    assert!(pieces > 5 && begun.elapsed() >= pause * pieces, "{pieces} pieces in {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_huge_page_arrives_whole() {
    let server = Server::start().await;
    server.fault("huge");
    let all = server.ask(LIST).await;
    let (head, body) = all.split_once("\r\n\r\n").unwrap();
    assert_eq!((promised(head), body.len()), (20 * 1024 * 1024, 20 * 1024 * 1024));
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let server = Server::start().await;
    let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(40_000));
    let cases = [
        ("nonsense\r\n\r\n", "HTTP/1.1 400 "),
        ("GET http://sim/ HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "),
        ("PRI * HTTP/2.0\r\n\r\n", "HTTP/1.1 400 "),
        ("POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n", "HTTP/1.1 413 "),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 413 "),
        (long.as_str(), "HTTP/1.1 431 "),
    ];
    for (sent, expected) in cases {
        let mut client = server.connect().await;
        client.stream.write_all(sent.as_bytes()).await.unwrap();
        let mut begin = vec![0; expected.len()];
        client.stream.read_exact(&mut begin).await.unwrap();
        assert_eq!(String::from_utf8(begin).unwrap(), expected, "{sent:.40}");
    }
}
