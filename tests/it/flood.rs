//! Destinations that say yes and then never stop, and that say yes in a body which would be large if it were decompressed:
//! the real process stays as small as it was.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::api::Api;
use crate::program::{Place, until};
use crate::ssrf::HTTP_SINKS;

/// Answers of each kind.
const FLOODS: usize = 200;
/// What the peak may grow by: some answers of 64 KiB at a time, and what the allocator makes of them.
const MAX_GROWTH_KIB: u64 = 16 * 1024;
/// Before the first block of gzip.
const GZIP_BEGIN: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// Answers well, or floods, and counts the alerts that it was given. One without a head speaks as soon as it is called, as the
/// servers of mail and NATS do, and counts calls.
struct Flood {
    url: String,
    count: Arc<AtomicUsize>,
    floods: Arc<AtomicBool>,
}

impl Flood {
    async fn start(head: &'static str, (begin, chunk): (Vec<u8>, Vec<u8>)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let place = listener.local_addr().expect("an address");
        let url = if head.is_empty() { place.to_string() } else { format!("http://{place}/hook") };
        let (count, floods) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, are_on) = (Arc::clone(&count), Arc::clone(&floods));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (counted, are_on) = (Arc::clone(&counted), Arc::clone(&are_on));
                let (begin, chunk) = (begin.clone(), chunk.clone());
                tokio::spawn(async move {
                    // The client leaves in the middle; that is what it should do.
                    serve(stream, [head.as_bytes(), &begin].concat(), &chunk, &counted, &are_on)
                        .await
                        .unwrap_or_default();
                });
            }
        });
        Self { url, count, floods }
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

