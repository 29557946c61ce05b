//! Connections: one thread each, few of them, none for ever.

use super::headers::{self, FIXED};
use super::http::{self, Head, NoRequest, Request, Requests};
use super::path;
use super::range::{self, Wanted};
use super::site::{Opened, Site};
use crate::ui;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Connections at a time: a browser opens six, a page behind a proxy some more.
const MAX_CONNECTIONS: usize = 128;
/// How long to wait for a request, or for the rest of one.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a receiver may take nothing.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// What all connections share.
pub(crate) struct Server {
    pub(crate) site: Site,
    /// Only this machine may ask, under its own name: no page elsewhere whose name was made to point here.
    pub(crate) local_only: bool,
    /// Say each request on standard error.
    pub(crate) log: bool,
}

/// Serves until the program ends. Fails only if the listener does.
pub(crate) fn run(listener: &TcpListener, server: Server) -> io::Result<()> {
    let server = Arc::new(server);
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            // One connection that failed before it began, or too many files open: the next may fare better.
            Err(_) => {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
        };
        let slot = Slot(Arc::clone(&open));
        if open.fetch_add(1, Ordering::SeqCst) >= MAX_CONNECTIONS {
            let _ = stream.set_write_timeout(Some(Duration::from_secs(1)));
            let _ = http::refuse(&mut stream, 503);
            continue;
        }
        let server = Arc::clone(&server);
        std::thread::Builder::new()
            .name("connection".into())
            .spawn(move || {
                let _slot = slot;
                // Whoever hung up need not be told.
                let _ = server.connection(stream);
            })?;
    }
}

struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Server {
    fn connection(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        stream.set_nodelay(true)?;
        let mut requests = Requests::new(stream.try_clone()?);
        loop {
            let request = match requests.next() {
                Ok(request) => request,
                Err(NoRequest::Gone) => return Ok(()),
                Err(NoRequest::Refused(status)) => return http::refuse(&mut stream, status),
            };
            let status = self.answer(&request, &mut stream)?;
            if self.log {
                let range = request.range.as_deref().unwrap_or("-");
                ui::to_stderr(&crate::format::harmless(&format!(
                    "{} {} {status} {range}",
                    request.method, request.target
                )));
            }
            if request.close || request.content {
                return Ok(());
            }
        }
    }

    /// Answers, and gives the status. Fails if the answer could not be sent.
    fn answer(&self, request: &Request, stream: &mut TcpStream) -> io::Result<u16> {
        if request.content {
            return http::refuse(stream, 413).map(|()| 413);
        }
        if let Err(status) = self.host_allowed(request) {
            return self.say(request, stream, status, "");
        }
        let with_body = match request.method.as_str() {
            "GET" => true,
            "HEAD" => false,
            _ => return self.say(request, stream, 405, ""),
        };
        let Some(key) = path::key(&request.target) else {
            return self.say(request, stream, 404, "");
        };
        let (mut content, tag) = match self.site.open(&key) {
            Ok(Some(opened)) => opened,
            Ok(None) => return self.say(request, stream, 404, ""),
            Err(e) => return self.say(request, stream, 500, &format!("{key}: {e}\n")),
        };
        let len = content.len();
        let base = |status| {
            let head = self
                .head(status, &key, request)
                .with("ETag", &tag)
                .with("Cache-Control", headers::caching(&key));
            head.with("Accept-Ranges", "bytes")
        };
        if matches(request.if_none_match.as_deref(), &tag) {
            return base(304).write(stream).map(|()| 304);
        }
        // A range of another version of the file would be garbage: then all of it.
        let same = request.if_range.as_ref().is_none_or(|t| *t == tag);
        let wanted = match &request.range {
            Some(value) if same && with_body => range::wanted(value, len),
            _ => Wanted::All,
        };
        let (status, part) = match wanted {
            Wanted::All => (200, 0..len),
            Wanted::Part(part) => (206, part),
            Wanted::Outside => {
                let head = base(416).with("Content-Range", &format!("bytes */{len}"));
                return head.with("Content-Length", "0").write(stream).map(|()| 416);
            }
        };
        let mut head = base(status).with("Content-Length", &(part.end - part.start).to_string());
        if status == 206 {
            head = head.with(
                "Content-Range",
                &format!("bytes {}-{}/{len}", part.start, part.end - 1),
            );
        }
        head.write(stream)?;
        if with_body {
            send(&mut content, part, stream)?;
        }
        Ok(status)
    }

    /// Headers of every answer.
    fn head(&self, status: u16, key: &str, request: &Request) -> Head {
        let page = key.ends_with(".html");
        let mut head = Head::new(status)
            .with("Content-Type", headers::content_type(key))
            .with("Content-Security-Policy", &self.site.connect.policy(page));
        for (name, value) in FIXED {
            head = head.with(name, value);
        }
        if request.close {
            head = head.with("Connection", "close");
        }
        head
    }

    /// An answer that is not a file.
    fn say(
        &self,
        request: &Request,
        stream: &mut TcpStream,
        status: u16,
        more: &str,
    ) -> io::Result<u16> {
        let text = match status {
            404 => "there is nothing at this address\n".to_owned(),
            405 => "only GET and HEAD\n".to_owned(),
            421 => "this server answers to the name of this machine only\n".to_owned(),
            _ => format!("{status}\n{more}"),
        };
        let mut head = self
            .head(status, "answer.txt", request)
            .with("Content-Length", &text.len().to_string())
            .with("Cache-Control", "no-store");
        if status == 405 {
            head = head.with("Allow", "GET, HEAD");
        }
        head.write(stream)?;
        if request.method != "HEAD" {
            stream.write_all(text.as_bytes())?;
        }
        Ok(status)
    }

    fn host_allowed(&self, request: &Request) -> Result<(), u16> {
        match &request.host {
            None if request.old => Ok(()),
            None => Err(400),
            Some(host) if self.local_only && !is_local(host) => Err(421),
            Some(_) => Ok(()),
        }
    }
}

