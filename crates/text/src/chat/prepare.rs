//! `{% generation %}` … `{% endgeneration %}`: marks what the assistant wrote, for training. For the text
//! it only opens a scope, so it becomes `{% with %}` … `{% endwith %}`, whitespace control and all.

use std::borrow::Cow;

/// The source with generation blocks rewritten.
pub(super) fn rewrite_generation(source: &str) -> Cow<'_, str> {
    if !source.contains("generation") {
        return Cow::Borrowed(source);
    }
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    let mut raw = false;
    while let Some(at) = rest.find('{') {
        let (before, tail) = rest.split_at(at);
        out.push_str(before);
        let Some(end) = tag_end(tail, raw) else {
            out.push('{');
            rest = tail.get(1..).unwrap_or_default();
            continue;
        };
        let (tag, after) = tail.split_at(end);
        rest = after;
        match statement(tag) {
            Some("raw") => raw = true,
            Some("endraw") => raw = false,
            Some(word @ "generation") if !raw => {
                out.push_str(&tag.replacen(word, "with", 1));
                continue;
            }
            Some(word @ "endgeneration") if !raw => {
                out.push_str(&tag.replacen(word, "endwith", 1));
                continue;
            }
            _ => {}
        }
        out.push_str(tag);
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The length of the tag, expression or comment that `text` begins with. In a raw block only
/// statements count.
fn tag_end(text: &str, raw: bool) -> Option<usize> {
    let (close, strings) = match text.as_bytes().get(1)? {
        b'%' => ("%}", !raw),
        b'{' if !raw => ("}}", true),
        b'#' if !raw => ("#}", false),
        _ => return None,
    };
    let bytes = text.as_bytes();
    let mut at = 2;
    let mut quote = None;
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(q), b) if q == b => quote = None,
            (None, b @ (b'"' | b'\'')) if strings => quote = Some(b),
            (None, _) if bytes[at..].starts_with(close.as_bytes()) => return Some(at + 2),
            _ => {}
        }
        at += 1;
    }
    None
}

/// The only word of `{% word %}`.
fn statement(tag: &str) -> Option<&str> {
    let inner = tag.strip_prefix("{%")?.strip_suffix("%}")?;
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    let inner = inner.strip_suffix(['-', '+']).unwrap_or(inner);
    let word = inner.trim();
    (!word.is_empty() && word.bytes().all(|b| b.is_ascii_alphabetic())).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_real_blocks() {
        for (source, expected) in [
            (
                "a{%- generation -%}b{% endgeneration %}c",
                "a{%- with -%}b{% endwith %}c",
            ),
            (
                "{%+generation%}{{x}}{%endgeneration-%}",
                "{%+with%}{{x}}{%endwith-%}",
            ),
            ("{# {% generation %} #}x", "{# {% generation %} #}x"),
            ("{{ '{% generation %}' }}", "{{ '{% generation %}' }}"),
            (
                "{{ 'it\\'s }} {% generation %}' }}",
                "{{ 'it\\'s }} {% generation %}' }}",
            ),
            (
                "{% raw %}{% generation %}{% endraw %}",
                "{% raw %}{% generation %}{% endraw %}",
            ),
            (
                "{% if add_generation_prompt %}{",
                "{% if add_generation_prompt %}{",
            ),
            ("generation {% generation", "generation {% generation"),
            ("{é{% generation %}", "{é{% with %}"),
        ] {
            assert_eq!(rewrite_generation(source), expected);
        }
    }
}
