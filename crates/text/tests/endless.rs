//! Templates made to run without end or to fill the memory: a clear error, soon. Alone in its process, whose memory is looked at.

use std::time::{Duration, Instant};

use firelight_text::{ChatInput, ChatTemplate, Error, Message};

/// What a template may take here; tests run unoptimised, beside others.
const SOON: Duration = Duration::from_secs(20);

/// The most memory this process has had, in MiB, where the system says so.
fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace()
        .nth(1)?
        .parse::<u64>()
        .ok()
        .map(|kib| kib / 1024)
}

fn render(source: &str) -> firelight_text::Result<String> {
    let messages = [Message::user("Hi"), Message::assistant("Hello")];
    ChatTemplate::new(source)?.render(&ChatInput {
        messages: &messages,
        ..ChatInput::default()
    })
}

#[test]
fn templates_without_end() {
    let double = "{% set s = s ~ s %}".repeat(60);
    let nest = "{% set l = [l, l] %}".repeat(60);
    let zip = "{% set l = l | zip(l) | list %}".repeat(60);
    let deep_list = format!("{{{{ {}1{} }}}}", "[".repeat(5000), "]".repeat(5000));
    let parens = format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000));
    let ifs = format!(
        "{}x{}",
        "{% if true %}".repeat(3000),
        "{% endif %}".repeat(3000)
    );
    let raw = "r".repeat(50_000);
    let many = (0..3000)
        .map(|_| "'x' * 1000000")
        .collect::<Vec<_>>()
        .join(", ");
    let loops =
        "{% for a in range(100000) %}{% for b in range(100000) %}{% for c in range(100000) %}";
    let ends = "{% endfor %}{% endfor %}{% endfor %}";
    let cases: Vec<(&str, String)> = vec![
        ("an endless loop", format!("{loops}{ends}")),
        ("a gigabyte of output", format!("{loops}{{{{ 'x' * 1000 }}}}{ends}")),
        ("a gigabyte of plain text", format!("{loops}{raw}{ends}")),
        ("captured plain text", format!("{{% set x %}}{loops}{raw}{ends}{{% endset %}}")),
        ("captured in a macro", format!("{{% macro m() %}}{loops}{raw}{ends}{{% endmacro %}}{{{{ m() | length }}}}")),
        ("doubling text", format!("{{% set s = 'x' %}}{double}{{{{ s | length }}}}")),
        ("doubling with +", format!("{{% set s = 'x' %}}{}", double.replace('~', "+"))),
        ("doubling a list", format!("{{% set s = [1] %}}{}", double.replace('~', "+"))),
        ("doubling in a namespace", format!("{{% set n = namespace(s='x') %}}{}", "{% set n.s = n.s ~ n.s %}".repeat(60))),
        ("a list in itself twice", format!("{{% set l = [1] %}}{nest}{{{{ l }}}}")),
        ("the same, compared", format!("{{% set l = [1] %}}{nest}{{{{ l == [l] }}}}")),
        ("the same as JSON", format!("{{% set l = [1] %}}{nest}{{{{ l | tojson }}}}")),
        ("zipped with itself", format!("{{% set l = [1] %}}{zip}{{{{ l }}}}")),
        ("a namespace in itself", "{% set n = namespace() %}{% set n.n = n %}{{ n }}".into()),
        ("a namespace in a list in itself", "{% set n = namespace() %}{% set n.n = [n] %}{{ n }}".into()),
        ("a very deep list", "{% set n = namespace(l=[]) %}{% for i in range(100000) %}{% set n.l = [n.l] %}{% endfor %}".into()),
        ("slices of slices", "{% set n = namespace(l=messages) %}{% for i in range(100000) %}{% set n.l = (n.l | reverse)[0:] %}{% endfor %}{{ n.l | length }}!{{ 1 / 0 }}".into()),
        ("a repeated text", "{{ 'x' * 100000000000 }}".into()),
        ("many repeated texts", format!("{{{{ [{many}] | length }}}}")),
        ("a repeated list", "{{ ([1] * 100000000000) | length }}".into()),
        ("replace squared", "{% set s = 'x' * 1000000 %}{{ s | replace('x', s) | length }}".into()),
        ("replace squared, method", "{% set s = 'x' * 1000000 %}{{ s.replace('x', s) | length }}".into()),
        ("join squared", "{% set s = 'x' * 1000000 %}{{ (['a'] * 100000) | join(s) | length }}".into()),
        ("join squared, method", "{% set s = 'x' * 1000000 %}{{ s.join('ab' * 100000) | length }}".into()),
        ("a wide indent", "{{ ('a\n' * 100000) | indent(1000000) | length }}".into()),
        ("a wide format", "{{ '%999999999d' % 1 }}".into()),
        ("a wide format, method", "{{ '{:999999999}'.format(1) }}".into()),
        ("a wide format, filter", "{{ '%999999999d' | format(1) }}".into()),
        ("padding", "{{ 'x'.ljust(99999999999) }}".into()),
        ("batches", "{{ [1] | batch(99999999999, 'x') | list | length }}".into()),
        ("slices", "{{ [1] | slice(99999999999) | list | length }}".into()),
        ("a macro that calls itself", "{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}".into()),
        ("a macro that doubles", "{% macro m(x) %}{{ m(x ~ x) }}{% endmacro %}{{ m('x') }}".into()),
        ("a recursive loop", "{% for x in [[[]]] recursive %}{{ loop([x]) }}{% endfor %}".into()),
        ("a template in itself", "{% include 'chat_template' %}".into()),
        ("a template from itself", "{% extends 'chat_template' %}".into()),
        ("imported from itself", "{% import 'chat_template' as t %}{{ t }}".into()),
        ("a filter in map", "{{ (['x' * 1000000] * 1000) | map('upper') | map('replace', 'X', 'yyyy') | join | length }}".into()),
        ("nested brackets", deep_list),
        ("nested parentheses", parens),
        ("nested conditions", ifs.clone() + "{{ 1 / 0 }}"),
        ("a long source", "{{ 1 }}".repeat(1 << 18)),
        ("many uppers", "{% set s = 'x' * 1000000 %}{% for i in range(100000) %}{% if s | upper == s %}{% endif %}{% endfor %}".into()),
        ("many comparisons", "{% set l = range(100000) | list %}{% for i in l %}{% if l == i %}{% endif %}{% endfor %}{{ l | unique | length / 0 }}".into()),
        ("many keys", "{% set n = namespace() %}{% for i in range(100000) %}{% for j in range(100000) %}{% set n.x = i ~ j %}{% endfor %}{% endfor %}".into()),
    ];
    for (name, source) in cases {
        let start = Instant::now();
        let result = render(&source);
        let took = start.elapsed();
        match &result {
            Err(
                Error::Limit { .. }
                | Error::Template(_)
                | Error::Malformed { .. }
                | Error::Unsupported(_),
            ) => {}
            other => panic!("{name}: {:.200?}", other),
        }
        assert!(took < SOON, "{name} took {took:?}");
    }
    if let Some(peak) = peak_mib() {
        assert!(peak < 1024, "{peak} MiB at the peak");
        eprintln!("peak {peak} MiB");
    }
}