/// Whether a `Host` header names this machine itself.
fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let loopback = name.parse::<IpAddr>().is_ok_and(|a| a.is_loopback());
    loopback
        || name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
}

/// Whether an `If-None-Match` names this tag.
fn matches(header: Option<&str>, tag: &str) -> bool {
    header.is_some_and(|list| {
        list.split(',')
            .map(str::trim)
            .any(|t| t == "*" || t.strip_prefix("W/").unwrap_or(t) == tag)
    })
}

fn send(content: &mut Opened, part: Range<u64>, stream: &mut TcpStream) -> io::Result<()> {
    match content {
        Opened::Bytes(bytes) => {
            let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(bytes.len());
            stream.write_all(&bytes[at(part.start)..at(part.end)])
        }
        Opened::File(file, _) => {
            file.seek(SeekFrom::Start(part.start))?;
            let wanted = part.end - part.start;
            // The file became shorter: hanging up says so, anything else would be taken for content.
            match io::copy(&mut file.take(wanted), stream)? {
                n if n == wanted => Ok(()),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine() {
        for name in [
            "localhost",
            "LOCALHOST:80",
            "127.0.0.1:8017",
            "127.1.2.3",
            "[::1]:1",
            "[::1]",
            "a.localhost:1",
        ] {
            assert!(is_local(name), "{name}");
        }
        for name in [
            "evil.example",
            "evil.example:8017",
            "127.0.0.1.evil.example",
            "192.168.0.1",
            "localhost.evil.example",
            "",
            "[::2]",
        ] {
            assert!(!is_local(name), "{name}");
        }
    }

    #[test]
    fn tags_match_weakly() {
        for header in ["\"a\"", "W/\"a\"", "\"b\", \"a\"", "*"] {
            assert!(matches(Some(header), "\"a\""), "{header}");
        }
        assert!(!matches(Some("\"aa\""), "\"a\"") && !matches(None, "\"a\""));
    }
}