async fn serve(
    mut stream: TcpStream,
    answer: Vec<u8>,
    chunk: &[u8],
    count: &AtomicUsize,
    floods: &AtomicBool,
) -> io::Result<()> {
    let mut request = Vec::new();
    if answer.is_empty() {
        count.fetch_add(1, Ordering::SeqCst);
        if !floods.load(Ordering::SeqCst) {
            return Ok(());
        }
        loop {
            stream.write_all(chunk).await?;
        }
    }
    loop {
        let end = loop {
            if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        };
        let said = String::from_utf8_lossy(&request[..end]).to_lowercase();
        let length = said.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        while request.len() < end + length.unwrap_or(0) {
            stream.read_buf(&mut request).await?;
        }
        request.clear();
        count.fetch_add(1, Ordering::SeqCst);
        if floods.load(Ordering::SeqCst) {
            stream.write_all(&answer).await?;
            loop {
                stream.write_all(chunk).await?;
            }
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await?;
    }
}

/// One block of gzip by fixed codes that never ends (RFC 1951, 3.2.6): a zero, then copies of 258 of it in 13 bits each. What
/// it begins with, and what goes on after it: 8 copies are 13 bytes, whatever bit they begin at.
fn bomb() -> (Vec<u8>, Vec<u8>) {
    let begin = [1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0];
    let copies = [1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0].repeat(8 * 1_026);
    let bits: Vec<u8> = begin.into_iter().chain(copies).collect();
    let byte = |bits: &[u8]| bits.iter().enumerate().fold(0, |sum, (at, bit)| sum | (bit << at));
    let bytes: Vec<u8> = bits.chunks(8).map(byte).collect();
    ([&GZIP_BEGIN, &bytes[..13]].concat(), bytes[13..13 * 1_025].to_vec())
}

/// The most memory that the process has held so far.
fn peak_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("on Linux");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_end_and_bombs_cost_no_memory() {
    let api = Api::start().await;
    let endless = Flood::start("HTTP/1.1 200 OK\r\n\r\n", (Vec::new(), vec![b'a'; 16 * 1024])).await;
    let bomb = Flood::start("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", bomb()).await;
    let place = Place::new();
    let sinks = format!(
        "sinks:\n  endless: {{webhook: {{url: \"{}\"}}}}\n  bomb: {{webhook: {{url: \"{}\"}}}}\n",
        endless.url, bomb.url
    );
    place.configure(&api, &sinks);
    let process = place.start(&["run", "-c", "vigie.yaml"]);
    let mut peaks = Vec::new();
    for round in 1..=2 {
        // As much work as later, but well answered: what that costs is not the flood's.
        for flood in [&endless, &bomb] {
            flood.floods.store(round == 2, Ordering::SeqCst);
        }
        for _ in 0..FLOODS {
            api.happen("APP_CREATE");
        }
        let are_given = async || endless.count() >= round * FLOODS && bomb.count() >= round * FLOODS;
        until("all alerts are given", are_given).await;
        peaks.push(peak_kib(process.id()));
    }
    println!("peak before and after {FLOODS} floods of each kind: {peaks:?} KiB");
    assert!(peaks[1] < peaks[0] + MAX_GROWTH_KIB, "{peaks:?} KiB");
    assert!(process.end("TERM").await.success(), "{}", place.log());
    assert_eq!((endless.count(), bomb.count()), (2 * FLOODS, 2 * FLOODS), "a yes counts once, whatever follows it");
}

/// The same of every kind of sink that has a network between.
#[tokio::test(flavor = "multi_thread")]
async fn no_kind_of_sink_keeps_what_an_endless_answer_says() {
    let (api, place) = (Api::start().await, Place::new());
    let (mut sinks, mut floods) = (String::from("sinks:\n"), Vec::new());
    let endless = || (Vec::new(), vec![b'2'; 16 * 1024]);
    let destinations = HTTP_SINKS.iter().filter(|(_, option, _)| *option != "oauth2_token_url");
    for (index, (kind, option, more)) in destinations.enumerate() {
        let flood = Flood::start("HTTP/1.1 200 OK\r\n\r\n", endless()).await;
        sinks.push_str(&format!("  s{index}:\n    {kind}:\n      {option}: \"{}\"\n{more}", flood.url));
        floods.push((*kind, flood));
    }
    for (kind, option, scheme, more) in [
        ("email", "smtp", "smtp", "      from: a@example.org\n      to: b@example.org\n"),
        ("nats", "url", "nats", ""),
        ("syslog", "url", "tcp", ""),
    ] {
        let flood = Flood::start("", endless()).await;
        sinks.push_str(&format!("  {kind}:\n    {kind}:\n      {option}: \"{scheme}://{}\"\n{more}", flood.url));
        floods.push((kind, flood));
    }
    let local = ["stdout", "file", "exec"];
    let is_tried = |kind: &str| floods.iter().any(|(tried, _)| *tried == kind);
    let missing: Vec<_> = vigie::sink::KINDS.iter().map(|known| known.kind).filter(|kind| !is_tried(kind)).collect();
    assert_eq!(missing, local, "whatever is there is tried");
    place.configure(&api, &sinks);
    let process = place.start(&["run", "-c", "vigie.yaml"]);
    let mut peaks = Vec::new();
    for (is_flooding, attempts) in [(false, 1), (true, 2)] {
        let before: Vec<usize> = floods.iter().map(|(_, flood)| flood.count()).collect();
        floods.iter().for_each(|(_, flood)| flood.floods.store(is_flooding, Ordering::SeqCst));
        for _ in 0..attempts {
            api.happen("APP_CREATE");
        }
        // The first is over when the next begins.
        let all = || before.iter().zip(&floods).all(|(before, (_, flood))| flood.count() >= before + attempts);
        until("each has been tried", async || all()).await;
        peaks.push(peak_kib(process.id()));
    }
    println!("peak of {} kinds before and after their floods: {peaks:?} KiB", floods.len());
    assert!(peaks[1] < peaks[0] + MAX_GROWTH_KIB, "{peaks:?} KiB");
    assert!(process.end("TERM").await.success(), "{}", place.log());
}
