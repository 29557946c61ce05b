//! An HTTP/1.1 server of a few lines that notes what it was asked and what it sent, and breaks the rules when told to.
use super::{Shared, sha256};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as received.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) range: Option<(usize, usize)>,
    pub(crate) authorization: Option<String>,
    /// Body bytes sent in answer.
    pub(crate) sent: usize,
}

/// An answer, with ways to be wrong.
#[derive(Clone, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Closes the connection after so many bytes of the body.
    pub(crate) cut: Option<usize>,
    /// Says this length instead of the true one.
    pub(crate) length: Option<usize>,
    /// Pause after every 16 kB.
    pub(crate) pause: Duration,
}

impl Answer {
    pub(crate) fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn redirect(to: impl Into<String>) -> Self {
        Self::status(302).header("Location", to)
    }

    /// The content, or the part of it that was asked for.
    pub(crate) fn content(asked: &Asked, content: &[u8]) -> Self {
        let Some((first, last)) = asked.range else {
            return Self {
                status: 200,
                body: content.to_vec(),
                ..Self::default()
            };
        };
        if first >= content.len() {
            return Self::status(416);
        }
        let last = last.min(content.len() - 1);
        let range = format!("bytes {first}-{last}/{}", content.len());
        let body = content[first..=last].to_vec();
        Self {
            status: 206,
            body,
            ..Self::default()
        }
        .header("Content-Range", range)
    }
}

pub(crate) struct Server {
    pub(crate) url: String,
    asked: Shared<Vec<Asked>>,
    stop: Arc<AtomicBool>,
}

impl Server {
    /// Answers with `handler`, which is told the number of the request too.
    pub(crate) fn start(handler: impl Fn(&Asked, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (asked, stop) = (Shared::default(), Arc::new(AtomicBool::new(false)));
        let (log, stopped, handler) = (Arc::clone(&asked), Arc::clone(&stop), Arc::new(handler));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (log, handler) = (Arc::clone(&log), Arc::clone(&handler));
                // A client that goes away ends its connection with an error; that is its right.
                std::thread::spawn(move || drop(serve(stream.unwrap(), &log, &*handler)));
            }
        });
        Self { url, asked, stop }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Body bytes sent in answer to requests whose path has this in it.
    pub(crate) fn sent(&self, path: &str) -> usize {
        self.asked()
            .iter()
            .filter(|a| a.path.contains(path))
            .map(|a| a.sent)
            .sum()
    }

    pub(crate) fn forget(&self) {
        self.asked.lock().unwrap().clear();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
    }
}

fn serve(
    mut stream: TcpStream,
    log: &Mutex<Vec<Asked>>,
    handler: &(impl Fn(&Asked, usize) -> Answer + ?Sized),
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let mut words = first.split(' ');
    let mut asked = Asked {
        method: words.next().unwrap_or_default().to_owned(),
        path: words.next().unwrap_or_default().to_owned(),
        range: None,
        authorization: None,
        sent: 0,
    };
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => asked.authorization = Some(value.trim().to_owned()),
            "range" => {
                let (first, last) = value
                    .trim()
                    .trim_start_matches("bytes=")
                    .split_once('-')
                    .unwrap();
                asked.range = Some((first.parse().unwrap(), last.parse().unwrap_or(usize::MAX)));
            }
            _ => {}
        }
    }
    let index = {
        let mut log = log.lock().unwrap();
        log.push(asked.clone());
        log.len() - 1
    };
    let answer = handler(&asked, index);
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!(
        "Content-Length: {}\r\n\r\n",
        answer.length.unwrap_or(answer.body.len())
    );
    stream.write_all(head.as_bytes())?;
    if asked.method == "HEAD" {
        return Ok(());
    }
    let end = answer.cut.unwrap_or(usize::MAX).min(answer.body.len());
    for piece in answer.body[..end].chunks(16 << 10) {
        // Counted first: the client may be done before this thread runs again.
        if let Some(entry) = log.lock().unwrap().get_mut(index) {
            entry.sent += piece.len();
        }
        stream.write_all(piece)?;
        if !answer.pause.is_zero() {
            std::thread::sleep(answer.pause);
        }
    }
    Ok(())
}

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A file of a pretended repository. Large ones live on another host, as on the real hub.
#[derive(Clone)]
pub(crate) struct RepoFile {
    pub(crate) name: &'static str,
    pub(crate) content: Vec<u8>,
    pub(crate) large: bool,
}

impl RepoFile {
    pub(crate) fn large(name: &'static str, content: Vec<u8>) -> Self {
        Self {
            name,
            content,
            large: true,
        }
    }

    pub(crate) fn small(name: &'static str, content: &str) -> Self {
        Self {
            name,
            content: content.into(),
            large: false,
        }
    }

    pub(crate) fn etag(&self) -> String {
        let hash = sha256(&self.content);
        if self.large {
            hash
        } else {
            hash[..40].to_owned()
        }
    }
}

/// What the hub answers for repository `o/r`; large files redirect to `storage/NAME`.
pub(crate) fn hub_answer(asked: &Asked, files: &[RepoFile], storage: &str) -> Answer {
    if asked.path.starts_with("/api/models/o/r/revision/") {
        let siblings = files.iter().map(|f| {
            let lfs = if f.large {
                format!(
                    r#","lfs":{{"sha256":"{}","size":{}}}"#,
                    f.etag(),
                    f.content.len()
                )
            } else {
                String::new()
            };
            format!(
                r#"{{"rfilename":"{}","size":{},"blobId":"{}"{lfs}}}"#,
                f.name,
                f.content.len(),
                f.etag()
            )
        });
        let siblings = siblings.collect::<Vec<_>>().join(",");
        let json = format!(
            r#"{{"sha":"{COMMIT}","cardData":{{"license":"mit"}},"siblings":[{siblings}]}}"#
        );
        return Answer::content(
            &Asked {
                range: None,
                ..asked.clone()
            },
            json.as_bytes(),
        );
    }
    let file = asked
        .path
        .strip_prefix("/o/r/resolve/")
        .and_then(|p| p.split_once('/'));
    let Some(file) = file.and_then(|(_, name)| files.iter().find(|f| f.name == name)) else {
        return Answer::status(404).header("X-Error-Code", "EntryNotFound");
    };
    let answer = match file.large {
        true => Answer::redirect(format!("{storage}/{}", file.name))
            .header("X-Linked-Etag", format!("\"{}\"", file.etag()))
            .header("X-Linked-Size", file.content.len().to_string()),
        false => {
            Answer::content(asked, &file.content).header("ETag", format!("\"{}\"", file.etag()))
        }
    };
    answer.header("X-Repo-Commit", COMMIT)
}

/// A hub and its storage, as two hosts. `storage` decides how the large files are sent.
pub(crate) struct Pair {
    pub(crate) hub: Server,
    pub(crate) storage: Server,
}

impl Pair {
    pub(crate) fn new(
        files: Vec<RepoFile>,
        storage: impl Fn(&Asked, usize, &[u8]) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let stored = files.clone();
        let storage = Server::start(move |asked, n| {
            match stored.iter().find(|f| asked.path == format!("/{}", f.name)) {
                Some(file) => storage(asked, n, &file.content),
                None => Answer::status(404),
            }
        });
        let url = storage.url.clone();
        let hub = Server::start(move |asked, _| hub_answer(asked, &files, &url));
        Self { hub, storage }
    }

    pub(crate) fn good(files: Vec<RepoFile>) -> Self {
        Self::new(files, |asked, _, content| Answer::content(asked, content))
    }
}
