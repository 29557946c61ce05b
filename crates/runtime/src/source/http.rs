//! One HTTP client with the rules of this module: redirects are followed by hand, so that the access token goes to the
//! hub's own host and nowhere else and so that the headers of every hop can be read; nothing goes from https to http; every
//! wait can be cancelled; a host that could not be reached is not asked again for a minute.
use super::{CancelToken, Error, Options, Result};
use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};
use ureq::http::{HeaderMap, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig};

const MAX_REDIRECTS: usize = 10;
const REMEMBER_DOWN: Duration = Duration::from_secs(60);

/// A failed exchange.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// Whether the same request may well succeed a moment later.
    pub(crate) transient: bool,
    /// How long the server asked us to wait.
    pub(crate) wait: Option<Duration>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            error,
            transient: false,
            wait: None,
        }
    }
}

/// An answer, whatever its status.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// Address that answered, after redirects.
    pub(crate) url: String,
    pub(crate) body: ureq::Body,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok().map(str::trim)
    }

    pub(crate) fn content_length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    fn retry_after(&self) -> Option<Duration> {
        let seconds = self.header("retry-after")?.parse::<u64>().ok()?;
        Some(Duration::from_secs(seconds.min(60)))
    }
}

/// How far redirects are followed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follow {
    Everywhere,
    /// A redirect to another host is itself the answer (its headers describe the file).
    SameHost,
}

/// A request; cheap to clone and send to a worker.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) head: bool,
    pub(crate) url: String,
    /// First and last byte wanted.
    pub(crate) range: Option<(u64, u64)>,
    pub(crate) follow: Follow,
}

/// The client. Clones share connections.
#[derive(Clone)]
pub(crate) struct Client {
    agent: ureq::Agent,
    endpoint: String,
    token: Option<String>,
    retries: u32,
    backoff: Duration,
}

