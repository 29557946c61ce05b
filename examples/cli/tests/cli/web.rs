//! `firelight web`: what a browser, and somebody who is no browser, gets from it.

use crate::common::{arg, firelight, fixture, run};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Child;

/// A site as small as can be. Beside it lies a file that nobody may get.
fn site() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = dir.path().join("site").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    put("index.html", "<meta content=\"connect-src 'self'; x\">");
    put("site.js", "{ version: \"1\", hosts: [], files: [] }");
    put("sw.js", "1");
    put("engine/engine.wasm", "\0asm");
    put("digits.bin", "0123456789");
    put("empty.bin", "");
    put(".hidden", "secret");
    std::fs::write(dir.path().join("secret.txt"), "secret").unwrap();
    dir
}

/// The program, serving; it ends when this does.
struct Serving {
    child: Child,
    address: SocketAddr,
    models: Vec<String>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(dir: &Path, more: &[&str]) -> Serving {
    let site = dir.join("site");
    let args = [
        &["web", "--port", "0", "--json", "--site", arg(&site)][..],
        more,
    ]
    .concat();
    let mut child = firelight(&args).spawn().expect("the program starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let json: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e} in {line:?}"));
    let url = json["url"].as_str().unwrap();
    let address = url
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .parse()
        .unwrap();
    let models = json["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m.as_str().unwrap().to_owned())
        .collect();
    Serving {
        child,
        address,
        models,
    }
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|l| l.split_once(": "))
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v)
    }
}

impl Serving {
    /// Sends bytes as they are and reads until the other side hangs up.
    fn raw(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(std::time::Duration::from_secs(20)))
            .unwrap();
        stream.write_all(request).unwrap();
        let mut all = Vec::new();
        // A server that hangs up on what it has not read resets the connection: what came before counts.
        let _ = stream.read_to_end(&mut all);
        all
    }

    fn send(&self, request: &str) -> Answer {
        let all = self.raw(request.as_bytes());
        let end = all
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .unwrap_or_else(|| panic!("no answer to {request:?}"));
        let head = String::from_utf8(all[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer {
            status,
            head,
            body: all[end + 4..].to_vec(),
        }
    }

    fn ask(&self, method: &str, target: &str, headers: &str) -> Answer {
        self.send(&format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}\r\n",
            self.address
        ))
    }

    fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, "")
    }
}

#[test]
fn the_site_has_types_and_a_strict_policy() {
    let dir = site();
    let server = serve(dir.path(), &["--model-host", "https://models.example"]);
    for (target, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/index.html?x=1", "text/html; charset=utf-8"),
        ("/sw.js", "text/javascript; charset=utf-8"),
        ("/engine/engine.wasm", "application/wasm"),
        ("/digits.bin", "application/octet-stream"),
    ] {
        let a = server.get(target);
        assert_eq!(
            (a.status, a.header("content-type")),
            (200, Some(kind)),
            "{target}"
        );
        assert_eq!(
            a.header("content-length"),
            Some(a.body.len().to_string().as_str()),
            "{target}"
        );
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-embedder-policy", "require-corp"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-cache"),
        ] {
            assert_eq!(a.header(name), Some(value), "{target}");
        }
        let policy = a.header("content-security-policy").unwrap();
        assert!(
            policy.contains("default-src 'none'; script-src 'self' 'wasm-unsafe-eval';"),
            "{policy}"
        );
        assert!(
            policy.contains("connect-src 'self' https://models.example;"),
            "{policy}"
        );
        assert!(
            !policy.contains("unsafe-inline")
                && !policy.contains("'unsafe-eval'")
                && !policy.contains('*'),
            "{policy}"
        );
    }
    let page = String::from_utf8(server.get("/").body).unwrap();
    assert!(
        page.contains("connect-src 'self' https://models.example;"),
        "{page}"
    );
    let list = String::from_utf8(server.get("/site.js").body).unwrap();
    assert!(
        list.contains("hosts: [\"https://models.example\"],"),
        "{list}"
    );
    let bad = run(&["web", "--model-host", "https://a; script-src *"]).ended(1);
    assert!(bad.err.contains("--model-host"), "{}", bad.err);
}

