//! Repositories of a hub that behaves.
use super::server::{Answer, COMMIT, Pair, RepoFile, Server, hub_answer};
use super::*;

pub(crate) fn repository() -> Vec<RepoFile> {
    vec![
        RepoFile::small("config.json", r#"{"model_type":"llama"}"#),
        RepoFile::large("model.safetensors", noise(1, 3_000_001)),
        RepoFile::small("README.md", "not fetched"),
        RepoFile::small("tokenizer.json", "{}"),
        RepoFile::small("empty.json", ""),
    ]
}

#[test]
fn a_repository_is_fetched_once_into_the_standard_layout() {
    let (home, pair) = (Home::new(), Pair::good(repository()));
    let resolver = Resolver::new(home.options(&pair.hub.url));
    let model = get(&resolver, "hf:o/r").unwrap();
    let snapshot = home.repo().join("snapshots").join(COMMIT);
    assert_eq!(model.root, snapshot);
    assert_eq!(model.licence.as_deref(), Some("mit"));
    assert_eq!(model.files.len(), 4);
    assert_eq!(
        read(snapshot.join("model.safetensors")),
        noise(1, 3_000_001)
    );
    assert_eq!(read(snapshot.join("empty.json")), b"");
    assert!(!snapshot.join("README.md").exists());
    assert_eq!(read(home.repo().join("refs/main")), COMMIT.as_bytes());
    let blobs = home.files("hf/hub/models--o--r/blobs");
    assert_eq!(blobs.len(), 4, "{blobs:?}");
    #[cfg(unix)]
    {
        let link = std::fs::read_link(snapshot.join("model.safetensors")).unwrap();
        let etag = sha256(&noise(1, 3_000_001));
        assert_eq!(link, Path::new("../../blobs").join(etag));
    }
    assert_eq!(pair.storage.sent("model"), 3_000_001);

    pair.hub.forget();
    pair.storage.forget();
    get(&resolver, "hf:o/r").unwrap();
    // Only the question which commit `main` is now.
    assert_eq!(pair.hub.asked().len(), 1);
    assert_eq!(pair.storage.asked().len(), 0);
    // A file of a commit never changes: no question at all.
    get(&resolver, &format!("hf:o/r/model.safetensors@{COMMIT}")).unwrap();
    assert_eq!(pair.hub.asked().len(), 1);
    assert_eq!(resolver.path("hf:o/r").unwrap(), snapshot);
}

#[test]
fn ranges_are_fetched_in_parallel_and_cover_the_file_once() {
    let (home, size) = (Home::new(), 1_000_003);
    let pair = Pair::new(
        vec![RepoFile::large("m.gguf", noise(2, size))],
        |asked, _, content| Answer {
            pause: Duration::from_millis(5),
            ..Answer::content(asked, content)
        },
    );
    let model = get(&Resolver::new(home.options(&pair.hub.url)), "hf:o/r/m.gguf").unwrap();
    assert_eq!(read(model.root), noise(2, size));
    let mut ranges = pair
        .storage
        .asked()
        .iter()
        .map(|a| a.range.unwrap())
        .collect::<Vec<_>>();
    ranges.sort();
    assert!(ranges.len() > 4);
    assert_eq!(ranges[0].0, 0);
    assert!(
        ranges.windows(2).all(|w| w[0].1 + 1 == w[1].0),
        "{ranges:?}"
    );
    assert_eq!(pair.storage.sent(""), size);
}

#[test]
fn the_token_goes_to_the_hub_and_nowhere_else() {
    let (home, files) = (Home::new(), repository());
    let storage = Server::start(|asked, _| Answer::content(asked, &noise(1, 3_000_001)));
    let url = storage.url.clone();
    let hub = Server::start(move |asked, _| match asked.path.strip_prefix("/moved") {
        // The repository has a new name: a redirect on the same host.
        None if asked.path.starts_with("/o/r/") => {
            Answer::redirect(format!("/moved{}", asked.path))
        }
        rest => {
            let path = rest.unwrap_or(&asked.path).to_owned();
            hub_answer(
                &server::Asked {
                    path,
                    ..asked.clone()
                },
                &files,
                &url,
            )
        }
    });
    let options = home.options_with(&hub.url, &[("HF_TOKEN", "secret")]);
    get(&Resolver::new(options), "hf:o/r").unwrap();
    assert!(hub.asked().iter().any(|a| a.path.starts_with("/moved")));
    assert!(
        hub.asked()
            .iter()
            .all(|a| a.authorization.as_deref() == Some("Bearer secret"))
    );
    assert!(!storage.asked().is_empty());
    assert!(storage.asked().iter().all(|a| a.authorization.is_none()));
}

#[test]
fn offline_means_the_cache_or_a_clear_error() {
    let (home, pair) = (Home::new(), Pair::good(repository()));
    let offline = || Resolver::new(home.options_with(&pair.hub.url, &[("HF_HUB_OFFLINE", "1")]));
    let e = get(&offline(), "hf:o/r").unwrap_err();
    assert!(matches!(e, Error::Offline { .. }));
    assert!(
        e.to_string().contains("HF_HUB_OFFLINE") && e.to_string().contains("hf:o/r"),
        "{e}"
    );
    get(&Resolver::new(home.options(&pair.hub.url)), "hf:o/r").unwrap();
    pair.hub.forget();
    let model = get(&offline(), "hf:o/r").unwrap();
    assert_eq!(model.files.len(), 4);
    assert!(
        model
            .sha256
            .iter()
            .flatten()
            .any(|s| *s == sha256(&noise(1, 3_000_001)))
    );
    assert!(get(&offline(), "hf:o/r/model.safetensors").is_ok());
    assert!(get(&offline(), "hf:o/r@other").is_err());
    assert_eq!(pair.hub.asked().len(), 0);
    // No server at all: the cache again, and without it the host is named.
    let gone = Resolver::new(home.options("http://127.0.0.1:9"));
    assert_eq!(get(&gone, "hf:o/r").unwrap().files.len(), 4);
    let e = get(
        &Resolver::new(Home::new().options("http://127.0.0.1:9")),
        "hf:o/r",
    )
    .unwrap_err();
    assert!(
        matches!(&e, Error::Unreachable { host, .. } if host.contains("127.0.0.1:9")),
        "{e}"
    );
}

#[test]
fn what_the_hubs_own_client_left_is_found_and_taken_over() {
    let (home, content) = (Home::new(), noise(3, 500_000));
    let pair = Pair::good(vec![RepoFile::large("sub/m.gguf", content.clone())]);
    let blobs = home.repo().join("blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(
        blobs.join(sha256(&content) + ".incomplete"),
        &content[..400_000],
    )
    .unwrap();
    let resolver = Resolver::new(home.options(&pair.hub.url));
    let model = get(&resolver, "hf:o/r/sub/m.gguf").unwrap();
    assert_eq!(read(&model.root), content);
    assert_eq!(pair.storage.sent(""), 100_000);

    // A finished download, laid out by hand as that client does it.
    #[cfg(unix)]
    {
        let home = Home::new();
        let repo = home.repo();
        for dir in ["blobs", "refs", "snapshots/c0ffee/sub"] {
            std::fs::create_dir_all(repo.join(dir)).unwrap();
        }
        std::fs::write(repo.join("blobs/abc"), b"weights").unwrap();
        std::fs::write(repo.join("refs/main"), "c0ffee").unwrap();
        let link = repo.join("snapshots/c0ffee/sub/m.gguf");
        std::os::unix::fs::symlink("../../../blobs/abc", link).unwrap();
        let options = home.options_with("http://127.0.0.1:9", &[("HF_HUB_OFFLINE", "1")]);
        let model = get(&Resolver::new(options), "hf:o/r/sub/m.gguf").unwrap();
        assert_eq!(read(model.root), b"weights");
    }
}

#[test]
fn a_new_commit_shares_the_blobs_and_removal_keeps_what_is_shared() {
    let home = Home::new();
    let files = repository();
    let pair = Pair::good(files.clone());
    let resolver = Resolver::new(home.options(&pair.hub.url));
    get(&resolver, "hf:o/r").unwrap();
    let url = pair.storage.url.clone();
    let newer = "f".repeat(40);
    let commit = newer.clone();
    let hub = Server::start(move |asked, _| {
        let mut answer = hub_answer(asked, &files, &url);
        let text = String::from_utf8_lossy(&answer.body).replace(COMMIT, &commit);
        answer.body = text.into_bytes();
        answer
    });
    pair.storage.forget();
    let resolver = Resolver::new(home.options(&hub.url));
    let model = get(&resolver, "hf:o/r").unwrap();
    assert!(model.root.ends_with(&newer));
    assert_eq!(pair.storage.asked().len(), 0);
    // The old commit still uses the blobs.
    assert_eq!(resolver.remove("hf:o/r").unwrap(), 0);
    let old = format!("hf:o/r@{COMMIT}");
    assert_eq!(
        read(resolver.path(&old).unwrap().join("model.safetensors")),
        noise(1, 3_000_001)
    );
    assert!(resolver.remove(&old).unwrap() >= 3_000_001);
    assert_eq!(home.files("hf/hub/models--o--r/blobs").len(), 0);
    assert_eq!(resolver.remove(&old).unwrap(), 0);
}

#[test]
fn two_at_once_fetch_once() {
    let home = Home::new();
    let pair = Pair::new(
        vec![RepoFile::large("m.gguf", noise(4, 400_000))],
        |asked, _, content| Answer {
            pause: Duration::from_millis(20),
            ..Answer::content(asked, content)
        },
    );
    let waited = Shared::<usize>::default();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                // A resolver each, as in two processes.
                let resolver = Resolver::new(home.options(&pair.hub.url));
                let model = get_with(&resolver, "hf:o/r/m.gguf", &CancelToken::new(), |e| {
                    *waited.lock().unwrap() += usize::from(e.phase == Phase::Waiting);
                });
                assert_eq!(read(model.unwrap().root), noise(4, 400_000));
            });
        }
    });
    assert_eq!(pair.storage.sent(""), 400_000);
    assert!(*waited.lock().unwrap() > 0);
}

#[test]
fn split_gguf_and_folders() {
    let (home, a, b) = (Home::new(), noise(5, 1000), noise(6, 999));
    let pair = Pair::good(vec![
        RepoFile::large("q/m-00001-of-00002.gguf", a),
        RepoFile::large("q/m-00002-of-00002.gguf", b.clone()),
        RepoFile::small("d/config.json", "{}"),
        RepoFile::large("d/model.safetensors", noise(7, 10)),
    ]);
    let resolver = Resolver::new(home.options(&pair.hub.url));
    let model = get(&resolver, "hf:o/r/q").unwrap();
    assert_eq!(model.files.len(), 2);
    assert_eq!(model.root, model.files[0]);
    assert_eq!(read(&model.files[1]), b);
    // The same files by path.
    let local = get(&resolver, model.root.to_str().unwrap()).unwrap();
    assert_eq!(local.files, model.files);
    std::fs::remove_file(&model.files[1]).unwrap();
    let e = get(&resolver, model.root.to_str().unwrap()).unwrap_err();
    assert!(e.to_string().contains("m-00002-of-00002.gguf"), "{e}");
    let folder = get(&resolver, "hf:o/r/d").unwrap();
    assert!(folder.root.is_dir() && folder.files.len() == 2);
}