impl Client {
    pub(crate) fn new(options: &Options) -> Self {
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .accept_encoding("identity")
            .user_agent(concat!("firelight/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(options.connect_timeout))
            .timeout_connect(Some(options.connect_timeout))
            .timeout_recv_response(Some(options.read_timeout))
            .timeout_per_read(Some(options.read_timeout))
            .max_idle_connections_per_host(options.connections.max(1));
        if is_loopback(&options.hub.endpoint) {
            // A proxy cannot reach this machine's own server.
            config = config.proxy(None);
        }
        if let Some(roots) = options.ca_bundle.as_deref().and_then(roots_from) {
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        Self {
            agent: config.build().new_agent(),
            endpoint: options.hub.endpoint.clone(),
            token: options.hub.token.clone(),
            retries: options.retries,
            backoff: options.backoff,
        }
    }

    /// Sends one request, following redirects. Blocks.
    pub(crate) fn send(&self, request: &Request) -> Result<Reply, Failure> {
        let mut url = request.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut call = if request.head {
                self.agent.head(&url)
            } else {
                self.agent.get(&url)
            };
            if let Some((first, last)) = request.range {
                call = call.header("range", format!("bytes={first}-{last}"));
            }
            if let Some(token) = &self.token
                && origin(&url).is_some_and(|o| Some(o) == origin(&self.endpoint))
            {
                call = call.header("authorization", format!("Bearer {token}"));
            }
            let answer = call.call().map_err(|e| failure(&url, e))?;
            let (parts, body) = answer.into_parts();
            let status = parts.status.as_u16();
            let reply = Reply {
                status,
                headers: parts.headers,
                url: url.clone(),
                body,
            };
            if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                return Ok(reply);
            }
            let Some(next) = reply.header("location").and_then(|l| join(&url, l)) else {
                return Err(Error::malformed(
                    shown(&url),
                    format!("HTTP {status} without a usable Location"),
                )
                .into());
            };
            if url.starts_with("https:") && !next.starts_with("https:") {
                return Err(Error::malformed(
                    shown(&url),
                    format!("redirect from https to {}", shown(&next)),
                )
                .into());
            }
            if request.follow == Follow::SameHost && origin(&url) != origin(&next) {
                return Ok(reply);
            }
            url = next;
        }
        let reason = format!("more than {MAX_REDIRECTS} redirects");
        Err(Error::malformed(shown(&request.url), reason).into())
    }

    /// Sends a request for facts about a file or repository, with retries. An unreachable host fails at once, and again at
    /// once for the next minute, so that other sources get their turn.
    pub(crate) fn ask(&self, request: &Request, cancel: &CancelToken) -> Result<Reply> {
        let host = origin(&request.url).unwrap_or_default();
        if let Some(reason) = known_down(&host) {
            return Err(Error::Unreachable { host, reason });
        }
        let mut failures = 0;
        loop {
            let (client, sent) = (self.clone(), request.clone());
            let result = in_background(cancel, move || client.send(&sent))?;
            let failed = match result {
                Ok(reply) if !is_transient(reply.status) => return Ok(reply),
                Ok(reply) if failures >= self.retries => return Ok(reply),
                Ok(reply) => reply.retry_after(),
                Err(Failure {
                    error: Error::Unreachable { host, reason },
                    ..
                }) => {
                    remember_down(&host, &reason);
                    return Err(Error::Unreachable { host, reason });
                }
                Err(f) if !f.transient || failures >= self.retries => return Err(f.error),
                Err(f) => f.wait,
            };
            failures += 1;
            pause(failed.unwrap_or(self.pause_after(failures)), cancel)?;
        }
    }

    /// Time to wait after the n-th failure in a row.
    pub(crate) fn pause_after(&self, failures: u32) -> Duration {
        let factor = 1u32 << failures.saturating_sub(1).min(10);
        self.backoff
            .saturating_mul(factor)
            .min(Duration::from_secs(8))
    }
}

/// Status codes that a moment's patience may cure.
pub(crate) fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// The failure a transient status stands for.
pub(crate) fn busy(reply: &Reply) -> Failure {
    Failure {
        error: Error::Http {
            url: shown(&reply.url),
            status: reply.status,
            fix: "the server is busy; try again later".into(),
        },
        transient: true,
        wait: reply.retry_after(),
    }
}

/// Sleeps unless cancelled.
pub(crate) fn pause(time: Duration, cancel: &CancelToken) -> Result<()> {
    let end = Instant::now() + time;
    loop {
        cancel.check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}

/// Runs a blocking call on a thread of its own, so that a cancel need not wait for the network.
fn in_background<T: Send + 'static>(
    cancel: &CancelToken,
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        // The receiver is gone when the caller was cancelled; nobody wants the answer then.
        let _ = send.send(call());
    });
    loop {
        match receive.recv_timeout(Duration::from_millis(20)) {
            Ok(value) => return Ok(value),
            Err(mpsc::RecvTimeoutError::Timeout) => cancel.check()?,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(Error::malformed(
                    "HTTP exchange",
                    "the request thread ended early",
                ));
            }
        }
    }
}

fn down() -> &'static Mutex<HashMap<String, (Instant, String)>> {
    static DOWN: OnceLock<Mutex<HashMap<String, (Instant, String)>>> = OnceLock::new();
    DOWN.get_or_init(Mutex::default)
}

fn known_down(host: &str) -> Option<String> {
    let hosts = down().lock().unwrap_or_else(PoisonError::into_inner);
    hosts
        .get(host)
        .filter(|(when, _)| when.elapsed() < REMEMBER_DOWN)
        .map(|(_, r)| r.clone())
}

fn remember_down(host: &str, reason: &str) {
    let mut hosts = down().lock().unwrap_or_else(PoisonError::into_inner);
    hosts.insert(host.to_owned(), (Instant::now(), reason.to_owned()));
}

fn failure(url: &str, e: ureq::Error) -> Failure {
    use std::io::ErrorKind as K;
    use ureq::{Error as U, Timeout as T};
    // A connection that was there and broke is worth another try at once. Everything else of the system (a name that cannot be
    // looked up has no kind of its own) means that there was none.
    let down = match &e {
        U::Timeout(t) => matches!(t, T::Resolve | T::Connect),
        U::Io(e) => !matches!(
            e.kind(),
            K::ConnectionReset
                | K::ConnectionAborted
                | K::BrokenPipe
                | K::UnexpectedEof
                | K::TimedOut
                | K::WouldBlock
        ),
        U::HostNotFound | U::ConnectionFailed | U::Tls(_) | U::Rustls(_) => true,
        U::ConnectProxyFailed(_) | U::InvalidProxyUrl => true,
        _ => false,
    };
    let host = origin(url).unwrap_or_else(|| shown(url));
    let reason = e.to_string();
    if down {
        return Failure {
            error: Error::Unreachable { host, reason },
            transient: true,
            wait: None,
        };
    }
    match e {
        U::Io(_) | U::Timeout(_) | U::Protocol(_) => Failure {
            error: Error::malformed(shown(url), format!("no complete answer: {reason}")),
            transient: true,
            wait: None,
        },
        _ => Error::malformed(shown(url), reason).into(),
    }
}

