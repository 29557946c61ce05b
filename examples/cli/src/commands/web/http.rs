//! As much of HTTP/1.1 as serving files takes: GET and HEAD, one range, entity tags, connections that stay open.
//!
//! Heads are parsed by `httparse`, the parser of hyper. Whoever talks nonsense, too slowly or too much is told so once and hung up
//! on; a request that carries content is refused, so nothing ever has to be skipped.

use std::io::{self, Read, Write};
use std::net::TcpStream;

/// Bytes of a request's head.
const MAX_HEAD: usize = 16 << 10;
/// Header lines of it.
const MAX_HEADERS: usize = 64;

/// A request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) host: Option<String>,
    pub(crate) range: Option<String>,
    pub(crate) if_range: Option<String>,
    pub(crate) if_none_match: Option<String>,
    /// HTTP/1.0: needs no host, and ends the connection.
    pub(crate) old: bool,
    /// The connection ends after this one.
    pub(crate) close: bool,
    /// Content comes with it.
    pub(crate) content: bool,
}

/// Why there is no request.
#[derive(Debug)]
pub(crate) enum NoRequest {
    /// The other side is done or gone: nothing to say.
    Gone,
    /// What came is answered with this status.
    Refused(u16),
}

/// Requests of one connection.
pub(crate) struct Requests<R> {
    stream: R,
    /// What was read and not yet used: the next request may have come with the last one.
    pending: Vec<u8>,
}

impl<R: Read> Requests<R> {
    pub(crate) fn new(stream: R) -> Self {
        Requests {
            stream,
            pending: Vec::new(),
        }
    }

    /// The next one.
    pub(crate) fn next(&mut self) -> Result<Request, NoRequest> {
        loop {
            if let Some((request, used)) = parse(&self.pending).map_err(NoRequest::Refused)? {
                self.pending.drain(..used);
                return Ok(request);
            }
            if self.pending.len() >= MAX_HEAD {
                return Err(NoRequest::Refused(431));
            }
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(NoRequest::Gone),
                Ok(n) => self.pending.extend_from_slice(&piece[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // Too slow in the middle of a head; silent between two requests is no fault.
                Err(e)
                    if !self.pending.is_empty()
                        && matches!(
                            e.kind(),
                            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                        ) =>
                {
                    return Err(NoRequest::Refused(408));
                }
                Err(_) => return Err(NoRequest::Gone),
            }
        }
    }
}

/// A request and its length if all of its head is there. Fails with a status.
fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>, u16> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let used = match head.parse(bytes) {
        Ok(httparse::Status::Complete(n)) => n,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(431),
        Err(httparse::Error::Version) => return Err(505),
        Err(_) => return Err(400),
    };
    let mut request = Request {
        method: head.method.unwrap_or_default().to_owned(),
        target: head.path.unwrap_or_default().to_owned(),
        old: head.version == Some(0),
        close: head.version == Some(0),
        ..Request::default()
    };
    for h in head.headers.iter() {
        let text = || std::str::from_utf8(h.value).map(|v| v.trim().to_owned());
        let once = |slot: &mut Option<String>| match (slot.is_some(), text()) {
            // Two hosts or two ranges are one too many to know what is meant.
            (true, _) | (_, Err(_)) => Err(400_u16),
            (false, Ok(value)) => {
                *slot = Some(value);
                Ok(())
            }
        };
        match h.name.to_ascii_lowercase().as_str() {
            "host" => once(&mut request.host)?,
            "range" => once(&mut request.range)?,
            "if-range" => once(&mut request.if_range)?,
            "if-none-match" => once(&mut request.if_none_match)?,
            "connection" => {
                let value = text().map_err(|_| 400_u16)?;
                request.close |= value
                    .split(',')
                    .any(|v| v.trim().eq_ignore_ascii_case("close"));
            }
            "content-length" => request.content |= text().as_deref() != Ok("0"),
            "transfer-encoding" => request.content = true,
            _ => {}
        }
    }
    Ok(Some((request, used)))
}