#[test]
fn nothing_outside_of_the_site_can_be_had() {
    let dir = site();
    let server = serve(dir.path(), &[]);
    assert_eq!(server.get("/digits.bin").status, 200);
    for target in [
        "/../secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e/secret.txt",
        "/engine/../../secret.txt",
        "/engine/..%2f..%2fsecret.txt",
        "/..%5csecret.txt",
        "/..\\secret.txt",
        "//secret.txt",
        "/%252e%252e/secret.txt",
        "/./../secret.txt",
        "/secret.txt",
        "/.hidden",
        "/site/index.html",
        "/etc/passwd",
        "//etc/passwd",
        "/file:///etc/passwd",
        "http://x/../secret.txt",
        "/%00",
        "/%ff",
        "/%",
        "/engine",
        "/engine/",
        "*",
    ] {
        let a = server.get(target);
        assert!([400, 404].contains(&a.status), "{target}: {}", a.status);
        assert!(
            !a.body.windows(6).any(|w| w == b"secret" || w == b"root:x"),
            "{target}"
        );
    }
    // A link out of the site's folder is the owner's own doing, and is followed; one made later is not in the table.
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(
            dir.path().join("secret.txt"),
            dir.path().join("site/later.txt"),
        )
        .unwrap();
        assert_eq!(server.get("/later.txt").status, 404);
    }
}

#[test]
fn ranges_and_tags() {
    let dir = site();
    let server = serve(dir.path(), &[]);
    let range = |value: &str, more: &str| {
        server.ask("GET", "/digits.bin", &format!("Range: {value}\r\n{more}"))
    };
    for (value, bytes, shown) in [
        ("bytes=0-3", "0123", "bytes 0-3/10"),
        ("bytes=8-", "89", "bytes 8-9/10"),
        ("bytes=-1", "9", "bytes 9-9/10"),
        ("bytes=9-999999999999999999999999", "9", "bytes 9-9/10"),
    ] {
        let a = range(value, "");
        assert_eq!(
            (a.status, a.body.as_slice(), a.header("content-range")),
            (206, bytes.as_bytes(), Some(shown)),
            "{value}"
        );
        assert_eq!(
            a.header("content-length"),
            Some(bytes.len().to_string().as_str())
        );
    }
    for value in [
        "bytes=10-",
        "bytes=10-10",
        "bytes=-0",
        "bytes=99999999999999999999999999-",
    ] {
        let a = range(value, "");
        assert_eq!(
            (a.status, a.header("content-range"), a.body.len()),
            (416, Some("bytes */10"), 0),
            "{value}"
        );
    }
    for value in [
        "bytes=3-1",
        "bytes=a-b",
        "bytes=",
        "lines=1-2",
        "bytes=0-1,3-4",
        "bytes=0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0",
    ] {
        let a = range(value, "");
        assert_eq!(
            (a.status, a.body.as_slice()),
            (200, &b"0123456789"[..]),
            "{value}"
        );
    }
    assert_eq!(
        server
            .ask("GET", "/empty.bin", "Range: bytes=0-\r\n")
            .status,
        416
    );

    let tag = server.get("/digits.bin").header("etag").unwrap().to_owned();
    assert_eq!(
        range("bytes=1-1", &format!("If-Range: {tag}\r\n")).status,
        206
    );
    for other in [
        "\"x\"",
        "Wed, 21 Oct 2015 07:28:00 GMT",
        &format!("W/{tag}"),
    ] {
        assert_eq!(
            range("bytes=1-1", &format!("If-Range: {other}\r\n")).status,
            200,
            "{other}"
        );
    }
    for name in ["/digits.bin", "/"] {
        let tag = server.get(name).header("etag").unwrap().to_owned();
        let a = server.ask("GET", name, &format!("If-None-Match: {tag}\r\n"));
        assert_eq!((a.status, a.body.len()), (304, 0), "{name}");
    }
    std::fs::write(dir.path().join("site/digits.bin"), "9876543210!").unwrap();
    let a = range("bytes=1-1", &format!("If-Range: {tag}\r\n"));
    assert_eq!(
        (a.status, a.body.as_slice()),
        (200, &b"9876543210!"[..]),
        "another version is not continued"
    );

    let head = server.ask("HEAD", "/digits.bin", "Range: bytes=0-0\r\n");
    assert_eq!(
        (head.status, head.header("content-length"), head.body.len()),
        (200, Some("11"), 0)
    );
}

