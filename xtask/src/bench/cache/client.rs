//! Downloads over plain HTTP, each on a connection of its own. What comes is counted and thrown away: a
//! client that hashed it would measure itself.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

const TIMEOUT: Duration = Duration::from_secs(120);
/// A head that is longer is none.
const LONGEST_HEAD: usize = 64 * 1024;

/// How one download went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Download {
    /// From before connecting to the first byte of the body.
    pub(super) first_byte: Duration,
    /// Length of the body.
    pub(super) bytes: u64,
}

/// Downloads `path`; an answer that is not 200, or not whole, is an error.
pub(super) fn download(address: SocketAddr, path: &str, buffer: &mut [u8]) -> Result<Download> {
    let started = Instant::now();
    let mut stream = TcpStream::connect(address).with_context(|| address.to_string())?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut head = Vec::new();
    let (end, mut first_byte) = loop {
        let length = stream.read(buffer)?;
        ensure!(length > 0, "{path}: the connection was closed");
        head.extend_from_slice(buffer.get(..length).unwrap_or_default());
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            let has_body = head.len() > end + 4;
            break (end + 4, has_body.then(|| started.elapsed()));
        }
        ensure!(head.len() < LONGEST_HEAD, "{path}: no end of the head");
    };
    let mut bytes = (head.len() - end) as u64;
    let head = String::from_utf8_lossy(head.get(..end).unwrap_or_default()).into_owned();
    ensure!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}");
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<u64>().ok())?
    });
    let length = length.with_context(|| format!("{path}: no length: {head}"))?;
    while bytes < length {
        let read = stream.read(buffer)?;
        ensure!(read > 0, "{path}: {bytes} of {length} bytes");
        first_byte.get_or_insert_with(|| started.elapsed());
        bytes += read as u64;
    }
    Ok(Download {
        first_byte: first_byte.unwrap_or_else(|| started.elapsed()),
        bytes,
    })
}

/// Downloads by `clients` threads at once; each takes the next path when it is done with one.
pub(super) fn downloads(
    address: SocketAddr,
    paths: &[String],
    clients: usize,
) -> Result<Vec<Download>> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..clients)
            .map(|_| {
                scope.spawn(|| {
                    let mut buffer = vec![0; 256 * 1024];
                    let mut done = Vec::new();
                    loop {
                        let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        let Some(path) = paths.get(number) else {
                            return anyhow::Ok(done);
                        };
                        done.push(download(address, path, &mut buffer)?);
                    }
                })
            })
            .collect();
        let mut all = Vec::with_capacity(paths.len());
        for worker in workers {
            let done = worker.join();
            all.extend(done.map_err(|_| anyhow::anyhow!("a client panicked"))??);
        }
        Ok(all)
    })
}
