//! Everything that can go wrong on the way from a hub.
use super::server::{Answer, Pair, RepoFile, Server, hub_answer};
use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

const SIZE: usize = 1_200_007;

fn file() -> Vec<RepoFile> {
    vec![RepoFile::large("m.gguf", noise(9, SIZE))]
}

fn slow(asked: &server::Asked, content: &[u8]) -> Answer {
    Answer {
        pause: Duration::from_millis(10),
        ..Answer::content(asked, content)
    }
}

#[test]
fn a_dropped_connection_goes_on_where_it_broke() {
    let home = Home::new();
    // Every other answer breaks off after 20,000 bytes.
    let pair = Pair::new(file(), |asked, n, content| Answer {
        cut: (n % 2 == 0).then_some(20_000),
        ..Answer::content(asked, content)
    });
    let model = get(&Resolver::new(home.options(&pair.hub.url)), "hf:o/r").unwrap();
    assert_eq!(read(model.root), noise(9, SIZE));
    // Not one byte was sent twice.
    assert_eq!(pair.storage.sent(""), SIZE);
    assert!(
        pair.storage
            .asked()
            .iter()
            .any(|a| a.range.unwrap().0 % (64 << 10) == 20_000)
    );
}

#[test]
fn a_server_that_keeps_dropping_is_given_up_and_resumed_later() {
    let home = Home::new();
    let healthy = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let switch = Arc::clone(&healthy);
    let pair = Pair::new(file(), move |asked, _, content| {
        let first = asked.range.unwrap().0;
        let cut = (!switch.load(Ordering::SeqCst)).then_some(600_000usize.saturating_sub(first));
        Answer {
            cut,
            ..Answer::content(asked, content)
        }
    });
    let resolver = Resolver::new(home.options(&pair.hub.url));
    let e = get(&resolver, "hf:o/r").unwrap_err();
    let Error::Interrupted { got, total, .. } = &e else {
        panic!("{e}")
    };
    // What was on the way when the others gave up may be lost, what was counted is not.
    assert_eq!(*total, Some(SIZE as u64));
    assert!(*got <= pair.storage.sent("") as u64);
    assert!(*got >= 500_000, "{e}");
    assert!(e.to_string().contains("run it again to resume"), "{e}");
    std::thread::sleep(Duration::from_millis(100));
    healthy.store(true, Ordering::SeqCst);
    pair.storage.forget();
    assert_eq!(read(get(&resolver, "hf:o/r").unwrap().root), noise(9, SIZE));
    // A worker of the first run may have had a request under way.
    assert!(pair.storage.sent("") as u64 <= SIZE as u64 - got / 2);
}

#[test]
fn a_cancel_is_quick_keeps_what_came_and_the_next_run_resumes() {
    let home = Home::new();
    let pair = Pair::new(file(), |asked, _, content| slow(asked, content));
    let resolver = Resolver::new(home.options(&pair.hub.url));
    let cancel = CancelToken::new();
    let mut at = Instant::now();
    let e = get_with(&resolver, "hf:o/r", &cancel, |e| {
        if e.phase == Phase::Downloading && e.bytes_done > 300_000 && !cancel.is_cancelled() {
            cancel.cancel();
            at = Instant::now();
        }
    });
    assert!(matches!(e, Err(Error::Cancelled)));
    assert!(
        at.elapsed() < Duration::from_millis(500),
        "{:?}",
        at.elapsed()
    );
    std::thread::sleep(Duration::from_millis(200));
    let before = pair.storage.sent("");
    let mut first = None;
    get_with(&resolver, "hf:o/r", &CancelToken::new(), |e| {
        if e.phase == Phase::Downloading {
            first = first.or(Some(e.bytes_done));
        }
    })
    .unwrap();
    assert!(first.unwrap() > 300_000, "{first:?}");
    let again = pair.storage.sent("") - before;
    assert_eq!(again as u64, SIZE as u64 - first.unwrap());
}

/// Not a test by itself: what `a_killed_process_is_resumed` kills.
#[test]
fn child_process() {
    let Ok(args) = std::env::var("FIRELIGHT_TEST_CHILD") else {
        return;
    };
    let (endpoint, home) = args.split_once(' ').unwrap();
    let mut options = Home::new().options(endpoint);
    options.hub.cache_dir = PathBuf::from(home).join("hf/hub");
    get(&Resolver::new(options), "hf:o/r").unwrap();
}

