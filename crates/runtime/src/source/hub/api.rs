//! The hub's HTTP interface, as documented at <https://huggingface.co/docs/hub/api> and spoken by its mirrors.
use crate::catalogue::{MAX_FILE_BYTES, is_inside, is_sha256, is_word};
use crate::source::http::{Client, Follow, Reply, Request, encode, shown};
use crate::source::model_ref::HubRef;
use crate::source::{CancelToken, Error, Result};
use serde::Deserialize;
use std::io::Read;

const MAX_INFO_BYTES: u64 = 32 << 20;

/// What is known of a file before it is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) size: u64,
    /// Name of the blob in the cache.
    pub(super) etag: String,
    /// Known for large (LFS) files.
    pub(super) sha256: Option<String>,
}

pub(super) struct ListedFile {
    pub(super) name: String,
    pub(super) facts: Option<Facts>,
}

pub(super) struct Info {
    pub(super) commit: String,
    pub(super) files: Vec<ListedFile>,
    pub(super) licence: Option<String>,
}

pub(super) fn resolve_url(endpoint: &str, repo: &str, revision: &str, file: &str) -> String {
    let file = file.split('/').map(encode).collect::<Vec<_>>().join("/");
    format!("{endpoint}/{repo}/resolve/{}/{file}", encode(revision))
}