#[test]
fn whoever_is_no_browser_of_this_machine_is_refused() {
    let dir = site();
    let server = serve(dir.path(), &[]);
    for (request, status) in [
        (
            "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            405,
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            405,
        ),
        (
            "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc",
            413,
        ),
        (
            "GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            413,
        ),
        // A page elsewhere whose name was made to point to this machine.
        (
            "GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
            421,
        ),
        (
            "GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
            400,
        ),
        ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
        ("\x16\x03\x01 TLS\r\n\r\n", 400),
    ] {
        assert_eq!(server.send(request).status, status, "{request:?}");
    }
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(40_000));
    assert!(
        String::from_utf8_lossy(&server.raw(long.as_bytes())).starts_with("HTTP/1.1 431")
            || server.get("/").status == 200
    );
    // Two requests in one packet, both answered, on one connection.
    let two = b"GET /sw.js HTTP/1.1\r\nHost: localhost\r\n\r\nGET /digits.bin HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close\r\n\r\n";
    let text = String::from_utf8(server.raw(two)).unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2, "{text}");
    assert!(text.ends_with("0123456789"));
}

#[test]
fn the_model_in_the_program_is_offered_without_a_download() {
    let dir = site();
    let server = serve(dir.path(), &[]);
    let name = "firelight-spark";
    assert!(
        server.models.iter().any(|m| m == name),
        "{:?}",
        server.models
    );
    let manifest = server.get(&format!("/models/{name}/manifest.json"));
    let manifest: Value = serde_json::from_slice(&manifest.body).unwrap();
    assert_eq!(manifest["family"], "smolvlm");
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/spark/model");
    let files = manifest["files"].as_array().unwrap();
    assert!(files.len() >= 8);
    for file in files {
        let name = file["name"].as_str().unwrap();
        let a = server.get(&format!("/models/firelight-spark/{name}"));
        let expected = std::fs::read(Path::new(own).join(name)).unwrap();
        assert!(a.status == 200 && a.body == expected, "{name}");
        assert_eq!(file["size"], expected.len());
    }
}

