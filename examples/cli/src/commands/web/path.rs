//! From a request's target to a key of the site's table.
//!
//! No path of the file system is ever made from a request: a key is only looked up among the files that were found at start. So a
//! key that leaves the site finds nothing; refusing what cannot be a key is a second fence.

/// The key of a target: percent-decoded, no query, `/` at the end means `index.html`. `None` for what names nothing here.
pub(crate) fn key(target: &str) -> Option<String> {
    let path = target.split(['?', '#']).next()?.strip_prefix('/')?;
    let path = percent_decoded(path)?;
    let bad = |segment: &str| matches!(segment, "" | "." | "..");
    if path.is_empty() {
        return Some("index.html".to_owned());
    }
    let (folder, file) = match path.strip_suffix('/') {
        Some(folder) => (folder, "/index.html"),
        None => (path.as_str(), ""),
    };
    if folder.split('/').any(bad)
        || folder.contains(['\\', ':'])
        || folder.contains(char::is_control)
    {
        return None;
    }
    Some(format!("{folder}{file}"))
}

/// Bytes of `%XX`; `None` for a broken escape or what is not UTF-8 then.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(b) = rest.next() {
        bytes.push(match b {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            b => b,
        });
    }
    String::from_utf8(bytes).ok()
}

/// A file's name as part of an address.
pub(crate) fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(char::from(b));
            }
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        for (target, expected) in [
            ("/", "index.html"),
            ("/?a=b#c", "index.html"),
            ("/js/main.js?v=1", "js/main.js"),
            ("/models/a%20b/x.gguf", "models/a b/x.gguf"),
            ("/docs/", "docs/index.html"),
            ("/%C3%A9", "é"),
        ] {
            assert_eq!(key(target).as_deref(), Some(expected), "{target}");
        }
    }

    #[test]
    fn what_leaves_the_site_is_no_key() {
        for target in [
            "",
            "*",
            "index.html",
            "http://elsewhere/x",
            "/..",
            "/../Cargo.toml",
            "/js/../../Cargo.toml",
            "/js/..",
            "/%2e%2e/Cargo.toml",
            "/%2E%2E%2FCargo.toml",
            "/..%2fCargo.toml",
            "/..%5cCargo.toml",
            "/..\\Cargo.toml",
            "/%252e%252e/%00",
            "/a%00.html",
            "/a\nb",
            "//etc/passwd",
            "/js//main.js",
            "/./js/main.js",
            "/C:/x",
            "/%",
            "/%4",
            "/%zz",
            "/%+1",
            "/%ff",
            "//",
        ] {
            assert_eq!(key(target), None, "{target}");
        }
        assert_eq!(
            key("/%252e%252e/x").as_deref(),
            Some("%2e%2e/x"),
            "decoded once"
        );
    }

    #[test]
    fn encoding_is_undone_by_decoding() {
        let name = "a b/é%?#.gguf";
        assert_eq!(percent_encoded(name), "a%20b/%C3%A9%25%3F%23.gguf");
        assert_eq!(
            percent_decoded(&percent_encoded(name)).as_deref(),
            Some(name)
        );
    }
}
