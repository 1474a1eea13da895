//! Downloads over plain HTTP, as a runtime makes them: each client has one connection for one request after
//! another. What comes is counted, and thrown away by the kernel: a client that copied or hashed it would
//! measure itself.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::net::RecvFlags;

/// Nothing comes for so long: it hangs.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
/// A head that is longer is none.
const LONGEST_HEAD: usize = 64 * 1024;
/// Thrown away at a time.
const PIECE: usize = 1 << 20;

/// How one download went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Download {
    /// From before the request, and before connecting where there was no connection yet, to the first byte of
    /// the body.
    pub(super) first_byte: Duration,
    /// Length of the body.
    pub(super) bytes: u64,
}

/// One client.
pub(super) struct Client {
    address: SocketAddr,
    connection: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Client {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            connection: None,
            buffer: vec![0; PIECE],
        }
    }

    /// Downloads `path`; an answer that is not 200, or not whole, is an error.
    pub(super) fn download(&mut self, path: &str) -> Result<Download> {
        let started = Instant::now();
        let was_open = self.connection.is_some();
        let answered = match self.ask(path) {
            // The other side may close a connection between two requests.
            Err(error) if was_open && is_gone(&error) => self.ask(path),
            answered => answered,
        };
        let (mut stream, head, begun) = answered.with_context(|| path.to_owned())?;
        let mut first_byte = (begun > 0).then(|| started.elapsed());
        ensure!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}");
        let length = header(&head, "content-length").and_then(|value| value.parse::<u64>().ok());
        let length = length.with_context(|| format!("{path}: no length: {head}"))?;
        let mut bytes = begun;
        while bytes < length {
            let wanted = usize::try_from(length - bytes).unwrap_or(PIECE).min(PIECE);
            let space = self.buffer.get_mut(..wanted).unwrap_or_default();
            let read = receive(&mut stream, space).with_context(|| path.to_owned())?;
            ensure!(read > 0, "{path}: {bytes} of {length} bytes");
            first_byte.get_or_insert_with(|| started.elapsed());
            bytes += read as u64;
        }
        let is_kept = !header(&head, "connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
        self.connection = is_kept.then_some(stream);
        Ok(Download {
            first_byte: first_byte.unwrap_or_else(|| started.elapsed()),
            bytes,
        })
    }

    /// Sends a request; gives the head of the answer, and how much of the body came with it.
    fn ask(&mut self, path: &str) -> Result<(TcpStream, String, u64)> {
        let mut stream = match self.connection.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.address)?;
                stream.set_read_timeout(Some(SILENCE_TIMEOUT))?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        let address = self.address;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: */*\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut head = Vec::new();
        loop {
            // Little at a time: what comes of the body is copied.
            let space = self.buffer.get_mut(..4096).unwrap_or_default();
            let length = stream.read(space)?;
            if length == 0 {
                return Err(std::io::Error::from(ErrorKind::UnexpectedEof).into());
            }
            head.extend_from_slice(space.get(..length).unwrap_or_default());
            if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
                let begun = head.len() - end - 4;
                head.truncate(end);
                let head = String::from_utf8_lossy(&head).into_owned();
                return Ok((stream, head, begun as u64));
            }
            ensure!(head.len() < LONGEST_HEAD, "no end of the head");
        }
    }
}

/// Takes what has come off the connection, without copying it.
fn receive(stream: &mut TcpStream, space: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match rustix::net::recv(&*stream, &mut *space, RecvFlags::TRUNC) {
            Ok((_, length)) => return Ok(length),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_gone(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(|e| e.kind());
    matches!(
        kind,
        Some(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
    )
}

fn header<'h>(head: &'h str, wanted: &str) -> Option<&'h str> {
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case(wanted).then(|| value.trim())
    })
}

/// Downloads by `clients` threads at once; each takes the next path when it is done with one. None is begun
/// after `limit`: a bench that takes too long says so, and goes on with what is next.
pub(super) fn downloads(
    address: SocketAddr,
    paths: &[String],
    clients: usize,
    limit: Duration,
) -> Result<Vec<Download>> {
    let next = AtomicUsize::new(0);
    let until = Instant::now() + limit;
    let work = || {
        let mut client = Client::new(address);
        let mut done = Vec::new();
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
            ensure!(
                Instant::now() < until,
                "not done after {limit:?}: {} of {} downloads were begun",
                next.load(Ordering::Relaxed).min(paths.len()),
                paths.len()
            );
            done.push(client.download(path)?);
        }
        Ok(done)
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..clients).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::with_capacity(paths.len());
        for worker in workers {
            let done = worker.join();
            all.extend(done.map_err(|_| anyhow!("a client panicked"))??);
        }
        Ok(all)
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Answers one request after another; every second answer closes its connection without having said so.
    fn server(body: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                for _ in 0..2 {
                    let mut head = Vec::new();
                    let mut byte = [0];
                    while !head.ends_with(b"\r\n\r\n") {
                        if stream.read(&mut byte).unwrap_or(0) == 0 {
                            break;
                        }
                        head.extend_from_slice(&byte);
                    }
                    if head.is_empty() {
                        break;
                    }
                    let status = match head.starts_with(b"GET /missing") {
                        true => "404 Not Found",
                        false => "200 OK",
                    };
                    let length = body.len();
                    let text = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n");
                    stream.write_all(text.as_bytes()).unwrap();
                    stream.write_all(body).unwrap();
                }
            }
        });
        address
    }

    #[test]
    fn every_byte_is_counted_over_connections_that_end() {
        static BODY: [u8; 300_000] = [7; 300_000];
        let address = server(&BODY);
        let paths = vec!["/x".to_owned(); 7];
        let limit = Duration::from_secs(60);
        let done = downloads(address, &paths, 2, limit).unwrap();
        assert_eq!(done.len(), 7);
        assert!(done.iter().all(|done| done.bytes == 300_000));
        let late = downloads(address, &paths, 1, Duration::ZERO).unwrap_err();
        assert!(late.to_string().contains("not done after"), "{late}");
        let missing = Client::new(address).download("/missing").unwrap_err();
        assert!(missing.to_string().contains("404"), "{missing}");
    }
}