#[test]
fn models_of_a_folder_are_listed_with_their_hashes() {
    let dir = site();
    let models = dir.path().join("models");
    std::fs::create_dir(&models).unwrap();
    std::fs::write(models.join("My Model.gguf"), vec![1; 5]).unwrap();
    for part in 1..=2 {
        std::fs::write(
            models.join(format!("split-0000{part}-of-00002.gguf")),
            vec![part; 7],
        )
        .unwrap();
    }
    std::fs::write(models.join("notes.txt"), "private").unwrap();
    let llama = fixture("llama");
    let whisper = fixture("whisper");
    // A folder in CTranslate2's layout, of which nothing can be read.
    let packed = dir.path().join("packed");
    std::fs::create_dir(&packed).unwrap();
    std::fs::write(packed.join("model.bin"), "weights").unwrap();
    std::fs::write(packed.join("config.json"), "{}").unwrap();
    let from = [&models, &llama, &whisper, &packed].map(|d| ["--dir", arg(d)]);
    let server = serve(dir.path(), from.as_flattened());
    let names = ["my-model", "split", "llama", "whisper", "packed"];
    assert_eq!(server.models, names);
    let index: Value = serde_json::from_slice(&server.get("/models/index.json").body).unwrap();
    assert_eq!(
        index["models"][0]["files"][0]["url"],
        "my-model/My%20Model.gguf"
    );
    assert_eq!(index["models"][1]["files"].as_array().unwrap().len(), 2);
    let tiny = &index["models"][2];
    assert_eq!(
        (tiny["family"].as_str(), tiny["task"].as_str()),
        (Some("llama"), Some("chat"))
    );
    assert_eq!(tiny["files"][0]["name"], "config.json");
    assert_eq!(index["models"][3]["task"], "transcribe");
    let files = index["models"][4]["files"].as_array().unwrap();
    assert_eq!(
        (files.len(), files[1]["name"].as_str()),
        (2, Some("model.bin"))
    );
    let manifest: Value =
        serde_json::from_slice(&server.get("/models/llama/manifest.json").body).unwrap();
    for file in manifest["files"].as_array().unwrap() {
        let a = server.get(&format!("/models/llama/{}", file["url"].as_str().unwrap()));
        assert_eq!(
            (a.status, file["size"].as_u64()),
            (200, Some(a.body.len() as u64))
        );
        assert_eq!(
            file["chunks"].as_array().unwrap().len(),
            a.body.len().div_ceil(4 << 20)
        );
        let same = a.body == std::fs::read(llama.join(file["name"].as_str().unwrap())).unwrap();
        assert!(same, "{}", file["name"]);
    }
    let a = server.get("/models/my-model/My%20Model.gguf");
    assert_eq!(
        (a.status, a.header("cache-control"), a.body.as_slice()),
        (200, Some("no-store"), &[1; 5][..])
    );
    assert_eq!(server.get("/models/my-model/notes.txt").status, 404);
    let nothing = run(&[
        "web",
        "--site",
        arg(&dir.path().join("site")),
        "--dir",
        arg(&dir.path().join("site")),
    ])
    .ended(1);
    assert!(nothing.err.contains("no model in it"), "{}", nothing.err);
}

#[test]
fn an_export_is_a_site_of_its_own() {
    let dir = site();
    let out = dir.path().join("out");
    let (from, llama) = (dir.path().join("site"), fixture("llama"));
    let export = |to: &Path| {
        run(&[
            "web",
            "--site",
            arg(&from),
            "--dir",
            arg(&llama),
            "--export",
            arg(to),
            "--json",
            "--model-host",
            "https://a.example",
        ])
    };
    let json = export(&out).ended(0).last();
    assert_eq!(
        (json["type"].as_str(), &json["models"][0]),
        (Some("exported"), &"llama".into())
    );
    let headers = std::fs::read_to_string(out.join("_headers")).unwrap();
    assert!(
        headers.contains("connect-src 'self' https://a.example;"),
        "{headers}"
    );
    assert!(
        std::fs::read_to_string(out.join("index.html"))
            .unwrap()
            .contains("https://a.example")
    );
    // It can be written again, and be served with the models that are in it.
    export(&out).ended(0);
    std::fs::rename(&from, dir.path().join("gone")).unwrap();
    std::fs::rename(&out, &from).unwrap();
    let server = serve(dir.path(), &[]);
    let index: Value = serde_json::from_slice(&server.get("/models/index.json").body).unwrap();
    assert_eq!(index["models"][0]["name"], "llama");
    assert_eq!(
        server.get("/models/llama/config.json").body,
        std::fs::read(llama.join("config.json")).unwrap()
    );
    // A folder that is no site is left alone.
    let precious = dir.path().join("precious");
    std::fs::create_dir(&precious).unwrap();
    std::fs::write(precious.join("letter.txt"), "dear").unwrap();
    let refused = run(&["web", "--site", arg(&from), "--export", arg(&precious)]).ended(1);
    assert!(refused.err.contains("not empty"), "{}", refused.err);
    assert_eq!(std::fs::read_dir(&precious).unwrap().count(), 1);
}

#[test]
fn without_a_site_it_says_how_to_get_one() {
    let dir = tempfile::tempdir().unwrap();
    let ran = run(&["web", "--site", arg(dir.path())]).ended(1);
    assert!(ran.err.contains("scripts/build_web.sh"), "{}", ran.err);
}