#[derive(Deserialize)]
struct RawInfo {
    sha: String,
    #[serde(default)]
    siblings: Vec<RawFile>,
    #[serde(default, rename = "cardData")]
    card: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawFile {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<RawLfs>,
}

#[derive(Deserialize)]
struct RawLfs {
    sha256: Option<String>,
    size: Option<u64>,
}

/// Asks for the commit and the files of a revision.
pub(super) fn info(
    client: &Client,
    endpoint: &str,
    hub: &HubRef,
    cancel: &CancelToken,
) -> Result<Info> {
    let revision = encode(&hub.revision);
    let url = format!(
        "{endpoint}/api/models/{}/revision/{revision}?blobs=true",
        hub.repo
    );
    let request = Request {
        head: false,
        url,
        range: None,
        follow: Follow::Everywhere,
    };
    let reply = client.ask(&request, cancel)?;
    if reply.status != 200 {
        return Err(refused(&reply, &hub.repo));
    }
    let shown = shown(&reply.url);
    let mut text = Vec::new();
    let mut body = reply.body.into_reader().take(MAX_INFO_BYTES + 1);
    body.read_to_end(&mut text)
        .map_err(|e| Error::malformed(&shown, e.to_string()))?;
    let got = text.len() as u64;
    if got > MAX_INFO_BYTES {
        return Err(Error::Limit {
            what: shown,
            max: MAX_INFO_BYTES,
            got,
        });
    }
    let raw: RawInfo =
        serde_json::from_slice(&text).map_err(|e| Error::malformed(&shown, e.to_string()))?;
    let licence = raw
        .card
        .as_ref()
        .and_then(|c| c.get("license")?.as_str().map(str::to_owned));
    let mut files = Vec::new();
    for file in raw.siblings {
        if !is_inside(&file.rfilename) {
            let reason = format!("file name {:?} leaves the repository", file.rfilename);
            return Err(Error::malformed(shown, reason));
        }
        files.push(ListedFile {
            facts: facts_of(&file),
            name: file.rfilename,
        });
    }
    Ok(Info {
        commit: commit_name(&raw.sha, &shown)?,
        files,
        licence,
    })
}

fn facts_of(file: &RawFile) -> Option<Facts> {
    let sha256 = file
        .lfs
        .as_ref()
        .and_then(|l| l.sha256.clone())
        .filter(|s| is_sha256(s));
    let size = file.lfs.as_ref().and_then(|l| l.size).or(file.size)?;
    let etag = match (&file.lfs, &sha256, &file.blob_id) {
        (Some(_), Some(sha256), _) => sha256.clone(),
        (None, _, Some(blob)) if is_word(blob) => blob.clone(),
        _ => return None,
    };
    (size <= MAX_FILE_BYTES).then_some(Facts { size, etag, sha256 })
}

/// Asks for a file's size, hash and commit; the headers are on the hub's own answer, before it redirects to its storage.
pub(super) fn head(
    client: &Client,
    url: &str,
    revision: &str,
    file: &str,
    cancel: &CancelToken,
) -> Result<(Facts, String)> {
    let request = Request {
        head: true,
        url: url.to_owned(),
        range: None,
        follow: Follow::SameHost,
    };
    let reply = client.ask(&request, cancel)?;
    if !matches!(reply.status, 200 | 301..=308) {
        return Err(refused(&reply, file));
    }
    let shown = shown(&reply.url);
    let linked = reply.header("x-linked-etag");
    let Some(etag) = linked.or_else(|| reply.header("etag")).map(clean_etag) else {
        return Err(Error::malformed(
            shown,
            "answer without ETag: is this a model hub?",
        ));
    };
    let size = match reply.header("x-linked-size") {
        Some(size) => size.parse().ok(),
        None if reply.status == 200 => reply.content_length(),
        None => None,
    };
    let size = size.filter(|s| *s <= MAX_FILE_BYTES);
    let Some(size) = size else {
        return Err(Error::malformed(
            shown,
            "answer without a usable size of the file",
        ));
    };
    if !is_word(&etag) {
        return Err(Error::malformed(
            shown,
            format!("ETag {etag:?} cannot be a file name"),
        ));
    }
    let commit = commit_name(reply.header("x-repo-commit").unwrap_or(revision), &shown)?;
    let sha256 = (linked.is_some() && is_sha256(&etag)).then(|| etag.clone());
    Ok((Facts { size, etag, sha256 }, commit))
}

fn clean_etag(etag: &str) -> String {
    etag.trim_start_matches("W/").trim_matches('"').to_owned()
}

fn commit_name(commit: &str, from: &str) -> Result<String> {
    if is_word(commit) && !commit.contains("..") {
        return Ok(commit.to_owned());
    }
    Err(Error::malformed(
        from,
        format!("commit {commit:?} cannot be a folder name"),
    ))
}

fn refused(reply: &Reply, file: &str) -> Error {
    Error::Http {
        url: shown(&reply.url),
        status: reply.status,
        fix: advice(reply, file),
    }
}

/// What a user can do about an error status of the hub.
pub(crate) fn advice(reply: &Reply, what: &str) -> String {
    let text = match (
        reply.header("x-error-code").unwrap_or_default(),
        reply.status,
    ) {
        ("GatedRepo", _) => {
            "the repository is gated: accept its licence on its page, then set HF_TOKEN to a token of that account"
        }
        ("RepoNotFound", _) => {
            "no such repository, or it is private: check OWNER/REPO, or set HF_TOKEN"
        }
        ("RevisionNotFound", _) => "no such branch, tag or commit: check what follows the @",
        ("EntryNotFound", _) => return format!("the repository has no {what}"),
        (_, 404) => {
            return format!("{what} is not there: check the name, and HF_ENDPOINT if you set it");
        }
        (_, 401) => "the repository may not exist, or needs a token: check the name, set HF_TOKEN",
        (_, 403) => "the token in HF_TOKEN may not read this, or the network blocks it",
        (_, 407) => "the proxy wants a login: set it in HTTPS_PROXY",
        (_, 429) => "too many requests: wait a little, or set HF_TOKEN",
        (_, 500..) => "the server has a problem: try again later",
        _ => "",
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_need_a_size_and_a_name() {
        let facts = |json: &str| facts_of(&serde_json::from_str(json).unwrap());
        let sha = "ab".repeat(32);
        let lfs = format!(
            r#"{{"rfilename":"f","size":9,"blobId":"x","lfs":{{"sha256":"{sha}","size":9}}}}"#
        );
        let expected = Facts {
            size: 9,
            etag: sha.clone(),
            sha256: Some(sha),
        };
        assert_eq!(facts(&lfs), Some(expected));
        let small = Facts {
            size: 2,
            etag: "abc".into(),
            sha256: None,
        };
        assert_eq!(
            facts(r#"{"rfilename":"f","size":2,"blobId":"abc"}"#),
            Some(small)
        );
        for missing in [
            r#"{"rfilename":"f"}"#,
            r#"{"rfilename":"f","size":2,"blobId":"../x"}"#,
            r#"{"rfilename":"f","size":1152921504606846976,"blobId":"abc"}"#,
            r#"{"rfilename":"f","size":2,"blobId":"abc","lfs":{"sha256":"zz","size":2}}"#,
        ] {
            assert_eq!(facts(missing), None, "{missing}");
        }
    }

    #[test]
    fn addresses_are_encoded() {
        assert_eq!(
            resolve_url("https://h", "o/r", "refs/pr/1", "a b/c.gguf"),
            "https://h/o/r/resolve/refs%2Fpr%2F1/a%20b/c.gguf"
        );
    }
}