#[test]
fn a_killed_process_is_resumed() {
    let home = Home::new();
    let fast = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let switch = Arc::clone(&fast);
    let pair = Pair::new(file(), move |asked, _, content| {
        match switch.load(Ordering::SeqCst) {
            true => Answer::content(asked, content),
            false => Answer {
                pause: Duration::from_millis(60),
                ..Answer::content(asked, content)
            },
        }
    });
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "broken::child_process"])
        .env(
            "FIRELIGHT_TEST_CHILD",
            format!("{} {}", pair.hub.url, home.path("").display()),
        )
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while pair.storage.sent("") < 600_000 && start.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    fast.store(true, Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(200));
    pair.storage.forget();
    let model = get(&Resolver::new(home.options(&pair.hub.url)), "hf:o/r").unwrap();
    assert_eq!(read(model.root), noise(9, SIZE));
    // The last moment of progress may not have been noted.
    let again = pair.storage.sent("");
    assert!(again > 0 && again < SIZE - 200_000, "{again}");
}

#[test]
fn a_wrong_hash_is_tried_once_more_and_then_an_error_that_leaves_nothing() {
    let home = Home::new();
    let pair = Pair::new(file(), |asked, _, content| {
        let mut content = content.to_vec();
        content[777_777] ^= 1;
        Answer::content(asked, &content)
    });
    let resolver = Resolver::new(home.options(&pair.hub.url));
    let e = get(&resolver, "hf:o/r").unwrap_err();
    let Error::WrongHash {
        file,
        expected,
        got,
        ..
    } = &e
    else {
        panic!("{e}")
    };
    assert_eq!(
        (file.as_str(), expected),
        ("m.gguf", &sha256(&noise(9, SIZE)))
    );
    assert_ne!(got, expected);
    assert_eq!(pair.storage.sent(""), 2 * SIZE);
    assert_eq!(home.files("hf/hub/models--o--r"), [""; 0]);
    assert!(resolver.path("hf:o/r").is_err());
}

#[test]
fn data_wrong_once_heals_itself() {
    let home = Home::new();
    let sent = AtomicUsize::new(0);
    let pair = Pair::new(file(), move |asked, _, content| {
        let mut answer = Answer::content(asked, content);
        if sent.fetch_add(1, Ordering::SeqCst) == 0 {
            answer.body[5] ^= 0x80;
        }
        answer
    });
    let model = get(&Resolver::new(home.options(&pair.hub.url)), "hf:o/r").unwrap();
    assert_eq!(read(model.root), noise(9, SIZE));
}