/// The words of a status.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        304 => "Not Modified",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        416 => "Range Not Satisfiable",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

/// An answer's head.
pub(crate) struct Head {
    lines: String,
}

impl Head {
    pub(crate) fn new(status: u16) -> Self {
        Head {
            lines: format!("HTTP/1.1 {status} {}\r\n", reason(status)),
        }
    }

    /// Adds a header. Values are our own words and numbers; a line break in one could only come from a file's name, and is taken out.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        let value: String = value.chars().filter(|c| !c.is_control()).collect();
        self.lines.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    pub(crate) fn write(mut self, to: &mut impl Write) -> io::Result<()> {
        self.lines.push_str("\r\n");
        to.write_all(self.lines.as_bytes())
    }
}

/// A short answer in words, after which the connection ends.
pub(crate) fn refuse(stream: &mut TcpStream, status: u16) -> io::Result<()> {
    let text = format!("{status} {}\n", reason(status));
    Head::new(status)
        .with("Content-Type", "text/plain; charset=utf-8")
        .with("Content-Length", &text.len().to_string())
        .with("Connection", "close")
        .write(stream)?;
    stream.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(text: &str) -> Requests<&[u8]> {
        Requests::new(text.as_bytes())
    }

    #[test]
    fn requests_follow_each_other() {
        let mut two = requests(
            "GET /a HTTP/1.1\r\nHost: x\r\nRange: bytes=0-1\r\n\r\nHEAD /b HTTP/1.0\r\n\r\n",
        );
        let a = two.next().unwrap();
        assert_eq!(
            (a.method.as_str(), a.target.as_str(), a.close),
            ("GET", "/a", false)
        );
        assert_eq!(
            (a.host.as_deref(), a.range.as_deref()),
            (Some("x"), Some("bytes=0-1"))
        );
        let b = two.next().unwrap();
        assert_eq!((b.method.as_str(), b.close, b.range), ("HEAD", true, None));
        assert!(matches!(two.next(), Err(NoRequest::Gone)));
    }

    #[test]
    fn nonsense_has_a_status() {
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(MAX_HEAD));
        let many = format!(
            "GET / HTTP/1.1\r\n{}\r\n",
            "a: b\r\n".repeat(MAX_HEADERS + 1)
        );
        for (text, status) in [
            ("\u{1}\u{2}\r\n\r\n", 400),
            ("GET\r\n\r\n", 400),
            ("GET / HTTP/9.9\r\n\r\n", 505),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
            (
                "GET / HTTP/1.1\r\nRange: bytes=0-0\r\nRange: bytes=1-1\r\n\r\n",
                400,
            ),
            ("GET / HTTP/1.1\r\na b: c\r\n\r\n", 400),
            (&long, 431),
            (&many, 431),
        ] {
            match requests(text).next() {
                Err(NoRequest::Refused(got)) => assert_eq!(got, status, "{text:.60}"),
                other => panic!("{text:.60}: {other:?}"),
            }
        }
        assert!(matches!(requests("GET / HT").next(), Err(NoRequest::Gone)));
    }

    #[test]
    fn content_is_seen() {
        for (line, content) in [
            ("Content-Length: 0", false),
            ("Content-Length: 5", true),
            ("Content-Length: -1", true),
            ("Transfer-Encoding: chunked", true),
        ] {
            let r = requests(&format!("GET / HTTP/1.1\r\n{line}\r\n\r\n"))
                .next()
                .unwrap();
            assert_eq!(r.content, content, "{line}");
        }
    }

    #[test]
    fn a_head_has_no_foreign_lines() {
        let mut out = Vec::new();
        Head::new(200)
            .with("ETag", "a\r\nX: y")
            .write(&mut out)
            .unwrap();
        assert_eq!(out, b"HTTP/1.1 200 OK\r\nETag: aX: y\r\n\r\n");
    }
}
