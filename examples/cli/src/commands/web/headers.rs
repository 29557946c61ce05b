//! What every answer says beside its content: types, caching, and what a page may do.

use anyhow::{Result, bail};

/// The type of a file by its name.
pub(crate) fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, e)| e) {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("wasm") => "application/wasm",
        Some("json") => "application/json; charset=utf-8",
        Some("webmanifest") => "application/manifest+json; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        Some("txt" | "md" | "jinja") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// What a browser may keep. Models are kept by the page itself, piece by piece: a second copy in the browser's own cache
/// would only push other things out. Everything else is asked for again and mostly answered with 304.
pub(crate) fn caching(key: &str) -> &'static str {
    if key.starts_with("models/") && !key.ends_with(".json") {
        "no-store"
    } else {
        "no-cache"
    }
}

/// The Content-Security-Policy's `connect-src`: the site itself, and hosts that models may come from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connect(Vec<String>);

/// As it is in the pages, where [`Connect::in_page`] finds it.
const SELF: &str = "connect-src 'self'";

impl Connect {
    /// Hosts as `https://host` or `https://host:port`, or with a leading `*.` in the host. Fails for anything else: a policy must
    /// not be widened by a slip.
    pub(crate) fn to(hosts: &[String]) -> Result<Self> {
        for host in hosts {
            let Some(name) = host
                .strip_prefix("https://")
                .or_else(|| host.strip_prefix("http://"))
            else {
                bail!("--model-host {host}: expected https://HOST or http://HOST");
            };
            let name = name.strip_prefix("*.").unwrap_or(name);
            let fine = |c: char| c.is_ascii_alphanumeric() || "-.:[]".contains(c);
            if name.is_empty()
                || !name.contains(|c: char| c.is_ascii_alphanumeric())
                || !name.chars().all(fine)
            {
                bail!(
                    "--model-host {host}: expected only scheme, host and port, as in https://models.example:8443"
                );
            }
        }
        Ok(Connect(hosts.to_vec()))
    }

    fn source(&self) -> String {
        let mut text = SELF.to_owned();
        for host in &self.0 {
            text.push(' ');
            text.push_str(host);
        }
        text
    }

    /// A page, or the site's list, whose own policy allows these hosts, too: the strictest of header and `<meta>` holds.
    pub(crate) fn in_page(&self, text: &str) -> String {
        let hosts: Vec<String> = self.0.iter().map(|h| format!("\"{h}\"")).collect();
        text.replacen(SELF, &self.source(), 1).replacen(
            "hosts: []",
            &format!("hosts: [{}]", hosts.join(", ")),
            1,
        )
    }

    /// Whether the policy is in the file of this address.
    pub(crate) fn is_in(key: &str) -> bool {
        key.ends_with(".html") || key == "site.js"
    }

    /// The header's value. `frame-ancestors` works in a header only. Pages get Trusted Types, too: there a string can become
    /// neither markup nor code.
    pub(crate) fn policy(&self, page: bool) -> String {
        let trusted = if page {
            "; require-trusted-types-for 'script'; trusted-types default"
        } else {
            ""
        };
        format!(
            "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; \
             img-src 'self' blob: data:; media-src 'self' blob:; font-src 'self'; manifest-src 'self'; {}; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'{trusted}",
            self.source()
        )
    }
}

/// The same for every answer. The two Cross-Origin lines make the page isolated, so that wasm threads are possible; nothing
/// needs them.
pub(crate) const FIXED: [(&str, &str); 7] = [
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("X-DNS-Prefetch-Control", "off"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Embedder-Policy", "require-corp"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    (
        "Permissions-Policy",
        "camera=(self), microphone=(self), geolocation=(), payment=(), usb=(), browsing-topics=()",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        assert_eq!(content_type("engine/x.wasm"), "application/wasm");
        assert_eq!(content_type("a.mjs"), "text/javascript; charset=utf-8");
        assert_eq!(content_type("a.gguf"), "application/octet-stream");
        assert_eq!(content_type("LICENSE"), "application/octet-stream");
    }

    #[test]
    fn a_policy_is_widened_by_hosts_and_by_nothing_else() {
        let hosts = [
            "https://hub.example".to_owned(),
            "https://*.cdn.example:8443".to_owned(),
        ];
        let policy = Connect::to(&hosts).unwrap().policy(true);
        assert!(
            policy.contains("connect-src 'self' https://hub.example https://*.cdn.example:8443;"),
            "{policy}"
        );
        assert!(!Connect::default().policy(false).contains("trusted-types"));
        for bad in [
            "hub.example",
            "*",
            "https://",
            "https://*",
            "https://*.",
            "https://a; script-src *",
            "https://a b",
            "https://a/path",
            "data:",
            "https://a'b",
            "wss://a",
        ] {
            assert!(Connect::to(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