#[test]
fn a_full_disk_is_told_before_the_first_byte() {
    let (home, pair) = (Home::new(), Pair::good(file()));
    let mut options = home.options(&pair.hub.url);
    let need = SIZE as u64 + options.reserve_bytes;
    options.free_space = Arc::new(move |_| Ok(need - 1));
    let e = get(&Resolver::new(options.clone()), "hf:o/r").unwrap_err();
    assert!(
        matches!(e, Error::NoSpace { needed, free, .. } if (needed, free) == (need, need - 1)),
        "{e}"
    );
    assert_eq!(pair.storage.asked().len(), 0);
    assert_eq!(home.files("hf/hub/models--o--r"), [""; 0]);
    options.free_space = Arc::new(move |_| Ok(need));
    get(&Resolver::new(options), "hf:o/r").unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_fills_up_on_the_way_is_told_apart() {
    let (home, pair) = (Home::new(), Pair::good(file()));
    let blobs = home.repo().join("blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    let part = blobs.join(sha256(&noise(9, SIZE)) + ".firelight.incomplete");
    std::os::unix::fs::symlink("/dev/full", &part).unwrap();
    let resolver = Resolver::new(home.options(&pair.hub.url));
    let e = get(&resolver, "hf:o/r").unwrap_err();
    assert!(matches!(e, Error::NoSpace { .. }), "{e}");
    std::fs::remove_file(part).unwrap();
    get(&resolver, "hf:o/r").unwrap();
}

#[test]
fn a_server_without_ranges_is_read_once() {
    let home = Home::new();
    let pair = Pair::new(file(), |asked, _, content| {
        Answer::content(
            &server::Asked {
                range: None,
                ..asked.clone()
            },
            content,
        )
    });
    let resolver = Resolver::new(home.options(&pair.hub.url));
    assert_eq!(read(get(&resolver, "hf:o/r").unwrap().root), noise(9, SIZE));
    assert_eq!(pair.storage.sent(""), SIZE);
    assert_eq!(pair.storage.asked().len(), 1);

    // It breaks off twice; only from the start can it be asked again.
    let home = Home::new();
    let pair = Pair::new(file(), |asked, n, content| Answer {
        cut: (n < 2).then_some(100_000 * (n + 1)),
        ..Answer::content(
            &server::Asked {
                range: None,
                ..asked.clone()
            },
            content,
        )
    });
    let resolver = Resolver::new(home.options(&pair.hub.url));
    assert_eq!(read(get(&resolver, "hf:o/r").unwrap().root), noise(9, SIZE));

    // It always breaks off: an error, not a loop.
    let home = Home::new();
    let pair = Pair::new(file(), |asked, _, content| Answer {
        cut: Some(150_000),
        ..Answer::content(
            &server::Asked {
                range: None,
                ..asked.clone()
            },
            content,
        )
    });
    let e = get(&Resolver::new(home.options(&pair.hub.url)), "hf:o/r").unwrap_err();
    assert!(matches!(e, Error::Interrupted { got: 150_000, .. }), "{e}");
}

#[test]
fn lengths_that_lie_are_errors() {
    type Lie = fn(&server::Asked, &[u8]) -> Answer;
    let cases: [(&str, &str, Lie); 4] = [
        ("longer file", "has 1200011 bytes", |asked, content| {
            Answer::content(asked, &[content, b"more"].concat())
        }),
        (
            "no range, other length",
            "has 1200006 bytes",
            |asked, content| {
                Answer::content(
                    &server::Asked {
                        range: None,
                        ..asked.clone()
                    },
                    &content[1..],
                )
            },
        ),
        ("range of another place", "where byte", |asked, content| {
            let range = asked.range.map(|(a, b)| (a + 1, b + 1));
            Answer::content(
                &server::Asked {
                    range,
                    ..asked.clone()
                },
                content,
            )
        }),
        ("no such range", "expected 1200007", |_, _| {
            Answer::status(416)
        }),
    ];
    for (what, expected, lie) in cases {
        let home = Home::new();
        let pair = Pair::new(file(), move |asked, _, content| lie(asked, content));
        let e = get(&Resolver::new(home.options(&pair.hub.url)), "hf:o/r").unwrap_err();
        assert!(
            matches!(e, Error::WrongSize { .. } | Error::Malformed { .. }),
            "{what}: {e}"
        );
        assert!(e.to_string().contains(expected), "{what}: {e}");
        assert_eq!(pair.storage.asked().len(), 1, "{what}");
        assert!(!home.repo().join("snapshots").exists(), "{what}");
    }
    // Less than announced is a broken connection; the rest is asked for.
    let home = Home::new();
    let pair = Pair::new(file(), |asked, n, content| {
        let mut answer = Answer::content(asked, content);
        answer.length = Some(answer.body.len());
        answer.body.truncate(if n == 0 { 10 } else { usize::MAX });
        answer
    });
    let model = get(&Resolver::new(home.options(&pair.hub.url)), "hf:o/r").unwrap();
    assert_eq!(read(model.root), noise(9, SIZE));
}

#[test]
fn a_busy_server_is_asked_again() {
    let home = Home::new();
    let files = file();
    let storage = Server::start(|asked, n| match n {
        0 => Answer::status(503),
        1 => Answer::status(429).header("Retry-After", "0"),
        _ => Answer::content(asked, &noise(9, SIZE)),
    });
    let url = storage.url.clone();
    let hub = Server::start(move |asked, n| match n {
        0 => Answer::status(500),
        _ => hub_answer(asked, &files, &url),
    });
    get(&Resolver::new(home.options(&hub.url)), "hf:o/r").unwrap();

    let home = Home::new();
    let pair = Pair::new(file(), |_, _, _| Answer::status(503));
    let e = get(&Resolver::new(home.options(&pair.hub.url)), "hf:o/r").unwrap_err();
    assert!(matches!(e, Error::Http { status: 503, .. }), "{e}");
    assert!(e.to_string().contains("try again later"), "{e}");
}

#[test]
fn an_expired_address_is_renewed() {
    let home = Home::new();
    let files = file();
    // Each address works once.
    let used = Shared::<Vec<String>>::default();
    let storage = Server::start(move |asked, _| {
        let mut used = used.lock().unwrap();
        if used.contains(&asked.path) {
            return Answer::status(403);
        }
        used.push(asked.path.clone());
        Answer::content(asked, &noise(9, SIZE))
    });
    let url = storage.url.clone();
    let hub =
        Server::start(move |asked, n| hub_answer(asked, &files, &format!("{url}/ticket-{n}")));
    let mut options = home.options(&hub.url);
    options.connections = 1;
    options.range_bytes = 400_000;
    let model = get(&Resolver::new(options), "hf:o/r");
    assert_eq!(read(model.unwrap().root), noise(9, SIZE));
    assert_eq!(storage.asked().iter().filter(|a| a.sent == 0).count(), 3);
}

#[test]
fn refusals_say_what_to_do() {
    for (status, code, expected) in [
        (401, "RepoNotFound", "HF_TOKEN"),
        (403, "GatedRepo", "accept its licence"),
        (404, "RevisionNotFound", "@"),
        (404, "RepoNotFound", "no such repository"),
        (401, "", "set HF_TOKEN"),
        (403, "", "HF_TOKEN"),
        (404, "", "HF_ENDPOINT"),
        (418, "", "418"),
    ] {
        let hub = Server::start(move |_, _| Answer::status(status).header("X-Error-Code", code));
        let e = get(&Resolver::new(Home::new().options(&hub.url)), "hf:o/r").unwrap_err();
        assert!(
            matches!(e, Error::Http { status: got, .. } if got == status),
            "{e}"
        );
        assert!(e.to_string().contains(expected), "{status} {code}: {e}");
        assert_eq!(hub.asked().len(), 1);
    }
}

#[test]
fn hostile_answers_do_not_leave_the_cache() {
    let listing = |name: &str, blob: &str, commit: &str| {
        format!(
            r#"{{"sha":"{commit}","siblings":[{{"rfilename":"{name}","size":1,"blobId":"{blob}"}}]}}"#
        )
    };
    let cases = [
        listing("../../../evil.gguf", "abc", "c0"),
        listing("/evil.gguf", "abc", "c0"),
        listing("a/../../../evil.gguf", "abc", "c0"),
        listing("evil.gguf", "abc", "../../c0"),
        listing("evil.gguf", "../../../abc", "c0"),
        "[".into(),
        "{}".into(),
        format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000)),
    ];
    for json in cases {
        let home = Home::new();
        let text = json.clone();
        let hub = Server::start(move |asked, _| match asked.path.starts_with("/api") {
            true => Answer {
                status: 200,
                body: text.clone().into_bytes(),
                ..Answer::default()
            },
            false => Answer {
                status: 200,
                body: b"x".to_vec(),
                ..Answer::default()
            }
            .header("ETag", "\"../../../abc\"")
            .header("X-Repo-Commit", "../../c0"),
        });
        let e = get(&Resolver::new(home.options(&hub.url)), "hf:o/r").unwrap_err();
        assert!(matches!(e, Error::Malformed { .. }), "{:.90}: {e}", json);
        let left = home.files("");
        assert!(left.is_empty(), "{:.90}: {left:?}", json);
    }
}