/// An address without its query, which may hold a signature.
pub(crate) fn shown(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or_default().to_owned()
}

/// Scheme, host and port, for comparing.
pub(crate) fn origin(url: &str) -> Option<String> {
    let uri = url.parse::<Uri>().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let port = uri
        .port_u16()
        .unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some(format!(
        "{scheme}://{}:{port}",
        uri.host()?.to_ascii_lowercase()
    ))
}

fn is_loopback(url: &str) -> bool {
    let uri = url.parse::<Uri>().ok();
    let host = uri.as_ref().and_then(|u| u.host()).unwrap_or_default();
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

/// The address a `Location` header means, seen from `base`.
fn join(base: &str, location: &str) -> Option<String> {
    let location = location.split('#').next().filter(|l| !l.is_empty())?;
    let lower = location.to_ascii_lowercase();
    let (scheme, rest) = base.split_once("://")?;
    let joined = if lower.starts_with("https://") || lower.starts_with("http://") {
        location.to_owned()
    } else if let Some(host) = location.strip_prefix("//") {
        format!("{scheme}://{host}")
    } else if lower
        .split('/')
        .next()
        .is_some_and(|first| first.contains(':'))
    {
        return None;
    } else {
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        match location.strip_prefix('/') {
            Some(absolute) => format!("{scheme}://{host}/{absolute}"),
            None => {
                let folder = path
                    .rsplit_once('/')
                    .map_or(String::new(), |(d, _)| format!("{d}/"));
                format!("{scheme}://{host}/{folder}{location}")
            }
        }
    };
    joined
        .parse::<Uri>()
        .ok()
        .filter(|u| u.host().is_some())
        .map(|_| joined)
}

/// Percent-encodes one path segment.
pub(crate) fn encode(segment: &str) -> String {
    segment
        .bytes()
        .map(|b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(b).to_string()
            }
            _ => format!("%{b:02X}"),
        })
        .collect()
}

/// Root certificates of a PEM bundle; none when it cannot be read or holds none.
fn roots_from(path: &std::path::Path) -> Option<RootCerts> {
    let pem = std::fs::read(path).ok()?;
    let certificates = ureq::tls::parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(c)) => Some(c),
            _ => None,
        })
        .collect::<Vec<_>>();
    (!certificates.is_empty()).then(|| RootCerts::new_with_certs(&certificates))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_like_a_browser() {
        let base = "https://h.org:8/a/b?x=1";
        for (location, expected) in [
            ("https://o.org/z?q#f", Some("https://o.org/z?q")),
            ("//o.org/z", Some("https://o.org/z")),
            ("/z", Some("https://h.org:8/z")),
            ("z", Some("https://h.org:8/a/z")),
            ("ftp://x/y", None),
            ("", None),
        ] {
            assert_eq!(join(base, location).as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn origins_compare_host_port_and_scheme() {
        assert_eq!(origin("https://H.org/x"), origin("https://h.org:443"));
        for other in [
            "http://h.org/x",
            "https://h.org:8/x",
            "https://h.org.evil/x",
            "https://g.org",
        ] {
            assert_ne!(origin("https://h.org/x"), origin(other), "{other}");
        }
        assert_eq!(
            origin("https://h.org@evil.org/").unwrap(),
            "https://evil.org:443"
        );
        assert_eq!(origin("nonsense"), None);
    }

    #[test]
    fn encodes_what_a_path_cannot_hold() {
        assert_eq!(encode("a b+c/é.gguf"), "a%20b%2Bc%2F%C3%A9.gguf");
    }
}