#[test]
fn redirects_end() {
    let hub = Server::start(|asked, _| Answer::redirect(asked.path.clone()));
    let e = get(&Resolver::new(Home::new().options(&hub.url)), "hf:o/r").unwrap_err();
    assert!(e.to_string().contains("redirects"), "{e}");
    let hub = Server::start(|_, _| Answer::redirect("gopher://x/y"));
    let e = get(&Resolver::new(Home::new().options(&hub.url)), "hf:o/r").unwrap_err();
    assert!(e.to_string().contains("Location"), "{e}");
}

#[test]
fn a_silent_server_is_given_up_or_cancelled() {
    let pair = Pair::new(file(), |_, _, _| {
        std::thread::sleep(Duration::from_secs(3));
        Answer::status(503)
    });
    let mut options = Home::new().options(&pair.hub.url);
    options.read_timeout = Duration::from_millis(100);
    options.retries = 1;
    let start = Instant::now();
    let e = get(&Resolver::new(options), "hf:o/r").unwrap_err();
    assert!(matches!(e, Error::Interrupted { got: 0, .. }), "{e}");
    assert!(start.elapsed() < Duration::from_secs(2));

    // While the very first question hangs.
    let hub = Server::start(|_, _| {
        std::thread::sleep(Duration::from_secs(3));
        Answer::status(503)
    });
    let (cancel, start) = (CancelToken::new(), Instant::now());
    let other = cancel.clone();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        other.cancel();
    });
    let resolver = Resolver::new(Home::new().options(&hub.url));
    assert!(matches!(
        get_with(&resolver, "hf:o/r", &cancel, |_| ()),
        Err(Error::Cancelled)
    ));
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_host_that_was_down_is_not_asked_again_at_once() {
    let server = Server::start(|_, _| Answer::status(404));
    let address = server.url.trim_start_matches("http://").to_owned();
    drop(server);
    // The thread that accepts ends with the connection that drop makes.
    let start = Instant::now();
    while std::net::TcpStream::connect(&address).is_ok() && start.elapsed().as_secs() < 5 {}
    let resolver = Resolver::new(Home::new().options(&format!("http://{address}")));
    assert!(matches!(
        get(&resolver, "hf:o/r"),
        Err(Error::Unreachable { .. })
    ));
    let Ok(listener) = std::net::TcpListener::bind(&address) else {
        panic!("port {address} was taken meanwhile");
    };
    assert!(matches!(
        get(&resolver, "hf:o/r"),
        Err(Error::Unreachable { .. })
    ));
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err());
}
